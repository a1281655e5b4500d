from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from matplotlib.colors import to_hex, to_rgba
from mudata import MuData
from scanpy.plotting import palettes

from stomics_tools import pl


def spots(ax):
    """Positions, colours and diameters of the circles on an axes."""
    (circles,) = ax.collections
    return np.asarray(circles.get_offsets()), [to_hex(c) for c in circles.get_facecolor()], circles.get_widths()


def legend_of(ax) -> dict[str, str]:
    legend = ax.get_legend()
    handles = legend.legend_handles
    return {text.get_text(): to_hex(h.get_color()) for text, h in zip(legend.get_texts(), handles, strict=True)}


def test_every_spot_is_drawn_in_place_in_the_colour_of_its_domain(slices):
    ax = pl.domains(slices, show=False)
    xy, colors, _ = spots(ax)
    np.testing.assert_array_equal(xy, slices.obsm["spatial"])
    expected = dict(zip("abc", [to_hex(c) for c in palettes.default_20], strict=False))
    assert colors == [expected[d] for d in slices.obs["spatial_domain"]]
    assert legend_of(ax) == expected
    assert ax.get_title() == "spatial_domain"
    assert ax.get_aspect() == 1.0
    low, high = ax.get_ylim()
    assert low > 40 > 0 > high  # downwards, with room for the outer circles


def test_circles_are_as_wide_as_the_lattice_is(slices):
    one, two = pl.domains(slices, batch_key="slice", show=False)
    np.testing.assert_allclose(spots(one)[2], 2.0)
    np.testing.assert_allclose(spots(two)[2], 10.0)
    half = pl.domains(slices[:20], size=0.5, show=False)
    np.testing.assert_allclose(spots(half)[2], 1.0)


def test_a_panel_for_each_slice(slices):
    axes = pl.domains(slices, batch_key="slice", title="all", show=False)
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    assert axes[0].get_figure().get_suptitle() == "all"
    assert [len(spots(ax)[0]) for ax in axes] == [20, 30]
    assert axes[0].get_legend() is None
    assert set(legend_of(axes[1])) == {"a", "b", "c"}


def test_stored_colours_are_used_also_for_unused_categories(slices):
    slices.uns["spatial_domain_colors"] = ["#010203", "#040506", "#070809"]
    part = slices[slices.obs["spatial_domain"] != "a"]  # a view keeps its categories
    assert legend_of(pl.domains(part, show=False)) == {"b": "#040506", "c": "#070809"}


def test_too_few_stored_colours_are_not_used(slices):
    slices.uns["spatial_domain_colors"] = ["#010203"]
    assert "#010203" not in legend_of(pl.domains(slices, show=False)).values()


def test_palette_wins_over_stored_colours(slices):
    slices.uns["spatial_domain_colors"] = ["#010203", "#040506", "#070809"]
    expected = {"a": "#ff0000", "b": "#008000", "c": "#0000ff"}
    by_order = pl.domains(slices, palette=["red", "green", "blue"], show=False)
    by_name = pl.domains(slices, palette={"c": "blue", "b": "green", "a": "red"}, show=False)
    assert legend_of(by_order) == legend_of(by_name) == expected


@pytest.mark.parametrize(("palette", "message"), [(["red"], "1 colours for 3"), ({"a": "red"}, r"\['b', 'c'\]")])
def test_short_palette(slices, palette, message):
    with pytest.raises(ValueError, match=message):
        pl.domains(slices, palette=palette)


@pytest.mark.parametrize(("n", "palette"), [(25, palettes.default_28), (60, palettes.default_102)])
def test_many_domains_have_distinct_colours(n, palette):
    adata = AnnData(np.ones((n, 1)), obs={"spatial_domain": [f"{i:03d}" for i in range(n)]})
    adata.obsm["spatial"] = np.random.default_rng(0).normal(size=(n, 2))
    assert list(legend_of(pl.domains(adata, show=False)).values()) == [to_hex(c) for c in palette[:n]]


def test_missing_values_are_grey_and_in_the_legend(slices):
    slices.obs.loc[slices.obs_names[:7], "spatial_domain"] = None
    ax = pl.domains(slices, show=False)
    assert spots(ax)[1][:7] == ["#d3d3d3"] * 7
    assert legend_of(ax)["missing"] == "#d3d3d3"


