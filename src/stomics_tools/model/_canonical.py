"""Directions along which a spot and its neighbours agree."""

from __future__ import annotations

import torch
from torch import Tensor

from stomics_tools.nn import Graph

_RIDGE = 1e-6


def neighbor_means(graph: Graph, x: Tensor) -> Tensor:
    """Mean over the neighbours of each row, ``(n_rows, width)`` of ``(n_cols, width)``; zero for a row without any."""
    weight = torch.ones(graph.n_edges, dtype=x.dtype, device=x.device)
    return graph(x, weight) / graph.row_sum(weight).clamp(min=1)[:, None]


def covariance(x: Tensor, y: Tensor) -> Tensor:
    """Mean of the products of columns, float64 ``(width, width)``."""
    return (x.T @ y).double() / len(x)


def canonical_axes(spread: Tensor, common: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (descending), vectors as columns ``(F, r)`` and their inverse ``(r, F)`` of ``G b = l S b``.

    With the covariance S of the spots and G of a spot with the mean of its neighbours, ``l`` is the correlation of the
    two along ``b``, and spots have variance 1 along it.
    """
    size, axes = torch.linalg.eigh(spread)
    kept = size > _RIDGE * size[-1]
    size, axes = size[kept].sqrt(), axes[:, kept]
    whiten = axes / size
    lam, turn = torch.linalg.eigh(whiten.T @ common @ whiten)
    lam, turn = lam.flip(0), turn.flip(1)
    basis = whiten @ turn
    sign = basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
    return lam, basis * sign, (axes * size @ turn * sign).T
