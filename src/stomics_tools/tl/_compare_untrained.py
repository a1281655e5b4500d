"""Contenders of a comparison of which nothing is trained: averages over neighbors, and spatial components."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from sklearn.decomposition import PCA

from stomics_tools import _keys
from stomics_tools._spatial_components import fit_spatial_components
from stomics_tools._spot_sums import slice_centers
from stomics_tools._validate import check_integer, check_number
from stomics_tools.data import Spots, check_batch_sizes, spatial_knn
from stomics_tools.pp._smooth import smooth_features
from stomics_tools.tl._spatial_components import rings_of


class SmoothedComponents:
    """Principal components of ``X`` averaged over the nearest spots, :func:`stomics_tools.pp.smooth`.

    Parameters
    ----------
    adata
        Values in ``X``, coordinates in ``obsm["spatial"]``, slices in the categorical column ``obs["batch"]``.
    n_hops
        How many times to average over a spot and its neighbours of the same slice; 0 leaves the values as they are.
    n_neighbors
        Nearest spots that are averaged.
    n_components
        Principal components, as many as there can be at most.
    """

    def __init__(self, adata: AnnData, *, n_hops: int = 2, n_neighbors: int = 6, n_components: int = 20) -> None:
        self._n_hops = check_integer(n_hops, argument="n_hops", minimum=0)
        self._n_neighbors = check_integer(n_neighbors, argument="n_neighbors")
        self._n_components = min(check_integer(n_components, argument="n_components"), *adata.shape)
        self._adata, self._batch = adata, adata.obs["batch"].cat.codes.to_numpy(np.int64)
        if n_hops:
            check_batch_sizes(adata.n_obs, self._batch, n_neighbors, argument="n_neighbors")

    def train(self, *, seed: int, key_added: None = None) -> None:
        """Average, and fit the components."""
        values = np.asarray(self._adata.X)
        if self._n_hops:
            graph = spatial_knn(self._adata.obsm[_keys.SPATIAL], self._n_neighbors, self._batch)
            values = smooth_features(values, graph, self._n_hops)
        self._pca = PCA(self._n_components, random_state=seed)
        self._latent = self._pca.fit_transform(values)

    def get_latent_representation(self) -> np.ndarray:
        """Components ``(n_obs, n_components)``."""
        return self._latent

    def get_reconstruction(self) -> np.ndarray:
        """What the components tell of ``X``, ``(n_obs, n_features)``."""
        return self._pca.inverse_transform(self._latent)


class FittedComponents:
    """Spatial components of all modalities, :func:`stomics_tools.tl.spatial_components`.

    Parameters
    ----------
    spots
        The modalities, coordinates and slices.
    n_components
        Components at most.
    n_neighbors
        Nearest spots that are the neighbors of each.
    n_hops
        Steps over these neighbors up to which a spot is predicted.
    signal_threshold
        Least correlation of a spot and its neighbors along a component.
    """

    def __init__(
        self,
        spots: Spots,
        *,
        n_components: int = 64,
        n_neighbors: int = 6,
        n_hops: int = 3,
        signal_threshold: float = 0.1,
    ) -> None:
        self._n_components = check_integer(n_components, argument="n_components")
        self._n_neighbors = check_integer(n_neighbors, argument="n_neighbors")
        self._n_hops = check_integer(n_hops, argument="n_hops")
        self._signal_threshold = check_number(signal_threshold, argument="signal_threshold", low=0, high=1)
        check_batch_sizes(spots.n_obs, spots.batch, n_neighbors, argument="n_neighbors")
        self._spots, self._names = spots, sorted(spots.modalities)

    def train(self, *, seed: int, key_added: None = None) -> None:
        """Fit; no random number is drawn."""
        order, found, distances = rings_of(self._spots, self._n_neighbors, self._n_hops)
        parts = [self._spots.modalities[name] for name in self._names]
        values, present = [part.values[order] for part in parts], [part.present[order] for part in parts]
        batch = self._spots.batch[order]
        self._fit = fit_spatial_components(
            values,
            present,
            found,
            distances,
            batch,
            n_components=self._n_components,
            signal_threshold=self._signal_threshold,
        )
        self._latent = np.empty((self._spots.n_obs, self._fit.n_components), dtype=np.float32)
        self._latent[order] = self._fit.transform(values, present, found, batch)

    def get_latent_representation(self) -> np.ndarray:
        """Components ``(n_obs, n_components)``."""
        return self._latent

    def get_denoised(self) -> dict[str, np.ndarray]:
        """What the components tell of each modality, ``(n_obs, n_features)``, about the means of each slice."""
        batch, denoised = self._spots.batch, {}
        for m, name in enumerate(self._names):
            part, center = self._spots.modalities[name], self._fit.centers[m]
            centers = slice_centers(part.values, part.present, batch, center, by_slice=self._fit.center_slices)
            denoised[name] = self._fit.decode(self._latent, m) + centers[batch]
        return denoised
