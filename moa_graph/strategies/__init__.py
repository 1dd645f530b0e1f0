"""Strategies that extend the paper. They are arguments of `Layer` and `create_moa`.

| argument | strategies |
|---|---|
| `create_moa(aggregator)` | `Rank`, `Vote`, `MostCentral`, `PeerReview`, `Analyse` |
| | `SelfMoASeq`, `DropoutAndVote`, `DropoutAndCluster` |
| `Layer(select=…)` | `TopK`, `Diverse`, `Deduplicate`, `Shuffle`, `Tree` |
| | `ClusterAndFilter`, `Residual` |
| `Layer(until=…)` | `Agree`, `Similar`, `JudgedAgreement`, `Unchanged` |
| `create_moa(route=…)` | `Route` |
| `create_moa(progressive=…)` | `Staircase` |

A custom strategy is a function. Its argument `run` is a `Run`:

| argument | function, sync or async |
|---|---|
| `aggregator` | `async def aggregate(references, run) -> str` (or a message, a proposal) |
| `select` | `async def select(references, run) -> list[Proposal]` |
| `until` | `async def until(references, run) -> bool` |
| `route` | `async def route(run) -> str` (or a message; None runs the mixture) |

`register_strategy` gives a function a name, so that files and assistants can use it.
"""

from moa_graph.calling.answer import Answer
from moa_graph.progressive.pieces import Staircase
from moa_graph.state import Decision
from moa_graph.strategies.analyse import Analyse
from moa_graph.strategies.names import register_strategy
from moa_graph.strategies.peer_review import PeerReview
from moa_graph.strategies.rank import MostCentral, Rank
from moa_graph.strategies.residual import Residual
from moa_graph.strategies.robust import ClusterAndFilter, DropoutAndCluster, DropoutAndVote
from moa_graph.strategies.route import Route, route_rates
from moa_graph.strategies.run import Run
from moa_graph.strategies.select import Deduplicate, Diverse, Shuffle, TopK, Tree
from moa_graph.strategies.sequential import SelfMoASeq
from moa_graph.strategies.until import Agree, JudgedAgreement, Similar, Unchanged
from moa_graph.strategies.vote import Vote

__all__ = [
    "Agree",
    "Analyse",
    "Answer",
    "ClusterAndFilter",
    "Decision",
    "Deduplicate",
    "Diverse",
    "DropoutAndCluster",
    "DropoutAndVote",
    "JudgedAgreement",
    "MostCentral",
    "PeerReview",
    "Rank",
    "Residual",
    "Route",
    "Run",
    "SelfMoASeq",
    "Shuffle",
    "Similar",
    "Staircase",
    "TopK",
    "Tree",
    "Unchanged",
    "Vote",
    "register_strategy",
    "route_rates",
]
