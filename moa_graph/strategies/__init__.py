"""Strategies beyond the paper: values of `create_moa`'s arguments.

| argument | strategies |
|---|---|
| `aggregator` | `Rank`, `Vote`, `MostCentral`, `Analyse`, `SelfMoASeq` |
| | `DropoutAndVote`, `DropoutAndCluster` |
| `select` | `TopK`, `Diverse`, `Deduplicate`, `Shuffle`, `Tree`, `ClusterAndFilter`, `Residual` |
| `until` | `Agree`, `Similar`, `JudgedAgreement`, `Unchanged` |
| `route` | `Route` |
| `staircase`, `chunkwise` | `Staircase`, `Chunkwise` |
"""

from moa_graph.strategies.analyse import Analyse
from moa_graph.strategies.answers import AnswerStrategy
from moa_graph.strategies.early_exit import Agree, JudgedAgreement, Similar, Unchanged, Until
from moa_graph.strategies.pieces import Chunkwise, Staircase
from moa_graph.strategies.rank import MostCentral, Rank
from moa_graph.strategies.residual import Residual
from moa_graph.strategies.robust import ClusterAndFilter, DropoutAndCluster, DropoutAndVote
from moa_graph.strategies.route import Route, route_rates
from moa_graph.strategies.selection import (
    Deduplicate,
    Diverse,
    Selection,
    Shuffle,
    TopK,
    Tree,
)
from moa_graph.strategies.sequential import SelfMoASeq
from moa_graph.strategies.vote import Vote

__all__ = [
    "Agree",
    "Analyse",
    "AnswerStrategy",
    "Chunkwise",
    "ClusterAndFilter",
    "Deduplicate",
    "Diverse",
    "DropoutAndCluster",
    "DropoutAndVote",
    "JudgedAgreement",
    "MostCentral",
    "Rank",
    "Residual",
    "Route",
    "Selection",
    "SelfMoASeq",
    "Shuffle",
    "Similar",
    "Staircase",
    "TopK",
    "Tree",
    "Unchanged",
    "Until",
    "Vote",
    "route_rates",
]