def test_numbers_are_drawn_on_a_scale(slices):
    slices.obs.loc[slices.obs_names[3], "depth"] = np.nan
    ax = pl.domains(slices, color="depth", cmap="magma", show=False)
    _, colors, _ = spots(ax)
    magma = plt.get_cmap("magma")
    assert (colors[0], colors[-1], colors[3]) == (to_hex(magma(0.0)), to_hex(magma(1.0)), "#d3d3d3")
    assert ax.get_legend() is None
    assert [other.get_ylabel() for other in ax.get_figure().axes if other is not ax] == ["depth"]


def test_flat_slices_in_space_are_drawn_flat_and_solid_tissue_in_three_dimensions(slices):
    slices.obsm["spatial"] = np.column_stack([slices.obsm["spatial"], [0.0] * 20 + [1.0] * 30])
    for ax in pl.domains(slices, batch_key="slice", show=False):
        assert ax.name == "rectilinear"
    solid = pl.domains(slices, show=False)
    assert solid.name == "3d"
    np.testing.assert_array_equal(np.column_stack(solid.collections[0]._offsets3d), slices.obsm["spatial"])


def test_on_given_axes(slices):
    _, (left, right) = plt.subplots(1, 2)
    assert pl.domains(slices, ax=right, show=False) is right
    assert not left.collections
    assert len(spots(right)[0]) == 50
    with pytest.raises(ValueError, match="`ax`.*2 panels"):
        pl.domains(slices, batch_key="slice", ax=left)


def test_returns_as_scanpy_does(slices, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    figure = pl.domains(slices, return_fig=True)
    assert len(figure.axes) == 1
    before = sc.settings.autoshow
    try:
        sc.settings.autoshow = False
        assert pl.domains(slices) is not None
    finally:
        sc.settings.autoshow = before
    assert not shown
    assert pl.domains(slices, show=True) is None
    assert shown == [1]


def test_nothing_is_written(slices):
    before = slices.copy()
    pl.domains(slices, batch_key="slice", show=False)
    assert set(slices.uns) == set(before.uns)
    pd.testing.assert_frame_equal(slices.obs, before.obs)


def test_modalities_are_searched_and_fill_each_other_in(slices):
    first, second = slices[:30].copy(), slices[10:].copy()
    first.uns["spatial_domain_colors"] = ["#010203", "#040506", "#070809"]
    mdata = MuData({"rna": first, "protein": second})
    ax = pl.domains(mdata, show=False)
    xy, colors, _ = spots(ax)
    order = slices.obs_names.get_indexer(mdata.obs_names)
    np.testing.assert_array_equal(xy, slices.obsm["spatial"][order])
    expected = dict(zip("abc", first.uns["spatial_domain_colors"], strict=True))
    assert colors == [expected[d] for d in slices.obs["spatial_domain"].to_numpy()[order]]
    mdata.obs["spatial_domain"] = "all"
    assert list(legend_of(pl.domains(mdata, show=False))) == ["all"]


def test_edges_of_input(slices):
    one = slices[:1].copy()
    assert len(spots(pl.domains(one, show=False))[0]) == 1
    slices.obsm["spatial"][1:26] = slices.obsm["spatial"][0]  # spots on one point do not shrink the circles
    assert (spots(pl.domains(slices, show=False))[2] > 1).all()
    slices.obs["flag"] = slices.obs["depth"] > 10
    assert legend_of(pl.domains(slices, color="flag", show=False)).keys() == {"False", "True"}
    slices.obs["nothing"] = np.nan
    ax = pl.domains(slices, color="nothing", show=False)
    assert legend_of(ax) == {"missing": to_hex(to_rgba("lightgrey"))}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"color": "spatial_domian"}, "`color`: key 'spatial_domian' not found.*Did you mean 'spatial_domain'"),
        ({"spatial_key": "xy"}, "`spatial_key`: key 'xy' not found"),
        ({"batch_key": "slide"}, "`batch_key`: key 'slide' not found"),
    ],
)
@pytest.mark.parametrize("multimodal", [False, True])
def test_missing_keys(slices, arguments, message, multimodal):
    with pytest.raises(KeyError, match=message):
        pl.domains(MuData({"rna": slices}) if multimodal else slices, **arguments)
