"""Spots to the tensors and graphs of the spike-driven module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stomics_tools.data import Spots, alike_elsewhere, hilbert_order, rings, spatial_knn
from stomics_tools.data._tensors import to_graph
from stomics_tools.model._centers import add_centers, subtract_centers
from stomics_tools.model._order import Ordered
from stomics_tools.nn import Graph

Moments = tuple[Tensor, Tensor]
_LEAST_STEP = 0.25  # of coincident spots, or where a ready graph joins spots far apart


@dataclass
class Tissue(Ordered):
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
    alike
        For each modality the spots whose neighbourhoods are most alike, none of them within two steps.
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
    alike: list[Graph]
    segments: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> Tissue:
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
            alike=moved(self.alike),
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


def read_tissue(
    spots: Spots,
    *,
    n_spatial_neighbors: int,
    n_feature_neighbors: int,
    n_hops: int,
    moments: list[Moments] | None = None,
    center_slices: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tissue:
    """Build the graphs of `spots`, none of which joins two slices, and put everything in spatial order.

    Modalities stand in the order of their names. With `center_slices` each slice is centered by itself, which takes away
    what differs between slices throughout; else all by `moments`, or their common mean where none are given. By default
    slices are centered by themselves where there are several: other data are then to be treated alike, also a slice alone.
    Apart from that common mean nothing here depends on which slices stand side by side.

    Raises ``ValueError`` if a slice has fewer spots than neighbours are asked for.
    """
    order = hilbert_order(spots.coordinates, spots.batch)
    batch, coordinates = spots.batch[order], spots.coordinates[order]
    if spots.spatial_graph is None:
        nearest = spatial_knn(coordinates, n_spatial_neighbors, batch)
        nearest.data[:] = 1.0  # coincident spots lie at distance zero
    else:
        nearest = sparse.csr_matrix(spots.spatial_graph[order][:, order])
    near = rings(nearest, n_hops)
    if center_slices is None:
        center_slices = len(np.unique(batch)) > 1
    starts = np.flatnonzero(np.diff(batch, prepend=-1))
    segments = [*starts.tolist(), len(batch)]
    values, present, used, centers, alike = [], [], [], [], []
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
        if n_feature_neighbors:
            if name in spots.feature_graphs:
                pattern = _without_self(spots.feature_graphs[name][order][:, order])
            else:
                pattern = _alike(x.numpy(), there, near, batch, n_feature_neighbors)
            alike.append(to_graph(pattern, dtype)[0])
    return Tissue(
        order=order,
        values=values,
        present=present,
        moments=used,
        centers=centers,
        center_slices=center_slices,
        rings=[to_graph(ring, dtype)[0] for ring in near],
        distances=_distances(near, coordinates, batch),
        alike=alike,
        segments=torch.tensor(segments),
    )


def _moments(x: Tensor) -> Moments:
    """Mean of each feature, and root mean square of them all about it, so that modalities weigh the same."""
    center = x.mean(0)
    return center, (x - center).square().mean().sqrt()


def _alike(
    x: np.ndarray, present: np.ndarray, near: list[sparse.csr_matrix], batch: np.ndarray, n_neighbors: int
) -> sparse.csr_matrix:
    """Spots with the modality whose neighbourhoods, themselves left out, are most alike.

    A spot's own values, noise included, do not choose its neighbours, and none of them has it in its neighbourhood.
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


def _distances(near: list[sparse.csr_matrix], coordinates: np.ndarray, batch: np.ndarray) -> list[float]:
    """Mean distance of each ring in units of the first of its slice, rising; the number of steps where there is none."""
    unit = np.zeros(batch.max() + 1)
    distances = [1.0]
    for step, ring in enumerate(near, start=1):
        edges = ring.tocoo()
        between = np.linalg.norm(coordinates[edges.row] - coordinates[edges.col], axis=1)
        own = batch[edges.row]
        if step == 1:
            unit = np.bincount(own, between) / np.maximum(np.bincount(own), 1)
            continue
        known = unit[own] > 0
        mean = (between[known] / unit[own[known]]).mean() if known.any() else step
        distances.append(max(float(mean), distances[-1] + _LEAST_STEP))
    return distances
