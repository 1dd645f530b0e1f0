"""Experimental strategies. Any release may change or remove them."""

from moa_graph.progressive.pieces import Chunkwise

__all__ = ["Chunkwise"]
