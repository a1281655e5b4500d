"""Input that must work, and input that must not."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from mudata import MuData, read_h5mu
from scipy import sparse

from stomics_tools import pl
from stomics_tools.model import PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
EPOCHS = 3


def _latent(data, modalities=MODALITIES, **setup):
    method = PRAGASpike.setup_mudata if isinstance(data, MuData) else PRAGASpike.setup_anndata
    method(data, modalities, **setup)
    model = PRAGASpike(data, n_latent=8)
    model.train(EPOCHS, enable_progress_bar=False)
    return data.obsm["X_praga_spike"]


# ------------------------------------------------------------------ must work


def test_view(adata):
    parent = adata.copy()
    view = parent[:100]
    assert view.is_view
    latent = _latent(view)
    np.testing.assert_array_equal(latent, _latent(parent[:100].copy()))
    assert not view.is_view
    assert "X_praga_spike" not in parent.obsm
    assert not parent.uns


def test_mudata_view(mdata):
    view = mdata[:100]
    latent = _latent(view)
    np.testing.assert_array_equal(latent, _latent(mdata[:100].copy()))
    assert "X_praga_spike" not in mdata.obsm
    assert not mdata.uns


def test_view_as_unseen_data(adata):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, n_latent=8)
    model.train(EPOCHS, enable_progress_bar=False)
    view = adata[:90]
    expected = model.get_latent_representation(adata[:90].copy())
    np.testing.assert_array_equal(model.get_latent_representation(view), expected)
    assert view.is_view
    model.write_results(view, key_added="part")
    np.testing.assert_array_equal(view.obsm["X_part"], expected)
    assert "X_part" not in adata.obsm


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("dense", [True, False])
def test_counts_of_any_type(adata, dtype, dense):
    plain = _latent(adata.copy(), {"rna": "X", "protein": "X_protein"})
    adata.X = adata.X.toarray().astype(dtype) if dense else adata.X.astype(dtype)
    np.testing.assert_array_equal(_latent(adata, {"rna": "X", "protein": "X_protein"}), plain)


def test_layers_and_data_frames(adata):
    plain = _latent(adata.copy(), {"rna": "X", "protein": "X_protein"})
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["X_protein"] = pd.DataFrame(adata.obsm["X_protein"], index=adata.obs_names).add_prefix("p")
    np.testing.assert_array_equal(_latent(adata, {"rna": "counts", "protein": "X_protein"}), plain)


@pytest.mark.parametrize("as_dense", [True, False])
def test_backed(adata, tmp_path, as_dense):
    plain = _latent(adata.copy(), {"rna": "X", "protein": "X_protein"})
    if as_dense:
        adata.X = adata.X.toarray()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(_latent(backed, {"rna": "X", "protein": "X_protein"}), plain)
    part = read_h5ad(tmp_path / "a.h5ad", backed="r")[:90]
    np.testing.assert_array_equal(
        _latent(part, {"rna": "X", "protein": "X_protein"}),
        _latent(adata[:90].copy(), {"rna": "X", "protein": "X_protein"}),
    )


def test_user_arrays_are_not_changed(adata):
    adata.obsm["X_protein"] = adata.obsm["X_protein"].astype(np.float32)
    adata.obsm["X_protein"][3] = np.nan
    before = adata.copy()
    _latent(adata)
    for key in before.obsm:
        np.testing.assert_array_equal(adata.obsm[key], before.obsm[key])
    assert (adata.X != before.X).nnz == 0


def test_unused_categories_and_batches(adata):
    column = adata.obs["slice"].copy()
    one = _latent(adata.copy())
    latent = _latent(adata, batch_key="slice")
    pd.testing.assert_series_equal(adata.obs["slice"], column)
    first = adata.obs["slice"].to_numpy() == "a"
    for graph in adata.obsp.values():
        assert graph[first][:, ~first].nnz == 0
    assert np.abs(latent - one).max() > 1e-6
    adata.obs["one"] = "only"
    np.testing.assert_array_equal(_latent(adata, batch_key="one"), one)


def test_duplicate_coordinates(adata):
    adata.obsm["spatial"][:30] = adata.obsm["spatial"][0]
    assert np.isfinite(_latent(adata)).all()


def test_zero_count_spots(adata):
    counts = adata.X.toarray()
    counts[5] = 0
    adata.X = sparse.csr_matrix(counts)
    assert np.isfinite(_latent(adata, {"rna": "X"})).all()


def test_three_dimensions(adata):
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(adata.n_obs, 2))  # no ties between neighbours
    flat = _latent(adata.copy())
    adata.obsm["spatial"] = np.c_[adata.obsm["spatial"], np.zeros(adata.n_obs)]
    np.testing.assert_allclose(_latent(adata), flat, atol=1e-4)
    adata.obsm["spatial"][:, 2] = np.arange(adata.n_obs) % 3 * 5.0
    layered = _latent(adata)
    assert np.isfinite(layered).all()
    assert np.abs(layered - flat).max() > 2e-2


def test_ready_graphs(adata):
    import squidpy as sq

    sq.gr.spatial_neighbors_knn(adata, n_neighs=6)
    ready = _latent(adata.copy(), spatial_graph_key="spatial_connectivities")
    assert np.isfinite(ready).all()
    n = adata.n_obs
    ring = sparse.csr_matrix((np.ones(n), (np.arange(n), np.roll(np.arange(n), 1))), shape=(n, n))
    adata.obsp["ring"] = ring
    _latent(adata, spatial_graph_key="spatial_connectivities", feature_graph_keys={"rna": "ring"})
    learned = adata.obsp["praga_spike_rna_connectivities"]
    np.testing.assert_allclose(learned.toarray(), ring.toarray(), atol=1e-6)  # one neighbour has all of the weight
    adata.obsp["loops"] = ring + sparse.identity(n, format="csr")
    _latent(adata, feature_graph_keys={"rna": "loops"})
    assert adata.obsp["praga_spike_rna_connectivities"].diagonal().max() == 0


def test_reordered_rows_and_modalities_of_a_mudata(mdata):
    plain = _latent(mdata)
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    other = MuData({"protein": mdata["protein"][order].copy(), "rna": mdata["rna"].copy()})
    other.obsm["spatial"] = pd.DataFrame(mdata.obsm["spatial"], index=mdata.obs_names).loc[other.obs_names].to_numpy()
    latent = pd.DataFrame(_latent(other), index=other.obs_names).loc[mdata.obs_names]
    np.testing.assert_array_equal(latent, plain)


def test_results_outlive_an_update_that_reorders_spots(mdata, tmp_path):
    """mudata cannot reorder a DataFrame: tables of weights are arrays there, with their columns in ``uns``."""
    _latent(mdata)
    names, key = mdata.obs_names, "praga_spike_modality_weights"
    before = {k: np.array(mdata.obsm[k]) for k in ("X_praga_spike", key)}
    graph = mdata.obsp["praga_spike_spatial_connectivities"].copy()
    mdata.mod["rna"] = mdata["rna"][::-1][:100].copy()
    mdata.update()
    at = names.get_indexer(mdata.obs_names)
    assert (at != np.arange(len(at))).any()
    for k, values in before.items():
        np.testing.assert_array_equal(mdata.obsm[k], values[at])
    assert abs(mdata.obsp["praga_spike_spatial_connectivities"] - graph[at][:, at]).max() == 0
    mdata.write(tmp_path / "m.h5mu")
    again = read_h5mu(tmp_path / "m.h5mu")
    axes = pl.modality_weights(again, modalities=["rna"], show=False)
    np.testing.assert_allclose(axes.collections[0].get_offsets(), again.obsm["spatial"])
    plt.close("all")
    assert list(again.uns["praga_spike"]["columns"]["modality_weights"]) == ["protein", "rna"]


def test_coordinates_and_batches_in_the_modalities(mdata):
    plain = _latent(mdata.copy(), batch_key="slice")
    for mod in mdata.mod.values():
        mod.obsm["spatial"] = mdata.obsm["spatial"]
        mod.obs["slice"] = mdata.obs["slice"].to_numpy()
    other = MuData(dict(mdata.mod))
    np.testing.assert_array_equal(_latent(other, batch_key="slice"), plain)
    other["protein"].obsm["spatial"] = other["protein"].obsm["spatial"] + 1.0
    del other.uns["_scvi_uuid"]
    with pytest.raises(ValueError, match="differ from those of 'rna'"):
        PRAGASpike.setup_mudata(other, MODALITIES)
    other["protein"].obsm["spatial"] = other["rna"].obsm["spatial"]
    other["protein"].obs["slice"] = "b"
    with pytest.raises(ValueError, match="batch_key.*differs"):
        PRAGASpike.setup_mudata(MuData(dict(other.mod)), MODALITIES, batch_key="slice")


def test_mosaic_anndata_equals_mosaic_mudata(adata, mdata):
    gone = np.arange(adata.n_obs) % 4 == 1
    adata.obsm["X_protein"][gone] = np.nan
    from_nan = _latent(adata)
    part = MuData({"rna": mdata["rna"], "protein": mdata["protein"][~gone].copy()})
    part.obsm["spatial"] = pd.DataFrame(mdata.obsm["spatial"], index=mdata.obs_names).loc[part.obs_names].to_numpy()
    from_mudata = pd.DataFrame(_latent(part), index=part.obs_names).loc[adata.obs_names]
    np.testing.assert_array_equal(from_mudata, from_nan)
    assert np.isfinite(from_nan).all()
    learned = adata.obsp["praga_spike_protein_connectivities"]
    np.testing.assert_array_equal(np.diff(learned[gone].indptr), 0)
    assert np.diff(learned[~gone].indptr).min() > 0


def test_missing_spots_weigh_nothing_in_the_loss(adata):
    """The hidden values of a missing modality cannot matter, and those seen must."""
    gone = np.arange(adata.n_obs) < 40
    adata.obsm["X_protein"][gone] = np.nan
    seen = adata.copy()
    seen.obsm["X_protein"][50] += 3.0
    assert np.abs(_latent(adata) - _latent(seen)).max() > 1e-5


@pytest.mark.parametrize("layout", ["seven spots", "pairs", "stacks"])
def test_graphs_with_hardly_any_neighbours(adata, layout):
    """No second ring, or no distance to the first: the result is finite all the same."""
    if layout == "seven spots":
        adata = adata[:7].copy()
    n, setup = adata.n_obs, {}
    if layout == "pairs":
        pairs = sparse.csr_matrix((np.ones(n), (np.arange(n), np.arange(n) ^ 1)), shape=(n, n))
        adata.obsp["pairs"], setup = pairs, {"spatial_graph_key": "pairs"}
    if layout == "stacks":
        adata.obsm["spatial"] = np.repeat(np.random.default_rng(0).uniform(size=(n // 8, 2)), 8, axis=0)
    assert np.isfinite(_latent(adata, **setup)).all()


def test_one_modality(adata):
    assert _latent(adata, {"rna": "X_pca"}).shape == (adata.n_obs, 8)


# -------------------------------------------------------------- must not work


def _frozen(data: AnnData | MuData):
    return (
        set(data.obsm),
        set(data.obsp),
        set(data.uns),
        list(data.obs.columns),
        {k: np.array(v, copy=True) for k, v in data.obsm.items()},
    )


def _assert_untouched(data, before):
    after = _frozen(data)
    assert after[:4] == before[:4]
    for key, value in before[4].items():
        np.testing.assert_array_equal(after[4][key], value)


def _spoil(key, row, value):
    def change(adata):
        adata.obsm[key][row] = value

    return change


def _set(key, value):
    def change(adata):
        adata.obsm[key] = value

    return change


def _same_names(adata):
    adata.obs_names = ["a", "a", *adata.obs_names[2:]]


def _missing_batch(adata):
    adata.obs.loc[adata.obs_names[3], "slice"] = np.nan


def _ambiguous(adata):
    adata.layers["X_pca"] = adata.X.copy()


def _bridge(adata):
    n = adata.n_obs
    adata.obsp["g"] = sparse.csr_matrix(([1.0], ([0], [n - 1])), shape=(n, n))


def _negative_graph(adata):
    adata.obsp["g"] = sparse.csr_matrix(([-1.0], ([0], [1])), shape=(adata.n_obs, adata.n_obs))


BAD = {
    "no spatial key": (lambda a: a.obsm.pop("spatial"), {}, KeyError, r"spatial_key.*'spatial' not found.*X_pca"),
    "misspelled spatial key": (None, {"spatial_key": "spatail"}, KeyError, "Did you mean 'spatial'"),
    "one coordinate": (lambda a: a.obsm.update(spatial=a.obsm["spatial"][:, :1]), {}, ValueError, r"shape \(160, 1\)"),
    "nan coordinate": (_spoil("spatial", 7, np.nan), {}, ValueError, "1 rows with NaN or infinite.*row 7"),
    "inf coordinate": (_spoil("spatial", 7, np.inf), {}, ValueError, "NaN or infinite coordinates"),
    "equal coordinates": (_spoil("spatial", slice(None), 5.0), {}, ValueError, "all 160 spots.*same coordinates"),
    "duplicated names": (_same_names, {}, ValueError, r"obs_names.*not unique.*'a'.*obs_names_make_unique"),
    "absent modality key": (
        None,
        {"modalities": {"rna": "X_pcs"}},
        KeyError,
        r"modalities\['rna'\].*X_protein.*'X_pca'",
    ),
    "no modality": (None, {"modalities": {}}, ValueError, "`modalities` is empty"),
    "name in two places": (_ambiguous, {}, ValueError, "'X_pca' is in more than one of.*obsm.*layers"),
    "partly nan": (_spoil("X_pca", (9, 2), np.nan), {}, ValueError, r"modalities\['rna'\].*NaN in part.*row 9"),
    "inf": (_spoil("X_pca", (9, 2), np.inf), {}, ValueError, r"obsm\['X_pca'\].*1 NaN or infinite"),
    "all nan": (_spoil("X_pca", slice(None), np.nan), {}, ValueError, "no spot that was measured"),
    "constant": (_spoil("X_pca", slice(None), 1.0), {}, ValueError, "is constant"),
    "empty": (_set("X_pca", np.zeros((160, 0))), {}, ValueError, r"shape \(160, 0\)"),
    "batch missing values": (
        _missing_batch,
        {"batch_key": "slice"},
        ValueError,
        r"batch_key.*obs\['slice'\].*1 missing",
    ),
    "no batch key": (None, {"batch_key": "slide"}, KeyError, "batch_key.*'slide'.*Did you mean 'slice'"),
    "graph between batches": (
        _bridge,
        {"batch_key": "slice", "spatial_graph_key": "g"},
        ValueError,
        "join different batches",
    ),
    "negative graph": (_negative_graph, {"spatial_graph_key": "g"}, ValueError, "negative weights"),
    "no graph": (None, {"spatial_graph_key": "g"}, KeyError, r"spatial_graph_key.*adata.obsp"),
    "graph of no modality": (None, {"feature_graph_keys": {"rnaa": "g"}}, ValueError, "feature_graph_keys.*'rna'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_changes(adata, case):
    change, arguments, error, message = BAD[case]
    if change is not None:
        change(adata)
    before = _frozen(adata)
    arguments = {"modalities": MODALITIES, **arguments}
    with pytest.raises(error, match=message):
        PRAGASpike.setup_anndata(adata, **arguments)
    _assert_untouched(adata, before)


@pytest.mark.parametrize("case", ["misspelled", "disjoint", "no coordinates"])
def test_bad_mudata(mdata, case):
    if case == "misspelled":
        modalities, message, error = {"rna": "X_pca", "protien": "X_protein"}, "Did you mean 'protein'", KeyError
    elif case == "no coordinates":
        del mdata.obsm["spatial"]
        modalities, message, error = MODALITIES, "spatial_key.*rna: X_pca", KeyError
    else:
        mdata = MuData({"rna": mdata["rna"][:80].copy(), "protein": mdata["protein"][80:].copy()})
        mdata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(160, 2))
        modalities, message, error = MODALITIES, r"\['protein'\] share no spot with \['rna'\]", ValueError
    before = _frozen(mdata)
    with pytest.raises(error, match=message):
        PRAGASpike.setup_mudata(mdata, modalities)
    _assert_untouched(mdata, before)


def test_wrong_objects(adata, mdata):
    with pytest.raises(TypeError, match="setup_mudata"):
        PRAGASpike.setup_anndata(mdata, MODALITIES)
    with pytest.raises(TypeError, match="setup_anndata"):
        PRAGASpike.setup_mudata(adata, MODALITIES)
    with pytest.raises(ValueError, match="setup_anndata"):
        PRAGASpike(adata)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "praga"}, r"no argument `preset`.*stomics_tools\.model\.PRAGA\(adata, data_type=\.\.\.\)"),
        ({"preset": "enhanced"}, r"no argument `preset`.*train\(max_epochs=1000, lr=1e-4, scheduler='plateau'"),
        ({"data_type": "10x"}, r"no argument `data_type`.*stomics_tools\.model\.PRAGA\(adata, data_type=\.\.\.\)"),
        ({"feature_weights": "similarity"}, r"no argument `feature_weights`.*stomics_tools\.model\.PRAGA"),
        ({"standardize": True}, r"no argument `standardize`.*stomics_tools\.model\.PRAGA"),
        ({"encoder": "spikes"}, "`encoder`.*Did you mean 'spike'"),
        ({"encoder": "spikformer"}, "`encoder='spikformer'` is gone.*'ssa'"),
        ({"encoder": "linear"}, "`encoder='linear'` is gone.*tl.spatial_components"),
        ({"edges": "learned"}, "`edges`.*'inductive'"),
        ({"weight_bits": 1}, "`weight_bits`.*1.*2"),
        ({"weight_bits": "four"}, "`weight_bits`.*'four'"),
        ({"n_latent": 20}, "`n_latent=20` must be a multiple of `n_heads=8`"),
        ({"n_heads": 0}, "`n_heads` must be at least 1"),
        ({"n_levels": 1}, "`n_levels` must be at least 2"),
        ({"n_hops": 0}, "`n_hops` must be at least 1"),
        ({"n_layers": -1}, "`n_layers` must be at least 0"),
        ({"attention_windows": (None, 64, 128)}, "`n_heads=8` must be a multiple of the 3 scales"),
        ({"attention_windows": ()}, "`attention_windows`"),
        ({"attention_windows": (0,)}, "`attention_windows` must be at least 1"),
        ({"blind_fraction": 1.0}, "`blind_fraction`"),
        ({"hidden_share": 0.3}, "no argument `hidden_share`.*It is called `blind_fraction`"),
        ({"signal_threshold": -0.1}, "`signal_threshold`"),
        ({"bit_budget": 0}, "`bit_budget`"),
        ({"use_attention": "no"}, "`use_attention`"),
        ({"n_latent": 0}, "`n_latent` must be at least 1, found 0"),
        ({"n_latent": 2.5}, "`n_latent` must be an integer"),
        ({"temperature": 0}, "`temperature`"),
        ({"ema_decay": 1.5}, "`ema_decay`"),
        ({"loss_weights": [1, 2, 3]}, "`loss_weights` has 3 values for 2 modalities"),
        ({"loss_weights": {"rna": 1}}, "`loss_weights` names"),
        ({"n_spatial_neighbors": 200}, "`n_spatial_neighbors=200`"),
    ],
)
def test_bad_arguments_of_the_model(adata, arguments, message):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    with pytest.raises((ValueError, TypeError), match=message):
        PRAGASpike(adata, **arguments)


def test_a_slice_with_too_few_spots(adata):
    adata.obs["slice"] = np.where(np.arange(160) < 5, "small", "large")
    PRAGASpike.setup_anndata(adata, MODALITIES, batch_key="slice")
    with pytest.raises(ValueError, match="found a slice with 5"):
        PRAGASpike(adata)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_epochs": 0}, "`max_epochs`"),
        ({"lr": -1.0}, "`lr`"),
        ({"optimizer": "lion"}, "`optimizer`"),
        ({"scheduler": "step"}, "`scheduler`.*cosine"),
        ({"early_stopping_patience": 0}, "`early_stopping_patience`"),
        ({"patience": 3}, r"train\(\) has no argument `patience`.*It is called `early_stopping_patience`"),
        ({"clip_grad": 0.0}, "`clip_grad`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_bad_arguments_of_training(adata, arguments, message):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata)
    with pytest.raises((ValueError, TypeError), match=message):
        model.train(**arguments)
    assert not model.is_trained


def test_results_before_training(adata, tmp_path):
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata)
    for call in (model.get_latent_representation, model.write_results, lambda: model.save(tmp_path / "m")):
        with pytest.raises(RuntimeError, match="not trained"):
            call()
    assert not (tmp_path / "m").exists()


@pytest.fixture
def saved(adata, tmp_path):
    _latent(adata)
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, n_latent=8)
    model.train(EPOCHS, enable_progress_bar=False, checkpoint_dir=tmp_path / "run")
    model.save(tmp_path / "model")
    return model, tmp_path


def test_other_features(adata, saved):
    model, folder = saved
    narrow = adata.copy()
    narrow.obsm["X_pca"] = narrow.obsm["X_pca"][:, :5]
    before = _frozen(narrow)
    with pytest.raises(ValueError, match="'rna'.*20 features, found 5"):
        model.get_latent_representation(narrow)
    with pytest.raises(ValueError, match="'rna'.*20 features, found 5"):
        PRAGASpike.load(folder / "model", narrow)
    _assert_untouched(narrow, before)
    del narrow.obsm["X_protein"]
    with pytest.raises(KeyError, match="protein"):
        PRAGASpike.load(folder / "model", narrow)


def test_other_genes(adata):
    PRAGASpike.setup_anndata(adata, {"rna": "X"})
    model = PRAGASpike(adata, n_latent=8)
    model.train(EPOCHS, enable_progress_bar=False)
    reordered = adata[:, ::-1].copy()
    with pytest.raises(ValueError, match="in another order"):
        model.get_latent_representation(reordered)
    reordered.var_names = [*reordered.var_names[:-1], "other"]
    with pytest.raises(ValueError, match=r"without \['0'\]"):
        model.get_latent_representation(reordered)


@pytest.mark.parametrize("damage", ["truncate tensors", "flip a bit", "truncate json", "no tensors", "format", "class"])
def test_damaged_model(adata, saved, damage):
    _, folder = saved
    tensors, meta = folder / "model" / "model.safetensors", folder / "model" / "model.json"
    error, message = ValueError, "truncated or was changed"
    if damage == "truncate tensors":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif damage == "flip a bit":
        content = bytearray(tensors.read_bytes())
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif damage == "truncate json":
        meta.write_text(meta.read_text()[:-40])
        message = "is damaged"
    elif damage == "no tensors":
        tensors.unlink()
        error, message = FileNotFoundError, "no model.safetensors"
    elif damage == "format":
        meta.write_text(re.sub(r'"format": \d+', '"format": 99', meta.read_text()))
        message = "format 99"
    else:
        meta.write_text(meta.read_text().replace('"model": "PRAGASpike"', '"model": "GraphST"'))
        message = "holds a GraphST"
    with pytest.raises(error, match=message):
        PRAGASpike.load(folder / "model", adata)


def test_checkpoints_that_cannot_be_resumed(adata, saved):
    _, folder = saved
    path = folder / "run" / "last.ckpt"
    fresh = PRAGASpike(adata, n_latent=8)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        fresh.train(EPOCHS, ckpt_path=folder / "nowhere")
    with pytest.raises(ValueError, match="other seed: 0 there, 1 here"):
        fresh.train(EPOCHS, seed=1, ckpt_path=path)
    with pytest.raises(ValueError, match="other arguments.*'n_latent': 8"):
        PRAGASpike(adata, n_latent=16).train(EPOCHS, ckpt_path=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        fresh.train(EPOCHS, ckpt_path=path)
    assert not fresh.is_trained
