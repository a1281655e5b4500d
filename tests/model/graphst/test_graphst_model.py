"""Training, results, determinism, saving, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import linalg, sparse
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stomics_tools.data import normalized_adjacency, spatial_knn
from stomics_tools.model import GraphST, PRAGASpike

QUIET = {"enable_progress_bar": False}


def _model(adata: AnnData, setup: dict[str, Any] | None = None, **kwargs: Any) -> GraphST:
    GraphST.setup_anndata(adata, **(setup or {}))
    return GraphST(adata, n_latent=8, **kwargs)


def _trained(
    adata: AnnData, max_epochs: int = 20, seed: int = 0, setup: dict[str, Any] | None = None, **kwargs: Any
) -> GraphST:
    model = _model(adata, setup)
    model.train(max_epochs, seed=seed, **QUIET, **kwargs)
    return model


def test_results_are_written_and_survive_a_file(adata: AnnData, tmp_path: Path) -> None:
    counts = adata.X.copy()
    model = _trained(adata)
    latent = adata.obsm["X_graphst"]
    assert latent.shape == (adata.n_obs, 8)
    assert latent.dtype == np.float32
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    assert (adata.X != counts).nnz == 0
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(back.obsm["X_graphst"], latent)
    assert back.uns["graphst"]["params"]["model"] == "GraphST"
    graph = back.obsp["graphst_spatial_connectivities"]
    edges = spatial_knn(adata.obsm["spatial"], 6)
    edges.data[:] = 1
    np.testing.assert_allclose(graph.toarray(), normalized_adjacency(edges).toarray(), atol=1e-6)


def test_latent_and_reconstruction_from_saved_weights(adata: AnnData, tmp_path: Path) -> None:
    """By the formulas, on dense arrays."""
    model = _trained(adata)
    totals = adata.X.sum(axis=1)
    x = np.log1p(adata.X.toarray() * (4 * np.median(np.asarray(totals)) / np.asarray(totals)))
    scaled = (x - x.mean(0)) / np.sqrt(np.square(x - x.mean(0)).mean())
    a = adata.obsp["graphst_spatial_connectivities"].toarray()
    w1, w2 = model.module.encoder.detach().numpy(), model.module.output.detach().numpy()
    latent = a @ a @ a @ scaled @ w1
    axes = model.module.axes.numpy()
    np.testing.assert_allclose(model.get_latent_representation(), latent @ axes, atol=1e-4)
    scale = np.sqrt(np.square(x - x.mean(0)).mean())
    np.testing.assert_allclose(model.get_reconstruction(), a @ latent @ w2 * scale + x.mean(0), atol=1e-3)


def test_orientation_on_dense_arrays(adata: AnnData) -> None:
    """What spots tell of their neighbours by least squares, in units of expression, along principal components."""
    model = _trained(adata, setup={"batch_key": "slice"}, max_epochs=50)
    inputs, _ = model._inputs(None)
    w2 = model.module.output.detach().numpy().astype(float)
    metric = linalg.sqrtm(w2 @ w2.T)  # distances of Z times this are those of Z W2
    spots = (inputs.values @ model.module.encoder).detach().numpy() @ metric
    near = (adata.obsp["graphst_spatial_connectivities"] > 0).astype(float).toarray()
    np.fill_diagonal(near, 0)
    around = (near / near.sum(1, keepdims=True))[inputs.order][:, inputs.order] @ spots
    common, spread = spots.T @ around / len(spots), spots.T @ spots / len(spots)
    likeness, basis = linalg.eigh((common + common.T) / 2, spread)
    smooth = basis * likeness.clip(0) @ np.linalg.inv(basis)
    if (likeness > 0).all():
        np.testing.assert_allclose(smooth, np.linalg.solve(spread, (common + common.T) / 2), atol=1e-6)
    a = adata.obsp["graphst_spatial_connectivities"].toarray()[inputs.order][:, inputs.order]
    expected = a @ a @ a @ spots @ smooth
    found = model.get_latent_representation()[inputs.order]
    np.testing.assert_allclose(pdist(found), pdist(expected), rtol=1e-3, atol=1e-4)
    own = (inputs.values @ model.module.encoder @ model.module.axes).detach().numpy()
    variance = own.T @ own / len(own)
    np.testing.assert_allclose(variance, np.diag(np.diag(variance)), atol=1e-4)
    assert (np.diff(np.diag(variance)) <= 1e-6).all()


def test_without_orientation_it_is_z(adata: AnnData) -> None:
    model = _model(adata, orient=False)
    model.train(3, **QUIET)
    np.testing.assert_array_equal(model.module.axes.numpy(), np.eye(8))
    oriented = _model(adata.copy())
    oriented.train(3, **QUIET)
    expected = model.get_latent_representation() @ oriented.module.axes.numpy()
    np.testing.assert_allclose(oriented.get_latent_representation(), expected, atol=1e-4)


def test_noise_of_single_spots_is_left_out(adata: AnnData) -> None:
    """Genes without spatial pattern but of large variance lead the plain representation, and not the oriented one."""
    rng = np.random.default_rng(0)
    adata.X = np.log1p(adata.X.toarray())
    adata.X[:, 10:14] += 4 * rng.normal(size=(adata.n_obs, 4))
    scores = {}
    for orient in (True, False):
        GraphST.setup_anndata(adata)
        model = GraphST(adata, n_latent=8, orient=orient)
        model.train(100, **QUIET)
        labels = GaussianMixture(4, n_init=5, random_state=0).fit_predict(adata.obsm["X_graphst"])
        scores[orient] = adjusted_rand_score(adata.obs["domain"], labels)
    assert scores[True] > scores[False]
    assert scores[True] > 0.6


def test_it_learns(adata: AnnData) -> None:
    model = _trained(adata, 150)
    losses = model.history["train_loss"]["train_loss"]
    assert len(losses) == 150
    assert losses.iloc[-50:].mean() < losses.iloc[:50].mean()
    assert set(model.history) == {"train_loss", "reconstruction_loss", "contrast_loss"}
    found, alone = (
        adjusted_rand_score(adata.obs["domain"], GaussianMixture(4, n_init=5, random_state=0).fit_predict(x))
        for x in (adata.obsm["X_graphst"], PCA(8).fit_transform(model.get_expression()))
    )
    assert found > max(alone + 0.2, 0.6)


def test_same_seed_same_bits_and_no_global_state_touched(adata: AnnData) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    how = {"corruption": "noise", "contrast": "infonce", "dropout": 0.1}
    found = []
    for seed in (1, 1, 2):
        model = _model(adata.copy(), **how)
        model.train(10, seed=seed, **QUIET)
        found.append(model.get_latent_representation())
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert torch.equal(torch_state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_the_order_of_spots_does_not_matter(adata: AnnData) -> None:
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    _trained(adata)
    _trained(shuffled)
    np.testing.assert_allclose(shuffled[adata.obs_names].obsm["X_graphst"], adata.obsm["X_graphst"], atol=1e-5)


def test_slices_do_not_touch(adata: AnnData) -> None:
    """What a model says of one slice does not depend on the expression of the other."""
    model = _trained(adata, setup={"batch_key": "slice"})
    other = adata.copy()
    changed = (other.obs["slice"] == "b").to_numpy()
    other.X[changed.nonzero()[0]] = other.X[changed.nonzero()[0]][:, ::-1]
    before, after = model.get_latent_representation(), model.get_latent_representation(other)
    np.testing.assert_allclose(before[~changed], after[~changed], atol=1e-5)
    assert np.abs(before[changed] - after[changed]).max() > 0.1


def test_a_shift_of_a_slice_changes_nothing(adata: AnnData) -> None:
    """Slices are centred one by one."""
    adata.X = np.log1p(adata.X.toarray())
    shifted = adata.copy()
    shifted.X[(shifted.obs["slice"] == "b").to_numpy()] += np.linspace(0, 3, adata.n_vars)
    found = [_trained(a, setup={"batch_key": "slice"}).get_latent_representation() for a in (adata, shifted)]
    np.testing.assert_allclose(*found, atol=1e-3)


def test_an_unseen_slice_whose_genes_stand_in_another_order(adata: AnnData, make_adata: Callable[..., AnnData]) -> None:
    model = _trained(adata, 100, setup={"genes": [f"gene{i}" for i in range(20)]})
    assert model.genes == [f"gene{i}" for i in range(20)]
    other = make_adata(seed=1)
    expected = model.get_latent_representation(other)
    shuffled = other[:, np.random.default_rng(0).permutation(other.n_vars)].copy()
    np.testing.assert_allclose(model.get_latent_representation(shuffled), expected, atol=1e-5)
    labels = GaussianMixture(4, n_init=5, random_state=0).fit_predict(expected)
    assert adjusted_rand_score(other.obs["domain"], labels) > 0.6
    model.write_results(other, key_added="mine")
    np.testing.assert_array_equal(other.obsm["X_mine"], expected)
    assert model.get_reconstruction(other).shape == (other.n_obs, 20)


def test_save_and_load(adata: AnnData, tmp_path: Path) -> None:
    model = _trained(adata, setup={"batch_key": "slice"})
    other = adata[:100].copy()
    expected, unseen = model.get_latent_representation(), model.get_latent_representation(other)
    model.save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.json", "model.safetensors"}
    json.loads((tmp_path / "model" / "model.json").read_text())
    loaded = GraphST.load(tmp_path / "model", adata.copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), expected)
    np.testing.assert_array_equal(loaded.get_latent_representation(other), unseen)
    assert loaded.genes == model.genes
    loaded.train(5, **QUIET)
    model.train(5, **QUIET)
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert len(loaded.history["train_loss"]) == 25
    with pytest.raises(ValueError, match="holds a GraphST, not a PRAGASpike"):
        PRAGASpike.load(tmp_path / "model", adata)


class _Kill(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 13:
            raise KeyboardInterrupt("killed")


def test_a_killed_run_goes_on_to_the_same_result(adata: AnnData, tmp_path: Path) -> None:
    straight = _model(adata.copy())
    straight.train(24, **QUIET)
    killed = _model(adata.copy())
    with pytest.raises(BaseException, match="killed|Killed|1"):
        killed.train(24, checkpoint_dir=tmp_path, checkpoint_every=6, callbacks=[_Kill()], **QUIET)
    assert not killed.is_trained
    resumed = _model(adata.copy())
    resumed.train(24, ckpt_path=tmp_path, **QUIET)
    np.testing.assert_array_equal(resumed.get_latent_representation(), straight.get_latent_representation())


def test_the_norm_of_the_gradient_is_clipped(adata: AnnData) -> None:
    free, clipped = (_trained(adata.copy(), 1, clip_grad=c) for c in (None, 1e-12))
    start = _model(adata.copy())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = start._make_module(start._prepare(start._read(None), trained_on=False)).encoder
    assert (free.module.encoder - weights).abs().max() > 1e-4
    assert (clipped.module.encoder - weights).abs().max() < 1e-6


def test_published_dimensions(adata: AnnData) -> None:
    GraphST.setup_anndata(adata)
    model = GraphST(adata, preset="dense", n_latent=512, dropout=0.3)
    assert model._settings.max_epochs == 600
    model.train(2, lr=5e-4, clip_grad=5.0, **QUIET)
    assert adata.obsm["X_graphst"].shape == (adata.n_obs, 512)
    assert model._settings.self_loop == "after"
    assert GraphST(adata, preset="sparse", n_spatial_neighbors=4)._settings.n_spatial_neighbors == 4


def test_normalized_output(adata: AnnData) -> None:
    GraphST.setup_anndata(adata)
    model = GraphST(adata, preset="sparse")
    model.train(3, **QUIET)
    np.testing.assert_allclose(np.linalg.norm(model.get_reconstruction(), axis=1), 1, atol=1e-5)


def test_dense_and_backed_and_float64_are_the_same(adata: AnnData, tmp_path: Path) -> None:
    expected = _trained(adata.copy()).get_latent_representation()
    variants = [adata.copy() for _ in range(4)]
    variants[0].X = variants[0].X.toarray()
    variants[1].X = variants[1].X.astype(np.int64)
    variants[2].X = sparse.csc_matrix(variants[2].X.astype(np.float64))
    variants[3].layers["counts"] = variants[3].X
    variants[3].X = sparse.csr_matrix(variants[3].shape)
    for number, variant in enumerate(variants):
        found = _trained(variant, setup={"layer": "counts"} if number == 3 else None).get_latent_representation()
        np.testing.assert_allclose(found, expected, atol=1e-4)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    GraphST.setup_anndata(backed)
    model = GraphST(backed, n_latent=8)
    model.train(20, key_added=None, **QUIET)
    np.testing.assert_allclose(model.get_latent_representation(), expected, atol=1e-4)
