from __future__ import annotations

import anndata
import numpy as np
import pytest

from stomics_tools import tl
from stomics_tools.datasets import simulate_sections
from stomics_tools.model import MaskedDiffusion
from stomics_tools.model.masked_diffusion import _places, _priors

QUIET = {"enable_progress_bar": False}
SMALL = {"width": 16, "n_heads": 2, "n_layers": 1, "n_hidden": 32, "n_latent": 8, "n_window": 40, "n_members": 2}


@pytest.fixture(autouse=True, scope="module")
def _short_regression():
    """What comes before the diffusion takes as long for few cells as for many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_priors, "_VISITS", 300)
        patch.setattr(_places, "_N_STEPS", 20)
        yield


def _data():
    adata = simulate_sections(2, 40, 12)
    del adata.uns["simulation"], adata.obsm["tissue"]
    return adata


@pytest.fixture
def adata():
    return _data()


@pytest.fixture(scope="module")
def model(_short_regression):
    data = _data()
    MaskedDiffusion.setup_anndata(data, batch_key="section")
    model = MaskedDiffusion(data, **SMALL)
    model.train(1, key_added=None, **QUIET)
    return model


def _keys(adata):
    return {what: set(getattr(adata, what)) for what in ("obs", "obsm", "layers", "uns")}


# ------------------------------------------------------------------ training


def test_it_equals_the_model(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.obsm["pixels"] = adata.obsm.pop("spatial")
    model_data = adata.copy()
    MaskedDiffusion.setup_anndata(model_data, "counts", spatial_key="pixels", batch_key="section")
    model = MaskedDiffusion(model_data, **SMALL, training_mode="expr_to_pos")
    model.train(2, seed=2, lr=0.002, **QUIET)
    returned = tl.masked_diffusion(
        adata,
        "counts",
        spatial_key="pixels",
        batch_key="section",
        max_epochs=2,
        seed=2,
        train_kwargs={"lr": 0.002, **QUIET},
        key_added="mine",
        **SMALL,
        training_mode="expr_to_pos",
    )
    assert returned is None
    np.testing.assert_array_equal(adata.obsm["X_mine"], model_data.obsm["X_masked_diffusion"])
    params = adata.uns["mine"]["params"]
    assert (params["seed"], params["max_epochs"], params["lr"]) == (2, 2, 0.002)
    assert (params["training_mode"], params["layer"], params["spatial_key"]) == ("expr_to_pos", "counts", "pixels")


def test_training_on_a_copy_leaves_the_object_alone(adata, tmp_path):
    before = _keys(adata)
    copied = tl.masked_diffusion(adata, max_epochs=1, train_kwargs=QUIET, copy=True, **SMALL)
    assert _keys(adata) == before
    copied.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert back.obsm["X_masked_diffusion"].shape == (80, 16)
    assert back.uns["masked_diffusion"]["params"]["stomics_tools_version"]


def test_the_number_of_epochs_is_that_of_train(adata, monkeypatch):
    given = {}
    monkeypatch.setattr(MaskedDiffusion, "train", lambda self, **how: given.update(how))
    tl.masked_diffusion(adata)
    assert given == {"seed": None, "key_added": "masked_diffusion"}


def test_bad_input_changes_nothing(adata):
    before = _keys(adata)
    with pytest.raises(KeyError, match=r"`spatial_key`: key 'pixels' not found"):
        tl.masked_diffusion(adata, spatial_key="pixels")
    with pytest.raises(KeyError, match=r"`batch_key`: key 'slice' not found"):
        tl.masked_diffusion(adata, batch_key="slice")
    assert _keys(adata) == before


# ------------------------------------------------------------------ positions


@pytest.mark.parametrize("layout", ["consensus", "draw"])
def test_positions(model, adata, tmp_path, layout):
    truth = adata.obsm.pop("spatial")
    assert tl.reconstruct_positions(adata, model, n_samples=3, n_steps=2, layout=layout, seed=5) is None
    warm = model.sample(adata, mode="expr_to_pos", n_samples=3, n_steps=2, temperature=1.0, seed=5)
    consensus = model.consensus(adata, n_samples=3, n_steps=2, seed=5)
    draw = model.sample(adata, mode="expr_to_pos", n_steps=2, seed=5)
    expected = draw if layout == "draw" else consensus.position
    scatter = np.sqrt(np.square(warm - warm.mean(axis=0)).sum(axis=2).mean(axis=0))
    adata.write_h5ad(tmp_path / "a.h5ad")
    for data in (adata, anndata.read_h5ad(tmp_path / "a.h5ad")):
        assert set(data.obsm) == {"spatial_predicted", "spatial_dispersion"}
        np.testing.assert_array_equal(data.obsm["spatial_predicted"], expected)
        np.testing.assert_allclose(data.obsm["spatial_dispersion"], scatter[:, None], rtol=1e-5)
        assert data.obsm["spatial_predicted"].dtype == data.obsm["spatial_dispersion"].dtype == np.float32
        params = data.uns["spatial_predicted"]["params"]
        assert (params["model"], params["layout"], params["seed"]) == ("MaskedDiffusion", layout, 5)
        assert (params["n_samples"], params["n_steps"]) == (3, 2)
        assert "landmarks" not in params
    assert expected.shape == truth.shape


def test_positions_among_landmarks(model, adata):
    known = np.arange(80) % 4 == 0
    adata.obs["known"] = known
    before = _keys(adata)
    how = {"n_samples": 2, "n_steps": 2, "key_added": "mine"}
    copied = tl.reconstruct_positions(adata, model, landmarks="known", **how, copy=True)
    assert _keys(adata) == before
    np.testing.assert_array_equal(copied.obsm["mine"][known], adata.obsm["spatial"][known].astype(np.float32))
    np.testing.assert_allclose(copied.obsm["mine_dispersion"][known], 0, atol=1e-2)
    assert copied.obsm["mine_dispersion"].shape == (80, 1)
    assert (copied.obsm["mine_dispersion"][~known] > 1).all()
    assert copied.uns["mine"]["params"]["landmarks"] == "known"
    tl.reconstruct_positions(adata, model, landmarks=known, **how)
    np.testing.assert_array_equal(adata.obsm["mine"], copied.obsm["mine"])
    assert adata.uns["mine"]["params"]["landmarks"] == 20


def test_results_are_written_into_a_view_that_becomes_its_own(model, adata):
    adata.obs["asked"] = np.arange(80) % 8 == 0
    for call, key in (
        (lambda data: tl.reconstruct_positions(data, model, n_samples=2, n_steps=2), "spatial_predicted"),
        (lambda data: tl.impute_expression(data, model, hidden="asked"), "imputed"),
    ):
        view = adata[40:]
        call(view)
        assert not view.is_view
        assert key in view.uns
        assert key not in adata.uns
    assert set(adata.obsm) == {"spatial"}
    assert not [name for name in adata.layers if name is not None]


# ----------------------------------------------------------------- expression


def test_expression_of_cells(model, adata, tmp_path):
    hidden = np.arange(80) % 3 == 0
    assert tl.impute_expression(adata, model, hidden=hidden, seed=1) is None
    expected = model.impute(adata, hidden=hidden, seed=1)
    adata.write_h5ad(tmp_path / "a.h5ad")
    for data in (adata, anndata.read_h5ad(tmp_path / "a.h5ad")):
        np.testing.assert_array_equal(data.layers["imputed"], expected)
        assert data.layers["imputed"].dtype == np.float32
        params = data.uns["imputed"]["params"]
        assert (params["model"], params["hidden"], params["seed"]) == ("MaskedDiffusion", 27, 1)
        assert bool(params["use_positions"]) is True
    copied = tl.impute_expression(adata, model, hidden=hidden, use_positions=False, key_added="mine", copy=True)
    assert "mine" not in adata.layers
    np.testing.assert_array_equal(copied.layers["mine"], model.impute(adata, hidden=hidden, use_positions=False))
    assert (copied.layers["mine"] != expected)[hidden].any()


def test_expression_of_genes_that_were_not_measured(model, adata, tmp_path):
    """The genes of training, where those of the object are others or in another order."""
    for genes in (slice(0, 9), slice(None, None, -1)):
        part = adata[:, genes].copy()
        part.obs["asked"] = np.arange(80) < 5
        tl.impute_expression(part, model, hidden="asked")
        assert not [name for name in part.layers if name is not None]
        part.write_h5ad(tmp_path / "a.h5ad")
        expected = model.impute(part, hidden="asked")
        for data in (part, anndata.read_h5ad(tmp_path / "a.h5ad")):
            np.testing.assert_array_equal(data.obsm["imputed"], expected)
            assert data.obsm["imputed"].dtype == np.float32
            assert list(data.uns["imputed"]["gene_names"]) == model.gene_names
            assert data.uns["imputed"]["params"]["hidden"] == "asked"


# -------------------------------------------------------------- must be refused


def test_bad_calls_change_nothing(model, adata):
    before = _keys(adata)
    for call, error, message in (
        (
            lambda: tl.reconstruct_positions(adata, "model"),
            TypeError,
            "`model` must be a trained MaskedDiffusion, found str",
        ),
        (
            lambda: tl.impute_expression(adata, None),
            TypeError,
            "`model` must be a trained MaskedDiffusion, found NoneType",
        ),
        (lambda: tl.reconstruct_positions(adata, model, layout="mean"), ValueError, "`layout`: unknown option 'mean'"),
        (lambda: tl.reconstruct_positions(adata, model, n_samples=0), ValueError, "`n_samples` must be at least 1"),
        (lambda: tl.reconstruct_positions(adata, model, landmarks="known"), KeyError, "`landmarks`: key 'known'"),
        (lambda: tl.impute_expression(adata, model), ValueError, "Nothing is asked for"),
        (lambda: tl.impute_expression(adata, model, hidden="asked"), KeyError, "`hidden`: key 'asked'"),
    ):
        with pytest.raises(error, match=message):
            call()
        assert _keys(adata) == before
    MaskedDiffusion.setup_anndata(adata, batch_key="section")
    with pytest.raises(RuntimeError, match="not trained"):
        tl.reconstruct_positions(adata, MaskedDiffusion(adata, **SMALL))
