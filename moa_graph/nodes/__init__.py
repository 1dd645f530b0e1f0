"""Nodes of the graph, and their view of the run."""
