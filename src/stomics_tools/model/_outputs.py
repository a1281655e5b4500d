"""What a model of spots and graphs writes into an object."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from stomics_tools.nn import Graph


@dataclass
class Outputs:
    """Outputs of a model for all spots, rows in the order of its inputs.

    Parameters
    ----------
    latent
        ``(n_obs, n_latent)``.
    graphs
        By name: patterns that do not overlap and their weights ``(n_edges,)``, to be added up to one graph.
    tables
        By name: columns, and values ``(n_obs, n_columns)``.
    """

    latent: Tensor
    graphs: dict[str, list[tuple[Graph, Tensor]]]
    tables: dict[str, tuple[list[str], Tensor]] = field(default_factory=dict)
