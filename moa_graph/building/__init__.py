"""From arguments to a graph: checks, parts, rules and wiring."""
