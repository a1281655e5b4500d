"""The simplest contender of a comparison: averages over neighbours and principal components, nothing trained."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from sklearn.decomposition import PCA

from stomics_tools import _keys
from stomics_tools._validate import check_integer
from stomics_tools.data import check_batch_sizes, spatial_knn
from stomics_tools.pp._smooth import smooth_features


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
