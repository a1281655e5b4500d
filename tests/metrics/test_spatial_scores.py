from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from sklearn.metrics import silhouette_score

from stomics_tools.data._graphs import spatial_knn
from stomics_tools.metrics import local_purity, morans_i_labels, score_domains, silhouette


@pytest.fixture
def tissue():
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(150, 2))
    labels = np.array(["left", "mid", "right"])[np.digitize(xy[:, 0] + rng.normal(0, 0.1, 150), [0.3, 0.7])]
    return xy, labels, spatial_knn(xy, 5)


def dense_moran(labels, adjacency):
    values = []
    for label in np.unique(labels):
        z = (labels == label) - np.mean(labels == label)
        values.append(len(z) / adjacency.sum() * (z @ adjacency @ z) / (z @ z))
    return np.mean(values)


def test_morans_i_equals_the_dense_formula(tissue):
    _, labels, graph = tissue
    adjacency = (graph.toarray() > 0).astype(float)
    assert morans_i_labels(labels, graph) == pytest.approx(dense_moran(labels, adjacency), abs=1e-12)
    uneven = np.triu(adjacency) * (np.arange(150) % 3 > 0)  # directed, degrees differ, rows without edges
    assert morans_i_labels(labels, sparse.csr_matrix(uneven)) == pytest.approx(dense_moran(labels, uneven), abs=1e-12)


def test_morans_i_equals_squidpy(tissue):
    import squidpy as sq

    _, labels, graph = tissue
    one_hot = pd.get_dummies(labels).astype(float)
    adata = AnnData(one_hot.to_numpy(), var=pd.DataFrame(index=one_hot.columns))
    adata.obsp["spatial_connectivities"] = sparse.csr_matrix((np.ones(graph.nnz), graph.indices, graph.indptr))
    sq.gr.spatial_autocorr(adata, mode="moran", n_perms=None, n_jobs=1, transformation=False)
    assert morans_i_labels(labels, graph) == pytest.approx(adata.uns["moranI"]["I"].mean(), abs=1e-6)


def test_local_purity_equals_a_loop(tissue):
    _, labels, graph = tissue
    graph = graph[:, :].copy()
    graph[3] = 0
    graph.eliminate_zeros()
    shares = [np.mean(labels[row.indices] == own) for row, own in zip(graph, labels, strict=True) if row.nnz]
    assert local_purity(labels, graph) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("score", [morans_i_labels, local_purity])
def test_what_does_not_count(tissue, score):
    """Values, zero values, self-loops and the edges of unlabelled spots change nothing."""
    _, labels, graph = tissue
    expected = score(labels, graph)
    other = graph.copy()
    other.data = np.zeros(other.nnz)
    assert score(labels, other) == expected
    assert score(labels, graph + sparse.identity(150)) == pytest.approx(expected)

    kept = np.arange(150) % 4 > 0
    missing = np.where(kept, labels, None)
    assert score(missing, graph) == pytest.approx(score(labels[kept], graph[kept][:, kept]))


@pytest.mark.parametrize("score", [morans_i_labels, local_purity])
def test_order_and_chance(tissue, score):
    _, labels, graph = tissue
    shuffled = np.random.default_rng(1).permutation(labels)
    assert score(labels, graph) > score(shuffled, graph) + 0.2
    with pytest.raises(ValueError, match="graph.*149 `labels`"):
        score(labels[1:], graph)


def test_undefined_scores_are_nan(tissue):
    _, labels, graph = tissue
    assert np.isnan(morans_i_labels(["x"] * 150, graph))
    assert np.isnan(morans_i_labels(labels, sparse.csr_matrix((150, 150))))
    assert np.isnan(local_purity(labels, sparse.csr_matrix((150, 150))))
    assert np.isnan(silhouette(np.zeros((150, 2)), ["x"] * 150))
    assert np.isnan(silhouette(np.eye(4), range(4)))


def test_silhouette(tissue):
    xy, labels, _ = tissue
    kept = np.arange(150) > 20
    assert silhouette(xy, labels) == pytest.approx(silhouette_score(xy, labels))
    assert silhouette(xy, np.where(kept, labels, None)) == pytest.approx(silhouette_score(xy[kept], labels[kept]))
    drawn = [silhouette(xy, labels, max_obs=100, seed=s) for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == pytest.approx(silhouette(xy, labels), abs=0.1)
    with pytest.raises(ValueError, match="`embedding` has 150 rows, but there are 149"):
        silhouette(xy, labels[1:])


def test_score_domains_gives_what_the_arrays_allow(tissue):
    xy, labels, graph = tissue
    assert score_domains(labels) == {"n_domains": 3.0}
    scores = score_domains(labels, true=labels, graph=graph, embedding=xy)
    assert scores["ari"] == 1
    assert scores["morans_i"] == morans_i_labels(labels, graph)
    assert scores["local_purity"] == local_purity(labels, graph)
    assert scores["silhouette"] == silhouette(xy, labels)
    assert all(isinstance(v, float) for v in scores.values())
    assert score_domains(labels, true=np.where(labels == "mid", "?", "x"), ignore=["?"])["homogeneity"] == 1
