"""Colours, genes and images as scanpy takes them."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from cycler import cycler
from matplotlib.collections import EllipseCollection
from matplotlib.colors import ListedColormap, to_hex
from mudata import MuData
from scanpy.plotting import palettes

from stomics_tools import pl

DEFAULT = dict(zip("abc", [to_hex(c) for c in palettes.default_20], strict=False))


def circles(ax):
    return next(c for c in ax.collections if isinstance(c, EllipseCollection))


def colors(ax) -> list[str]:
    return [to_hex(c) for c in circles(ax).get_facecolor()]


def legend_of(ax) -> dict[str, str]:
    legend = ax.get_legend()
    return {t.get_text(): to_hex(h.get_color()) for t, h in zip(legend.get_texts(), legend.legend_handles, strict=True)}


def scale(values, name="viridis") -> list[str]:
    values = np.asarray(values, dtype=float)
    return [to_hex(plt.get_cmap(name)((v - values.min()) / np.ptp(values))) for v in values]


@pytest.fixture
def genes(slices: AnnData) -> AnnData:
    """The slices with expression in ``X``, in a layer and in ``raw``."""
    adata = AnnData(np.arange(150.0).reshape(50, 3)[::-1].copy(), obs=slices.obs, obsm=dict(slices.obsm))
    adata.var_names = ["g0", "g1", "g2"]
    adata.layers["square"] = adata.X**2
    return adata


@pytest.mark.parametrize("palette", ["tab10", "Set2", "viridis"])
def test_palettes_by_name_are_those_of_scanpy(slices, palette):
    other = slices.copy()
    sc.pl.embedding(other, "spatial", color="spatial_domain", palette=palette, show=False)
    expected = dict(zip("abc", other.uns["spatial_domain_colors"], strict=True))
    assert legend_of(pl.domains(slices, palette=palette, show=False)) == expected
    assert legend_of(pl.domains(slices, palette=plt.get_cmap(palette), show=False)) == expected


@pytest.mark.parametrize(
    "palette",
    [
        ["red", "lime", "blue"],
        [(1, 0, 0), (0, 1, 0, 1), "b"],
        np.eye(3),
        cycler(color=["r", "#00ff00", "blue"]),
        ListedColormap(["red", "lime", "blue"]),
        {"c": "blue", "a": "red", "b": "lime", "d": "black"},
        pd.Series({"c": "blue", "a": "red", "b": "lime"}),
    ],
)
def test_lists_cyclers_and_mappings(slices, palette):
    expected = {"a": "#ff0000", "b": "#00ff00", "c": "#0000ff"}
    assert legend_of(pl.domains(slices, palette=palette, show=False)) == expected


@pytest.mark.parametrize(
    ("palette", "error", "message"),
    [
        ("tab11", ValueError, r"`palette`: unknown option 'tab11'.*Did you mean 'tab1"),
        (["red", "lime", "blu"], ValueError, r"`palette`: \['blu'\] are no colours"),
        (3, TypeError, "`palette` must be the name of a colour map"),
    ],
)
def test_palettes_that_cannot_be_used(slices, palette, error, message):
    with pytest.raises(error, match=message):
        pl.domains(slices, palette=palette)


@pytest.mark.parametrize(
    "stored",
    [
        {"a": "red"},
        ["red", "blue"],
        ["red", "blue", "no colour"],
        [1, 2, 3],
        "red",
        np.array(3.0),
        None,
    ],
)
def test_stored_colours_that_cannot_be_used_are_left_aside(slices, stored):
    slices.uns["spatial_domain_colors"] = stored
    with pytest.warns(UserWarning, match=r"`adata.uns\['spatial_domain_colors'\]` must be a list of one colour for"):
        ax = pl.domains(slices, show=False)
    assert legend_of(ax) == DEFAULT
    slices.obsm["X_z"] = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.warns(UserWarning, match="is left aside"):
        ax = pl.embedding(slices, "X_z", show=False)
    assert {to_hex(c) for c in ax.collections[0].get_facecolors()} == set(DEFAULT.values())


@pytest.mark.parametrize("stored", [np.array(["red", "lime", "blue"]), ("r", (0, 1, 0), "#0000FF"), np.eye(3)])
def test_stored_colours_in_any_form(slices, stored):
    slices.uns["spatial_domain_colors"] = stored
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = pl.domains(slices, show=False)
    assert legend_of(ax) == {"a": "#ff0000", "b": "#00ff00", "c": "#0000ff"}


def test_a_panel_for_each_name(genes):
    axes = pl.domains(genes, ["spatial_domain", "depth", "g1"], cmap="magma", palette="Set1", show=False)
    assert [ax.get_title() for ax in axes] == ["spatial_domain", "depth", "g1"]
    assert set(legend_of(axes[0])) == {"a", "b", "c"}
    assert colors(axes[1]) == scale(genes.obs["depth"], "magma")
    assert colors(axes[2]) == scale(genes.X[:, 1], "magma")
    bars = [ax for ax in axes[0].get_figure().axes if ax not in axes]
    assert [bar.get_ylabel() for bar in bars] == ["depth", "g1"]


def test_names_and_slices_make_a_grid(genes):
    axes = pl.domains(genes, ["g0", "spatial_domain"], batch_key="slice", title=["gene", "found"], show=False)
    assert [ax.get_title() for ax in axes] == ["gene, one", "gene, two", "found, one", "found, two"]
    np.testing.assert_array_equal(circles(axes[3]).get_offsets(), genes.obsm["spatial"][20:])
    assert colors(axes[1]) == scale(genes.X[:, 0])[20:]
    figure, given = plt.subplots(1, 2)
    drawn = pl.domains(genes, ["g0", "g1"], ax=given, title="all", show=False)
    assert drawn == list(given)
    assert figure.get_suptitle() == "all"
    with pytest.raises(ValueError, match="`ax` has 1 axes for 2 panels: g0, g1"):
        pl.domains(genes, ["g0", "g1"], ax=given[0])


def test_genes_come_from_raw_as_in_scanpy_or_a_layer(genes):
    genes.raw = AnnData(np.cos(np.arange(200.0)).reshape(50, 4), var={"x": [0] * 4}, obs=genes.obs)
    genes.raw.var.index = ["g2", "g1", "g0", "left_out"]
    other = genes.copy()
    sc.pl.embedding(other, "spatial", color="g1", show=False)
    assert colors(pl.domains(genes, "g1", show=False)) == scale(genes.raw[:, "g1"].X.ravel())
    assert colors(pl.domains(genes, "left_out", show=False)) == scale(genes.raw[:, "left_out"].X.ravel())
    assert colors(pl.domains(genes, "g1", use_raw=False, show=False)) == scale(genes.X[:, 1])
    assert colors(pl.domains(genes, "g1", layer="square", show=False)) == scale(genes.layers["square"][:, 1])
    genes.obs["g1"] = np.arange(50.0)[::-1]  # a column comes first
    assert colors(pl.domains(genes, "g1", show=False)) == scale(genes.obs["g1"])


def test_genes_of_a_modality(genes):
    protein = genes.copy()
    protein.var_names = ["g0", "CD3", "CD8"]
    protein.X = protein.X[::-1].copy()
    mdata = MuData({"rna": genes, "protein": protein})
    assert colors(pl.domains(mdata, "CD3", show=False)) == scale(protein.X[:, 1])
    assert colors(pl.domains(mdata, "protein:g0", show=False)) == scale(protein.X[:, 0])
    with pytest.raises(ValueError, match=r"'g0' is in the modalities \['rna', 'protein'\]. Name one.*'rna:g0'"):
        pl.domains(mdata, "g0")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"color": "G1"}, KeyError, "key 'G1' not found in `adata.obs`, nor among the 3 genes.*Did you mean 'g1'"),
        ({"color": "depht"}, KeyError, "Did you mean 'depth'"),
        ({"color": "g1", "layer": "log"}, KeyError, "`layer`: key 'log' not found"),
        ({"color": "g1", "use_raw": True}, ValueError, "`adata.raw` is empty"),
        ({"color": "depth", "layer": "square"}, ValueError, r"`layer` is for genes, but \['depth'\] are columns"),
        ({"color": "depth", "palette": "tab10"}, ValueError, "`palette` is for categories"),
        ({"color": "spatial_domain", "cmap": "magma"}, ValueError, "`cmap` is for numbers"),
        ({"color": ["depth", "depth"]}, ValueError, "`color`: some occur twice"),
        ({"color": []}, ValueError, "`color` is empty"),
        ({"color": ["depth", 3]}, TypeError, "`color` must name a column of `adata.obs` or a gene, found 3"),
        ({"color": ["depth", "g1"], "title": ["one"]}, ValueError, "`title` has 1 titles for 2 panels"),
        ({"color": "depth", "batch_key": "depth"}, ValueError, "`batch_key`: .* has 50 values in 50 spots"),
        ({"color": "depth", "library_id": "lib"}, KeyError, "`library_id`: key 'spatial' not found in `adata.uns`"),
        ({"color": "depth", "img_key": "hires"}, KeyError, "`img_key`: key 'spatial' not found in `adata.uns`"),
    ],
)
def test_mistakes_are_named(genes, arguments, error, message):
    with pytest.raises(error, match=message):
        pl.domains(genes, **arguments)
    assert not plt.get_fignums()


def image(shape, factor):
    pixels = np.random.default_rng(0).uniform(size=shape)
    return {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": factor}}


def test_the_image_lies_below_the_spots_in_their_coordinates(slices):
    one = slices[:20].copy()
    one.uns["spatial"] = {"is_single": True, "lib": image((30, 40, 3), 2.0)}
    ax = pl.domains(one, img_key="hires", size=0.5, show=False)
    (shown,) = ax.get_images()
    np.testing.assert_array_equal(shown.get_array(), one.uns["spatial"]["lib"]["images"]["hires"])
    assert shown.get_extent() == [-0.25, 19.75, 14.75, -0.25]  # pixel (x, y) is centred at (x / 2, y / 2)
    assert shown.get_zorder() < circles(ax).get_zorder()
    low, high = one.obsm["spatial"].min(axis=0) - 1, one.obsm["spatial"].max(axis=0) + 1
    assert ax.get_xlim() == (low[0], high[0])
    assert ax.get_ylim() == (high[1], low[1])


def test_images_of_slices_in_every_plot_on_tissue(slices):
    slices.uns["spatial"] = {"one": image((30, 40, 3), 2.0), "two": image((30, 41), 0.5)}
    slices.obsm["spatial_predicted"] = slices.obsm["spatial"] + 1
    slices.obsm["praga_spike_modality_weights"] = np.linspace(0, 1, 50)[:, None]
    slices.obsp["praga_spike_spatial_connectivities"] = np.eye(50, k=1)
    slices.layers["var_st"] = np.asarray(slices.X) + np.arange(50.0)[:, None]
    of_slices = {"batch_key": "slice", "img_key": "hires", "show": False}
    plots = {
        "domains": (pl.domains(slices, **of_slices), [(30, 40), (30, 41)]),
        "modality_weights": (pl.modality_weights(slices, **of_slices), [(30, 40), (30, 41)]),
        "learned_graph": (pl.learned_graph(slices, **of_slices), [(30, 40), (30, 41)]),
        "positions": (pl.positions(slices, "depth", **of_slices), [(30, 40), (30, 41)]),
        "expression": (pl.expression(slices, "0", **of_slices), [(30, 40)] * 2 + [(30, 41)] * 2),
    }
    model = SimpleNamespace(
        get_prototypes=lambda data, n_prototypes: np.arange(50) % 3,
        get_latent_representation=lambda data: np.eye(3)[np.arange(50) % 3],
    )
    plots["prototypes"] = pl.prototypes(model, slices, **of_slices), [(30, 40), (30, 41), (3, 3)]
    for name, (axes, expected) in plots.items():
        found = [shown.get_array().shape[:2] for ax in axes for shown in ax.get_images()]
        assert found == expected, name
    swapped = pl.domains(slices, library_id={"one": "two", "two": "one"}, batch_key="slice", show=False)
    assert [ax.get_images()[0].get_array().shape[:2] for ax in swapped] == [(30, 41), (30, 40)]
    with pytest.raises(ValueError, match=r"libraries \['one', 'two'\]; name the column of slices as `batch_key`"):
        pl.domains(slices, img_key="hires")
    with pytest.raises(KeyError, match="key 'lowres' not found"):
        pl.domains(slices, img_key="lowres", library_id="one")
    slices.uns["spatial"] = {"one": image((3, 30, 40), 1.0)}
    with pytest.raises(ValueError, match=r"must have shape \(height, width\).*found \(3, 30, 40\)"):
        pl.domains(slices, img_key="hires")


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_figures_are_saved(slices, tmp_path, ending):
    path = tmp_path / f"figure.{ending}"
    pl.domains(slices, save=path, show=False)
    assert path.read_bytes()[:4] == {"png": b"\x89PNG", "pdf": b"%PDF"}[ending]
    pl.history({"train_loss": np.arange(3.0)}, save=str(tmp_path / f"loss.{ending}"), show=False)
    assert (tmp_path / f"loss.{ending}").stat().st_size > 0
    with pytest.raises(TypeError, match="`save` must be the path of a file"):
        pl.domains(slices, save=True, show=False)


def test_a_list_of_names_in_an_embedding(genes):
    genes.obsm["X_z"] = np.random.default_rng(0).normal(size=(50, 3))
    genes.uns["z"] = {"params": {"model": "GraphST"}}
    axes = pl.embedding(genes, color=["spatial_domain", "g1"], palette="Set1", cmap="magma", show=False)
    assert [ax.get_title() for ax in axes] == ["spatial_domain", "g1"]
    shown = {to_hex(c) for c in axes[0].collections[0].get_facecolors()}
    assert shown == {to_hex(plt.get_cmap("Set1")(x)) for x in (0.0, 0.5, 1.0)}
    np.testing.assert_array_equal(np.sort(axes[1].collections[0].get_array()), np.sort(genes.X[:, 1]))
    genes.obsm["X_y"] = genes.obsm["X_z"]
    genes.uns["y"] = genes.uns["z"]
    with pytest.raises(ValueError, match=r"`use_rep`: the latent representations \['X_z', 'X_y'\] are there"):
        pl.embedding(genes)


def test_weights_that_are_not_there_are_explained(slices):
    with pytest.raises(KeyError, match="There are no results of the name 'praga_spike'"):
        pl.modality_weights(slices)
    slices.uns["praga_spike"] = {"params": {}}
    slices.obsm["enhanced_modality_weights"] = np.ones((50, 2))
    with pytest.raises(KeyError, match=r"A model of one modality has no.*\['enhanced_modality_weights'\]"):
        pl.modality_weights(slices)


def test_models_and_data_that_are_exchanged_are_named(slices):
    with pytest.raises(TypeError, match="`model` must be a trained PRAGASpike, found AnnData"):
        pl.prototypes(slices)
    with pytest.raises(TypeError, match=r"`model` must be a trained PRAGASpike or the table .* found AnnData"):
        pl.firing_rates(slices)
    wide = AnnData(np.ones((2, 100)), layers={"var_st": np.ones((2, 100))})
    with pytest.raises(KeyError, match=r"'g9' not found in `adata.var_names`. Available keys: .* and 60 more"):
        pl.expression(wide, "g9", kind="scatter")
