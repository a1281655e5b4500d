"""Spots to the tensors and graphs that the module works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stomics_tools.data import (
    Spots,
    SpotsSpec,
    alike_elsewhere,
    check_slice_sizes,
    hilbert_order,
    ring_distances,
    rings,
    spatial_knn,
)
from stomics_tools.data._tensors import to_csr, to_graph
from stomics_tools.model._centers import add_centers, subtract_centers
from stomics_tools.model._order import Ordered
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.nn import Graph

Moments = tuple[Tensor, Tensor]


@dataclass
class Inputs(Ordered):
    """One object, ready for the module; slices stand one after the other, each along a space-filling curve.

    Parameters
    ----------
    order
        Row of the object at each place, int64 ``(n_obs,)``.
    values
        One ``(n_obs, n_features)`` a modality, less its center and over its scale; zero in spots without it.
    present
        1 or 0, ``(n_obs, 1)`` a modality.
    moments
        Center ``(n_features,)`` and scale (one number) of each modality.
    centers
        What was subtracted from the spots of each slice, in the units of the data, ``(n_slices, n_features)`` a modality.
    center_slices
        Whether each slice was centered by itself.
    rings
        Spots at 1, 2, ... steps in space, as symmetric patterns without a diagonal.
    distances
        Mean distance of the spots of each ring, in the unit of the first.
    feature_graphs
        For each modality the spots with the most similar neighborhoods, none of them within two steps; empty without any.
    segments
        Row pointers of the slices, int64 ``(n_slices + 1,)``.
    """

    values: list[Tensor]
    present: list[Tensor]
    moments: list[Moments]
    centers: list[Tensor]
    center_slices: bool
    rings: list[Graph]
    distances: list[float]
    feature_graphs: list[Graph]
    segments: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Inputs:
        """The same on another device."""

        def moved(tensors: Any) -> Any:
            return [t.to(device) for t in tensors]

        return replace(
            self,
            values=moved(self.values),
            present=moved(self.present),
            moments=[(center.to(device), scale.to(device)) for center, scale in self.moments],
            centers=moved(self.centers),
            rings=moved(self.rings),
            feature_graphs=moved(self.feature_graphs),
            segments=self.segments.to(device),
        )

    def in_units(self, standard: Tensor, modality: int) -> Tensor:
        """Values of a modality as the module sees them ``(n_obs, n_features)`` to those of the data."""
        scale = self.moments[modality][1]
        return add_centers(standard * scale, self.centers[modality], self.segments.tolist())

    def standardized(self, values: Tensor, modality: int) -> Tensor:
        """The reverse of :meth:`in_units`."""
        scale = self.moments[modality][1]
        return add_centers(values.clone(), -self.centers[modality], self.segments.tolist()) / scale

    @property
    def neighbors(self) -> sparse.csr_matrix:
        """The first ring as a matrix of ones."""
        return as_matrix(self.rings[0])


def as_matrix(graph: Graph) -> sparse.csr_matrix:
    """A pattern as a matrix of float32 ones."""
    return to_csr(graph, torch.ones(graph.n_edges))


def check_sizes(sizes: Mapping[str, Any], spec: SpotsSpec, settings: SpikeSettings) -> None:
    """Raise ``ValueError`` unless every slice (see :meth:`Spots.sizes`) has more spots than neighbors are asked for."""
    if spec.spatial_graph_key is None:
        check_slice_sizes(sizes["all"], settings.n_spatial_neighbors, argument="n_spatial_neighbors")


def prepare(
    spots: Spots,
    settings: SpikeSettings,
    *,
    moments: list[Moments] | None = None,
    center_slices: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """Build the graphs of `spots`, none of which joins two slices, and put everything in spatial order.

    Modalities stand in the order of their names. With `center_slices` each slice is centered by itself, which takes away
    what differs between slices throughout; else all by `moments`, or their common mean where none are given. By default
    slices are centered by themselves where there are several: other data are then to be treated alike, also a slice alone.
    Apart from that common mean nothing here depends on which slices stand side by side.
    """
    order = hilbert_order(spots.coordinates, spots.batch)
    batch, coordinates = spots.batch[order], spots.coordinates[order]
    if spots.spatial_graph is None:
        nearest = spatial_knn(coordinates, settings.n_spatial_neighbors, batch)
        nearest.data[:] = 1.0  # coincident spots lie at distance zero
    else:
        nearest = sparse.csr_matrix(spots.spatial_graph[order][:, order])
    near = rings(nearest, settings.n_hops)
    if center_slices is None:
        center_slices = len(np.unique(batch)) > 1
    starts = np.flatnonzero(np.diff(batch, prepend=-1))
    segments = [*starts.tolist(), len(batch)]
    values, present, used, centers, feature_graphs = [], [], [], [], []
    for m, (name, modality) in enumerate(sorted(spots.modalities.items())):
        there = modality.present[order]
        x = torch.from_numpy(modality.values[order]).to(dtype)
        center, scale = _moments(x[there]) if moments is None else moments[m]
        center, scale = center.to(x), scale.to(x)
        present.append(torch.from_numpy(there[:, None]).to(dtype))
        centers.append(subtract_centers(x, center, segments, by_slice=center_slices, present=torch.from_numpy(there)))
        x /= scale
        x[~there] = 0.0
        values.append(x)
        used.append((center, scale))
        if settings.has_feature_graphs:
            if name in spots.feature_graphs:
                pattern = _without_self(spots.feature_graphs[name][order][:, order])
            else:
                pattern = _similar(x.numpy(), there, near, batch, settings.n_feature_neighbors)
            feature_graphs.append(to_graph(pattern, dtype)[0])
    return Inputs(
        order=order,
        values=values,
        present=present,
        moments=used,
        centers=centers,
        center_slices=center_slices,
        rings=[to_graph(ring, dtype)[0] for ring in near],
        distances=ring_distances(near, coordinates, batch),
        feature_graphs=feature_graphs,
        segments=torch.tensor(segments),
    )


def _moments(x: Tensor) -> Moments:
    """Mean of each feature, and root mean square of them all about it, so that modalities weigh the same."""
    center = x.mean(0)
    return center, (x - center).square().mean().sqrt()


def _similar(
    x: np.ndarray, present: np.ndarray, near: list[sparse.csr_matrix], batch: np.ndarray, n_neighbors: int
) -> sparse.csr_matrix:
    """Spots with the modality whose neighborhoods, themselves left out, are most similar.

    A spot's own values, noise included, do not choose its neighbors, and none of them has it in its neighborhood.
    """
    rows = np.flatnonzero(present)
    if not len(rows):
        return sparse.csr_matrix((len(x), len(x)))
    around = near[:2]
    mean = np.mean([_row_mean(ring, x, present) for ring in around], axis=0)
    part = alike_elsewhere(mean[rows], n_neighbors, [ring[rows][:, rows] for ring in around], batch[rows])
    if len(rows) == len(x):
        return part
    edges = part.tocoo()
    return sparse.csr_matrix((edges.data, (rows[edges.row], rows[edges.col])), shape=(len(x), len(x)))


def _without_self(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """The edges of a ready graph but for the loops: a spot that sees itself has nothing to predict."""
    edges = graph.tocoo()
    kept = (edges.row != edges.col) & (edges.data != 0)
    result = sparse.csr_matrix((edges.data[kept], (edges.row[kept], edges.col[kept])), shape=graph.shape)
    result.sort_indices()
    return result


def _row_mean(ring: sparse.csr_matrix, x: np.ndarray, present: np.ndarray) -> np.ndarray:
    count = ring @ present.astype(x.dtype)
    return (ring @ x) / np.maximum(count, 1)[:, None]
