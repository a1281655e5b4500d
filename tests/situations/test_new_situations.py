"""Second steps of users that must give the right value or say what is wrong: data that differ a little from before."""

import re
import threading
import warnings
from contextlib import contextmanager
from functools import cache

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from scipy import sparse

import stomics_tools as st
from stomics_tools.cli import main

WINDOWS = {"n_samples": 2, "n_steps": 3}


@cache
def simulated():
    return st.datasets.simulate_multiomics(n_obs=140, n_domains=3, n_batches=2)


def rna():
    return simulated()["rna"].copy()


def log_normalised(adata, target_sum=1e4):
    adata = adata.copy()
    sc.pp.normalize_total(adata, target_sum=target_sum)
    sc.pp.log1p(adata)
    return adata


def graphst(adata, **setup):
    st.model.GraphST.setup_anndata(adata, **{"batch_key": "slice", **setup})
    model = st.model.GraphST(adata, n_latent=8)
    model.train(max_epochs=2, seed=0)
    return model


def praga(mdata):
    st.model.PRAGASpike.setup_mudata(mdata, modalities={"rna": "X_pca", "protein": "X_protein"}, batch_key="slice")
    model = st.model.PRAGASpike(mdata, n_latent=8)
    model.train(max_epochs=2, seed=0)
    return model


def prepared():
    mdata = simulated().copy()
    st.pp.rna(mdata["rna"], n_comps=8)
    st.pp.protein(mdata["protein"])
    return mdata


@cache
def trained_graphst():
    adata = rna()
    return graphst(adata), adata.obsm["X_graphst"].copy()


@cache
def trained_praga():
    mdata = prepared()
    return praga(mdata), mdata


@cache
def histology():
    return st.datasets.simulate_histology(n_patients=2, n_sections=1, n_spots=40, n_genes=12, n_features=8)


@cache
def trained_var_st():
    adata = histology().copy()
    st.model.VARST.setup_anndata(adata, "X_image", patient_key="patient", section_key="section")
    model = st.model.VARST(adata, size="tiny", n_members=1)
    model.train(max_epochs=1, seed=0)
    return model


@cache
def sections():
    adata = st.datasets.simulate_sections(n_sections=2, n_cells=50, n_genes=12)
    parts = adata.obs["section"].to_numpy()
    return adata[parts == parts[0]].copy(), adata[parts == parts[-1]].copy()


@cache
def trained_diffusion():
    train = sections()[0].copy()
    st.model.MaskedDiffusion.setup_anndata(train, batch_key="section")
    model = st.model.MaskedDiffusion(
        train, width=16, n_layers=1, n_heads=2, n_hidden=16, n_members=1, n_regression_hidden=16, n_window=50
    )
    model.train(max_epochs=1, seed=0)
    return model


def of_two_kinds():
    mdata = simulated()
    both = ad.concat([mdata["rna"], mdata["protein"]], axis=1)
    both.obs, both.obsm["spatial"] = mdata["rna"].obs.copy(), mdata.obsm["spatial"]
    names = ["Gene Expression", "Antibody Capture"]
    both.var["feature_types"] = np.repeat(names, [mdata["rna"].n_vars, mdata["protein"].n_vars])
    return both


