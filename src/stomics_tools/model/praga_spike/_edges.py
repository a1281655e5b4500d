"""Weights of the edges of a graph, three ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stomics_tools.nn import Graph


class UniformEdges(nn.Module):
    """All neighbours weigh the same."""

    def forward(self, graph: Graph, state: Tensor) -> Tensor:
        """Weights ``(n_edges,)`` that sum to 1 in each row."""
        ones = torch.ones(graph.n_edges, dtype=state.dtype, device=state.device)
        return ones / graph.row_sum(ones).clamp(min=1).index_select(0, graph.row)


class FreeEdges(nn.Module):
    """One free logit an edge: for the graph of training alone; elsewhere all neighbours weigh the same."""

    def __init__(self, n_edges: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(n_edges))

    def forward(self, graph: Graph, state: Tensor) -> Tensor:
        """Weights ``(n_edges,)`` that sum to 1 in each row."""
        return graph.row_softmax(self.logit)


class InductiveEdges(nn.Module):
    """Edges scored by the neighbourhoods of their two ends: the closer, the heavier, or the reverse, as training finds.

    ``w_ij = softmax_j( -t |P s_i - P s_j|^2 )`` with the state s, what the neighbours alone predict of a spot: a cell
    is not compared with its neighbour but its neighbourhood with the neighbour's.
    """

    def __init__(self, n_latent: int, width: int = 16) -> None:
        super().__init__()
        self.project = nn.Linear(n_latent, width, bias=False)
        self.sharpness = nn.Parameter(torch.zeros(()))

    def forward(self, graph: Graph, state: Tensor) -> Tensor:
        """Weights ``(n_edges,)`` that sum to 1 in each row."""
        position = self.project(state) / self.project.out_features**0.5
        size = position.square().sum(1)
        closeness = 2 * graph.edge_dots(position, position) - size.index_select(0, graph.col)
        return graph.row_softmax(self.sharpness * closeness)
