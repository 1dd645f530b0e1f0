"""Strategies that are not stable: they may change or go with any release."""

from moa_graph.progressive.pieces import Chunkwise

__all__ = ["Chunkwise"]
