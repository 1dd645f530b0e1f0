"""What a node does, and its view of the run."""
