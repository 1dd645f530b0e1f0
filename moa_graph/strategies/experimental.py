"""Strategies that are not stable: they may change or go with any release."""

from moa_graph.strategies.pieces import Chunkwise

__all__ = ["Chunkwise"]
