"""Spots to the tensors and graphs of GraphST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stomics_tools.data import (
    Spots,
    SpotsSpec,
    check_slice_sizes,
    hilbert_order,
    normalized_adjacency,
    rings,
    spatial_knn,
)
from stomics_tools.data._tensors import to_graph
from stomics_tools.model._centers import subtract_centers
from stomics_tools.model._order import Ordered
from stomics_tools.model.graphst._settings import GraphSTSettings
from stomics_tools.nn import Graph


@dataclass
class Inputs(Ordered):
    """One object, ready for the module; spots stand in the order of a space-filling curve, slice after slice.

    Parameters
    ----------
    order
        Row of the object at each place, int64 ``(n_obs,)``.
    values
        ``(n_obs, n_genes)``, less the mean of its slice and over the scale.
    size
        Mean square of the values.
    spatial
        The normalised spatial graph.
    readout
        Means over each spot and its neighbours.
    neighbors
        The neighbours of each spot, in either direction, without itself.
    segments
        First row of each slice, and the number of rows.
    center, scale
        Means of the genes over all spots, and the scale.
    centers
        What was subtracted from the spots of each slice, in the units of the data, ``(n_slices, n_genes)``.
    """

    values: Tensor
    size: Tensor
    spatial: tuple[Graph, Tensor]
    readout: tuple[Graph, Tensor]
    neighbors: Graph
    segments: list[int]
    center: Tensor
    scale: Tensor
    centers: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Inputs:
        """The same on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("values", "size", "center", "scale", "centers")
        }
        neighbors = self.neighbors.to(device)
        graphs = {name: tuple(part.to(device) for part in getattr(self, name)) for name in ("spatial", "readout")}
        return Inputs(order=self.order, segments=self.segments, neighbors=neighbors, **moved, **graphs)  # type: ignore[arg-type]


def prepare(
    spots: Spots,
    settings: GraphSTSettings,
    *,
    moments: tuple[Tensor, Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """Build the graphs of `spots`, block-diagonal over slices, and put everything in spatial order.

    Center and scale are computed unless they are given as `moments`.
    """
    (modality,) = spots.modalities.values()
    order = hilbert_order(spots.coordinates, spots.batch)
    batch = spots.batch[order]
    edges = spots.spatial_graph
    if edges is None:
        edges = spatial_knn(spots.coordinates[order], settings.n_spatial_neighbors, batch)
        edges.data[:] = 1.0
    else:
        edges = edges[order][:, order]
    segments = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(batch)]
    x = torch.from_numpy(modality.values[order]).to(dtype)
    center = x.mean(0) if settings.standardize else x.new_zeros(x.shape[1])
    centers = subtract_centers(x, torch.zeros_like(center), segments, by_slice=settings.standardize)
    size = _mean_square(x)
    scale = size.sqrt().clamp(min=1e-6) if settings.standardize else size.new_ones(())
    if moments is not None:
        center, scale = (moment.to(x) for moment in moments)
    x /= scale
    adjacency = normalized_adjacency(edges) if settings.self_loop == "before" else loops_after(edges)
    return Inputs(
        order=order,
        values=x,
        size=size / scale.square(),
        spatial=to_graph(adjacency, dtype),
        readout=to_graph(neighborhood_means(edges), dtype),
        neighbors=to_graph(rings(edges, 1)[0], dtype)[0],
        segments=segments,
        center=center,
        scale=scale,
        centers=centers,
    )


def check_sizes(sizes: Mapping[str, Any], spec: SpotsSpec, settings: GraphSTSettings) -> None:
    """Raise ``ValueError`` for spots without expression, or slices with no more spots than neighbours are asked for.

    `sizes` as of :meth:`Spots.sizes`.
    """
    ((name, measured),) = sizes["measured"].items()
    absent = sum(sizes["all"]) - sum(measured)
    if absent:
        first = sizes["first_absent"][name]
        raise ValueError(f"`layer`: {absent} spots have no expression (all NaN; first: row {first}). Drop them.")
    if spec.spatial_graph_key is None:
        check_slice_sizes(sizes["all"], settings.n_spatial_neighbors, argument="n_spatial_neighbors")


def loops_after(edges: sparse.csr_matrix) -> sparse.csr_matrix:
    """``D^-1/2 A D^-1/2 + I`` with ``A = min(W + W^T, 1)``: self-loops that the normalisation does not see."""
    both = sparse.csr_matrix(edges + edges.T)
    both.eliminate_zeros()
    both.data = np.minimum(both.data, 1.0)
    degree = np.asarray(both.sum(axis=1)).ravel()
    scale = sparse.diags_array(np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    result = sparse.csr_matrix(scale @ both @ scale + sparse.identity(edges.shape[0], format="csr"))
    result.sort_indices()
    return result


def neighborhood_means(edges: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows ``(W + I) / sum``: the mean over each spot and the neighbours that it chose."""
    looped = sparse.csr_matrix(edges + sparse.identity(edges.shape[0], format="csr"))
    result = sparse.csr_matrix(sparse.diags_array(1.0 / np.asarray(looped.sum(axis=1)).ravel()) @ looped)
    result.sort_indices()
    return result


def _mean_square(x: Tensor, n_rows: int = 4096) -> Tensor:
    return torch.stack([part.square().sum() for part in x.split(n_rows)]).sum() / x.numel()
