"""Build a graph from arguments: checks, parts, rules and wiring."""
