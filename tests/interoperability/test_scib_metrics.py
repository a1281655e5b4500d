"""Metrics of scib-metrics on our latents, beside our own where both have one."""

from __future__ import annotations

import numpy as np
import pytest
import scib_metrics as scib
from scib_metrics.nearest_neighbors import NeighborsResults
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

import stomics_tools as st


@pytest.fixture
def latent(domains):
    return domains.obsm["X_graphst"]


def test_silhouette(domains, latent):
    labels = domains.obs["domain"].to_numpy()
    found = scib.silhouette_label(latent, labels, rescale=True)
    assert found == pytest.approx((silhouette_score(latent, labels) + 1) / 2, abs=1e-3)
    assert 2 * found - 1 == pytest.approx(st.metrics.silhouette(latent, labels), abs=2e-3)


def test_leiden_clusters_against_labels(domains, latent):
    labels = domains.obs["domain"].to_numpy()
    scores = scib.nmi_ari_cluster_labels_leiden(
        neighbors_of(latent), labels, optimize_resolution=False, resolution=1.0, seed=0
    )
    assert 0 < scores["nmi"] <= 1
    assert 0 < scores["ari"] <= 1


def test_mixing_of_slices(domains, latent):
    slices = domains.obs["slice"].cat.codes.to_numpy()
    neighbors = neighbors_of(latent)
    lisi = scib.lisi_knn(neighbors, slices)
    share = (slices[neighbors.indices[:, 1:]] == slices[:, None]).mean(axis=1)
    assert 1 <= lisi.min() <= lisi.max() <= 2
    assert np.corrcoef(lisi, np.abs(share - 0.5))[0, 1] < -0.3  # an even share is a mixture


def neighbors_of(latent: np.ndarray, k: int = 20) -> NeighborsResults:
    distance, index = NearestNeighbors(n_neighbors=k).fit(latent).kneighbors(latent)
    return NeighborsResults(indices=index, distances=distance)