@contextmanager
def silent():
    """Context in which any warning of ours is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# ------------------------------------------------------------------------------------------- rows, columns, slices


def test_a_mudata_in_another_order_has_the_latents_of_the_same_spots():
    model, mdata = trained_praga()
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    np.testing.assert_array_equal(
        model.get_latent_representation(mdata[order].copy()), mdata.obsm["X_praga_spike"][order]
    )


def test_a_slice_alone_has_the_latents_that_it_had_beside_another():
    model, mdata = trained_praga()
    own = (mdata.obs["slice"] == "slice1").to_numpy()
    np.testing.assert_array_equal(model.get_latent_representation(mdata[own].copy()), mdata.obsm["X_praga_spike"][own])


def test_a_modality_in_another_order_than_its_sister_is_joined_by_name():
    mdata = prepared()
    order = np.random.default_rng(1).permutation(mdata.n_obs)
    mixed = mudata.MuData({"rna": mdata["rna"][order].copy(), "protein": mdata["protein"].copy()})
    mixed.obs["slice"] = mdata.obs["slice"].reindex(mixed.obs_names)
    rows = mdata.obs_names.get_indexer(mixed.obs_names)
    mixed.obsm["spatial"] = mdata.obsm["spatial"][rows]
    praga(mixed)
    np.testing.assert_allclose(mixed.obsm["X_praga_spike"], trained_praga()[1].obsm["X_praga_spike"][rows], atol=1e-5)


def test_components_of_a_modality_that_were_replaced_after_training_are_told():
    mdata = prepared()
    model = praga(mdata)
    values = mdata["rna"].obsm["X_pca"]
    mdata["rna"].obsm["X_pca"] = values[:, :5]
    with pytest.raises(ValueError, match="'rna'.*8 features, found 5"):
        model.get_latent_representation(mdata)
    mdata["rna"].obsm["X_pca"] = values[:, ::-1].copy()
    with pytest.warns(UserWarning, match=r"X_pca.*was made like the data of training"):
        model.get_latent_representation(mdata)


def test_genes_in_another_order_leave_a_latent_and_genes_that_lack_are_named():
    model, latent = trained_graphst()
    np.testing.assert_array_equal(model.get_latent_representation(rna()[:, ::-1].copy()), latent)
    with pytest.raises(ValueError, match="100 of 400 features of setup are not in .*rna_gene300"):
        model.get_latent_representation(rna()[:, :300].copy())


def test_repeated_names_of_spots_are_refused_with_their_cure():
    adata = rna()
    adata.obs_names = [str(i % 70) for i in range(adata.n_obs)]
    with pytest.raises(ValueError, match=r"obs_names. are not unique.*obs_names_make_unique"):
        graphst(adata)


# --------------------------------------------------------------------------------------- counts, logarithms, kinds


@pytest.mark.parametrize("form", ["csc", "coo", "float16", "dask", "int", "nullable"])
def test_components_do_not_depend_on_the_form_of_the_matrix(form):
    reference = rna()
    st.pp.rna(reference, n_comps=8)
    adata, counts = rna(), rna().X
    dense = counts.toarray() if sparse.issparse(counts) else counts
    if form == "dask":
        adata.layers["other"] = pytest.importorskip("dask.array").from_array(dense, chunks=(50, 400))
    elif form == "nullable":
        adata.layers["other"] = pd.DataFrame(dense.astype(int), adata.obs_names, adata.var_names).astype("Int64")
    else:
        made = {"csc": sparse.csc_matrix, "coo": sparse.csc_array, "float16": np.float16, "int": np.int64}[form]
        adata.layers["other"] = made(dense) if form in ("csc", "coo") else dense.astype(made)
    st.pp.rna(adata, layer="other", n_comps=8)
    np.testing.assert_array_equal(adata.obsm["X_pca"], reference.obsm["X_pca"])


def test_logarithms_for_a_model_of_counts_are_refused_and_the_other_way_round():
    with pytest.raises(ValueError, match="set up with counts.*Store the raw counts"):
        trained_graphst()[0].get_latent_representation(log_normalised(rna()))
    model = graphst(log_normalised(rna()))
    with pytest.raises(ValueError, match="no counts.*holds counts"):
        model.get_latent_representation(rna())


@pytest.mark.parametrize("other", [1e6, 5e3])
def test_logarithms_of_another_total_are_told(other):
    model = graphst(log_normalised(rna()))
    with silent():
        model.get_latent_representation(log_normalised(rna()))
    with pytest.warns(UserWarning, match=rf"up to 10000 in every spot.* up to {re.escape(f'{other:.6g}')} in .*=10000"):
        model.get_latent_representation(log_normalised(rna(), other))


def test_logarithms_of_another_base_are_told():
    model, adata = graphst(log_normalised(rna())), rna()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata, base=2)
    with pytest.warns(UserWarning, match="logarithms of base e.* holds logarithms of base 2"):
        model.get_latent_representation(adata)


def test_a_subset_of_genes_of_logarithms_is_no_other_total():
    adata = log_normalised(rna())
    model = graphst(adata, genes=list(adata.var_names[:100]))
    with silent():
        model.get_latent_representation(log_normalised(rna())[:, :100].copy())


def test_antibodies_among_genes_are_told_by_every_first_step():
    both = of_two_kinds()
    message = r"400 'Gene Expression', 40 'Antibody Capture'.*feature_types'\] == 'Gene Expression'"
    with pytest.warns(UserWarning, match=message):
        st.pp.rna(both, n_comps=8)
    with pytest.warns(UserWarning, match=message):
        st.model.GraphST.setup_anndata(both, batch_key="slice")
    with pytest.warns(UserWarning, match=message):
        st.model.MaskedDiffusion.setup_anndata(both, batch_key="slice")
    both.obsm["X_image"] = np.random.default_rng(0).normal(size=(both.n_obs, 4))
    with pytest.warns(UserWarning, match=message):
        st.model.VARST.setup_anndata(both, "X_image")
    with silent():
        st.pp.rna(both[:, both.var["feature_types"] == "Gene Expression"].copy(), n_comps=8)


def test_the_recipe_of_another_kind_and_controls_are_told():
    both = of_two_kinds()
    with pytest.warns(UserWarning, match="holds 40 'Antibody Capture', but is taken for rna"):
        st.pp.rna(both[:, 400:].copy(), n_comps=8)
    adata = rna()
    adata.var_names = ["NegControlProbe_00042", "BLANK_0069", *adata.var_names[2:]]
    with pytest.warns(UserWarning, match=r"1 'negative control probe', 1 'blank codeword'.*drop_controls"):
        st.pp.rna(adata, n_comps=8)


# ------------------------------------------------------------------------------------------------------ VARST


@pytest.mark.parametrize(
    "change", [lambda x: (x - x.mean(0)) / x.std(0) * 100, lambda x: x / 255, lambda x: x + 20 * x.std(0)]
)
def test_image_features_of_another_scale_are_told(change):
    model, new = trained_var_st(), histology().copy()
    with silent():
        expected = model.predict(new)
    assert np.isfinite(expected).all()
    new.obsm["X_image"] = change(np.asarray(new.obsm["X_image"]))
    with pytest.warns(UserWarning, match="`features_key`: the features are of another scale than those of training"):
        model.predict(new)


def test_features_in_another_form_give_the_same_expression():
    model, new = trained_var_st(), histology().copy()
    expected, x = model.predict(new), np.asarray(new.obsm["X_image"])
    for value in (x.astype(np.float64), sparse.csr_matrix(x), pd.DataFrame(x, index=new.obs_names)):
        new.obsm["X_image"] = value
        np.testing.assert_array_equal(model.predict(new), expected)


def test_a_level_in_per_cent_is_refused_and_nested_levels_nest():
    model = trained_var_st()
    with pytest.raises(ValueError, match=r"`level` must be in \(0, 1\], found 95"):
        model.interval(histology(), 95)
    (low, high), (lower, higher) = (model.interval(histology(), level) for level in (0.3, 0.6))
    assert (lower <= low + 1e-6).all()
    assert (high <= higher + 1e-6).all()


def test_a_prediction_of_a_slide_depends_on_no_other_slide():
    model, both = trained_var_st(), histology()
    own = (both.obs["patient"] == both.obs["patient"].iloc[0]).to_numpy()
    new = both[own].copy()
    new.obs["patient"], new.obs["section"] = "new", "another"
    np.testing.assert_allclose(model.predict(new), model.predict(both.copy())[own], atol=1e-6)


# -------------------------------------------------------------------------------------------- MaskedDiffusion


def test_landmarks_with_names_go_by_name():
    model, query = trained_diffusion(), sections()[1].copy()
    landmarks = pd.Series(np.arange(query.n_obs) < 12, index=query.obs_names)
    expected = model.consensus(query, landmarks=landmarks.to_numpy(), **WINDOWS).position
    np.testing.assert_allclose(expected[:12], query.obsm["spatial"][:12], atol=0.1)
    np.testing.assert_array_equal(model.consensus(query, landmarks=landmarks[::-1], **WINDOWS).position, expected)
    landmarks.index = [f"other-{name}" for name in landmarks.index]
    with pytest.raises(ValueError, match="`landmarks` and `adata.*` have different names"):
        model.consensus(query, landmarks=landmarks, **WINDOWS)


def test_genes_of_a_query_go_by_name_and_a_handful_is_refused():
    model, query = trained_diffusion(), sections()[1]
    with silent():
        expected = model.consensus(query, **WINDOWS).position
        np.testing.assert_array_equal(model.consensus(query[:, ::-1].copy(), **WINDOWS).position, expected)
    with pytest.raises(ValueError, match="has 2 of the 12 genes of training"):
        model.consensus(query[:, :2].copy(), **WINDOWS)


def test_true_positions_are_not_replaced_by_predicted_ones():
    model, query = trained_diffusion(), sections()[1].copy()
    truth = query.obsm["spatial"].copy()
    with pytest.raises(ValueError, match=r"obsm\['spatial'\].*Name another key"):
        st.tl.reconstruct_positions(query, model, key_added="spatial", **WINDOWS)
    np.testing.assert_array_equal(query.obsm["spatial"], truth)
    del query.obsm["spatial"]  # dissociated cells
    for _ in range(2):
        st.tl.reconstruct_positions(query, model, key_added="spatial", **WINDOWS)
    assert query.obsm["spatial"].shape == truth.shape


# ------------------------------------------------------------------------------------- habits, files, threads


def test_habits_of_training_are_met_in_our_words():
    adata = rna()
    st.model.GraphST.setup_anndata(adata, batch_key="slice")
    model = st.model.GraphST(adata, n_latent=np.int64(8))
    for argument in ("n_epochs", "epochs", "num_epochs"):
        with pytest.raises(TypeError, match="It is called `max_epochs`"):
            model.train(**{argument: 2})
    with pytest.raises(ValueError, match="`accelerator='mps'`: there is no such device here"):
        model.train(max_epochs=1, accelerator="mps")
    with pytest.raises(RuntimeError, match="not trained. Call `model.train"):
        model.get_latent_representation()
    model.train(max_epochs=np.int64(2), seed=np.int64(0))
    np.testing.assert_allclose(adata.obsm["X_graphst"], trained_graphst()[1], atol=1e-5)


def test_threads_that_train_at_once_find_what_one_finds_alone():
    found = {}

    def work(number):
        adata = rna()
        graphst(adata)
        found[number] = adata.obsm["X_graphst"]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        np.testing.assert_allclose(found[number], trained_graphst()[1], atol=1e-5)


def test_a_model_with_odd_names_comes_back_and_spares_the_files_of_others(tmp_path):
    adata = rna()
    adata.var_names = [f"a/b|c {i}" for i in range(adata.n_vars)]
    adata.obs["slice"] = adata.obs["slice"].astype(str) + "/é"
    model = graphst(adata)
    model.save(tmp_path / "é x")
    adata.write_h5ad(tmp_path / "data.h5ad")
    again = st.model.GraphST.load(tmp_path / "é x", ad.read_h5ad(tmp_path / "data.h5ad"))
    np.testing.assert_array_equal(again.get_latent_representation(), adata.obsm["X_graphst"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(FileExistsError, match=r"holds other files \(\['notes.txt'\]\)"):
        model.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "kept"
    with pytest.raises(ValueError, match="holds a GraphST, not a VARST"):
        st.model.VARST.load(tmp_path / "é x")


def test_a_second_model_leaves_the_first_as_it_was():
    adata = rna()
    first = graphst(adata)
    latent = adata.obsm["X_graphst"].copy()
    graphst(adata, genes=list(adata.var_names[:50]))
    assert np.abs(adata.obsm["X_graphst"] - latent).max() > 1e-3
    np.testing.assert_array_equal(first.get_latent_representation(), latent)


# ------------------------------------------------------------------------------------- domains, plots, scores


def test_domains_spare_a_true_column_and_tell_of_slices_that_have_no_part():
    adata, latent = rna(), trained_graphst()[1]
    adata.obsm["X"] = latent
    adata.obs["spatial_domain"] = adata.obs["domain"].to_numpy()
    with pytest.raises(ValueError, match="was not written by `tl.spatial_domains`"):
        st.tl.spatial_domains(adata, 3, use_rep="X", n_starts=2)
    with pytest.warns(UserWarning, match="`batch_key` has no effect without `refine`"):
        st.tl.spatial_domains(adata, 3, use_rep="X", n_starts=2, batch_key="slice", key_added="found")
    assert (adata.obs["spatial_domain"] == adata.obs["domain"]).all()


def test_colours_by_name_reach_the_spots_of_that_name():
    adata, colours = rna(), {"0": "red", "1": "lime", "2": "blue"}
    codes = np.random.default_rng(0).integers(0, 3, adata.n_obs)
    adata.obs["spatial_domain"] = pd.Categorical(codes.astype(str), ["2", "0", "1"])
    axes = st.pl.domains(adata, palette=colours, show=False)
    (spots,) = [c for c in np.ravel(axes)[0].collections if len(c.get_facecolors()) == adata.n_obs]
    np.testing.assert_allclose(spots.get_facecolors(), [to_rgba(colours[str(code)]) for code in codes])
    for size in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="`size` must be"):
            st.pl.domains(adata, size=size, show=False)
    plt.close("all")


def test_scores_join_series_by_name():
    labels = simulated().obs["domain"].astype(str)
    assert st.metrics.score_labels(labels, labels.sample(frac=1, random_state=0))["ari"] == 1.0
    with pytest.raises(ValueError, match="different names of rows.*by position"):
        st.metrics.score_labels(labels, labels.rename(lambda name: f"x{name}"))


# -------------------------------------------------------------------------------------------------- the command


def test_info_says_which_column_it_does_not_take_for_slices(tmp_path, capsys):
    adata = rna()
    adata.obs["sample"] = [f"s{i}" for i in range(adata.n_obs)]
    del adata.obs["slice"]
    adata.write_h5ad(tmp_path / "slice.h5ad")
    main(["info", str(tmp_path / "slice.h5ad")])
    assert "obs['sample'] holds 140 values in 140 spots and is not taken for slices" in capsys.readouterr().out


def test_graphst_takes_genes_alone_of_a_file_with_antibodies(tmp_path, capsys):
    of_two_kinds().write_h5ad(tmp_path / "both.h5ad")
    arguments = ["--output", str(tmp_path / "out.h5ad"), "--max-epochs", "1"]
    main(["graphst", str(tmp_path / "both.h5ad"), *arguments])
    assert "400 features of rna; left out 40 of protein" in capsys.readouterr().out
    result = ad.read_h5ad(tmp_path / "out.h5ad")
    assert (result.obs["domain"].astype(str) == simulated()["rna"].obs["domain"].astype(str)).all()
