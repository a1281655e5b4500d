"""Spots to the tensors and graphs that the module works on."""

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
    feature_knn,
    hilbert_order,
    normalized_adjacency,
    spatial_knn,
)
from stomics_tools.data._tensors import to_graph
from stomics_tools.model._centers import subtract_centers
from stomics_tools.model._order import Ordered
from stomics_tools.model.praga._settings import FeatureWeights, PragaSettings
from stomics_tools.nn import Graph


@dataclass
class Inputs(Ordered):
    """One object, ready for the module; spots stand in the order of a space-filling curve.

    Parameters
    ----------
    order
        Row of the object at each place, int64 ``(n_obs,)``.
    values
        One ``(n_obs, n_features)`` a modality, less its center and over its scale; zero in spots without it.
    moments
        Center ``(n_features,)`` and scale (one number) of each modality.
    present
        Bool ``(n_obs,)`` a modality, or none where all spots have it.
    spatial
        Spatial graph and its normalised weights.
    features
        Feature graph of each modality and its normalised weights, the starting point of the learned ones.
    centers
        What was subtracted from the spots of each slice, in the units of the data, ``(n_slices, n_features)`` a modality.
    center_slices
        Whether each slice was centered by itself.
    segments
        First row of each slice, and the number of rows.
    """

    values: list[Tensor]
    moments: list[tuple[Tensor, Tensor]]
    present: list[Tensor | None]
    spatial: tuple[Graph, Tensor]
    features: list[tuple[Graph, Tensor]]
    centers: list[Tensor]
    center_slices: bool
    segments: list[int]

    def to(self, device: torch.device, non_blocking: bool = False) -> Inputs:
        """The same on another device."""
        return Inputs(
            order=self.order,
            values=[v.to(device, non_blocking=non_blocking) for v in self.values],
            moments=[(center.to(device), scale.to(device)) for center, scale in self.moments],
            present=[None if p is None else p.to(device, non_blocking=non_blocking) for p in self.present],
            spatial=(self.spatial[0].to(device), self.spatial[1].to(device)),
            features=[(graph.to(device), weight.to(device)) for graph, weight in self.features],
            centers=[center.to(device) for center in self.centers],
            center_slices=self.center_slices,
            segments=self.segments,
        )


def check_sizes(sizes: Mapping[str, Any], spec: SpotsSpec, settings: PragaSettings) -> None:
    """Raise ``ValueError`` unless every slice (see :meth:`Spots.sizes`) has more spots than neighbours are asked for."""
    if spec.spatial_graph_key is None:
        check_slice_sizes(sizes["all"], settings.n_spatial_neighbors, argument="n_spatial_neighbors")
    for name, measured in sizes["measured"].items():
        if name not in (spec.feature_graph_keys or {}) and any(measured):
            check_slice_sizes(measured, settings.n_feature_neighbors, argument="n_feature_neighbors")


def prepare(
    spots: Spots,
    settings: PragaSettings,
    *,
    features: list[tuple[Graph, Tensor]] | None = None,
    moments: list[tuple[Tensor, Tensor]] | None = None,
    center_slices: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """Build the graphs of `spots`, block-diagonal over batches, and put everything in spatial order.

    Modalities stand in the order of their names. Feature graphs and moments are computed unless they are given. Of
    several slices each is centered by itself, as one is by its principal components: the column sums of the model would
    add up what they differ by.

    Raises ``ValueError`` if a batch has fewer spots than neighbours are asked for.
    """
    order = hilbert_order(spots.coordinates, spots.batch)
    batch = spots.batch[order]
    if spots.spatial_graph is None:
        nearest = spatial_knn(spots.coordinates[order], settings.n_spatial_neighbors, batch)
        nearest.data[:] = 1.0
    else:
        nearest = spots.spatial_graph[order][:, order]
    segments = [*np.flatnonzero(np.diff(batch, prepend=-1)).tolist(), len(batch)]
    if center_slices is None:
        center_slices = len(segments) > 2
    values, found, present, built, centers = [], [], [], [], []
    for m, (name, modality) in enumerate(sorted(spots.modalities.items())):
        x, there = modality.values[order], modality.present[order]
        if features is None:
            ready = spots.feature_graphs.get(name)
            graph = _feature_graph(x, there, batch, settings) if ready is None else ready[order][:, order]
            built.append(to_graph(normalized_adjacency(graph), dtype))
        x = torch.from_numpy(x).to(dtype)
        found.append(_moments(x[there], settings.standardize) if moments is None else moments[m])
        center, scale = found[m]
        measured = torch.from_numpy(there)
        centers.append(subtract_centers(x, center.to(x), segments, by_slice=center_slices, present=measured))
        x /= scale.to(x)
        x[~there] = 0.0
        values.append(x)
        present.append(None if there.all() else torch.from_numpy(there))
    spatial = to_graph(normalized_adjacency(nearest), dtype)
    return Inputs(order, values, found, present, spatial, features or built, centers, center_slices, segments)


def _moments(x: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """Mean of each feature and root mean square of them all about it, so that one learning rate serves any unit."""
    if not standardize:
        return x.new_zeros(x.shape[1]), x.new_ones(())
    center = x.mean(0)
    return center, (x - center).square().mean().sqrt()


def _feature_graph(x: np.ndarray, present: np.ndarray, batch: np.ndarray, settings: PragaSettings) -> sparse.csr_matrix:
    """Neighbours among the spots that have the modality; the others have none."""
    rows = np.flatnonzero(present)
    if not len(rows):
        return sparse.csr_matrix((len(x), len(x)))
    part = feature_knn(x[rows], settings.n_feature_neighbors, batch[rows])
    part.data = _edge_weights(part.data, settings.feature_weights)
    if len(rows) == len(x):
        return part
    edges = part.tocoo()
    return sparse.csr_matrix((edges.data, (rows[edges.row], rows[edges.col])), shape=(len(x), len(x)))


def _edge_weights(distance: np.ndarray, kind: FeatureWeights) -> np.ndarray:
    """Weights from correlation distances.

    The published model takes the distance itself, so that the least alike of the neighbours weighs most.
    """
    if kind == "distance":
        return distance
    return np.ones_like(distance) if kind == "connectivity" else np.clip(1.0 - distance, 0.0, 1.0)
