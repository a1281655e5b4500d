"""Plots of objects whose names repeat, or whose modalities changed: every spot has its own place and colour."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex
from mudata import MuData
from scipy import sparse

from stomics_tools import pl

RED, BLUE = "#ff0000", "#0000ff"


def one_slice(shift: float, label: str) -> AnnData:
    places = np.array([[0, 0], [0, 1], [1, 0], [1, 1.0]]) + shift
    adata = AnnData(np.arange(8.0).reshape(4, 2) + shift, obsm={"spatial": places})
    adata.obs["label"] = label
    return adata


@pytest.fixture
def both() -> AnnData:
    """Two slices whose spots have the names "0" to "3"."""
    return ad.concat({"first": one_slice(0, "A"), "second": one_slice(100, "B")}, label="slice")


def drawn(ax):
    circles = next(c for c in ax.collections if isinstance(c, EllipseCollection))
    return np.asarray(circles.get_offsets()), [to_hex(c) for c in circles.get_facecolor()]


def test_repeated_names_keep_their_rows(both):
    first, second = pl.domains(both, "label", batch_key="slice", palette={"A": RED, "B": BLUE}, show=False)
    assert [first.get_title(), second.get_title()] == ["first", "second"]
    np.testing.assert_array_equal(drawn(second)[0], both.obsm["spatial"][4:])
    assert drawn(first)[1] == [RED] * 4
    assert drawn(second)[1] == [BLUE] * 4


def test_repeated_names_in_every_plot(both):
    both.obsm["praga_spike_modality_weights"] = pd.DataFrame(
        {"rna": np.linspace(0, 1, 8), "adt": 1 - np.linspace(0, 1, 8)}, index=both.obs_names
    )
    one = pl.modality_weights(both, modalities=["rna"], batch_key="slice", show=False)[1]
    viridis = plt.get_cmap("viridis")
    assert drawn(one)[1] == [to_hex(viridis(value)) for value in np.linspace(0, 1, 8)[4:]]

    both.obsm["spatial_predicted"] = both.obsm["spatial"].copy()
    both.obs["row"] = np.arange(8.0)
    axes = pl.positions(both, "row", batch_key="slice", show=False)
    assert [ax.get_title() for ax in axes[1::2]] == ["first: predicted, error 0.00", "second: predicted, error 0.00"]
    np.testing.assert_array_equal(drawn(axes[2])[0], both.obsm["spatial"][4:])

    both.layers["var_st"] = both.X + 1
    axes = pl.expression(both, both.var_names[0], layer=None, batch_key="slice", show=False)
    np.testing.assert_array_equal(drawn(axes[2])[0], both.obsm["spatial"][4:])

    both.obsp["praga_spike_spatial_connectivities"] = sparse.csr_matrix(np.eye(8, k=1))
    axes = pl.learned_graph(both, "label", batch_key="slice", palette={"A": RED, "B": BLUE}, show=False)
    assert drawn(axes[1])[1] == [BLUE] * 4

    many = ad.concat({str(i): one_slice(100 * i, "AB"[i % 2]) for i in range(6)}, label="slice")
    many.obsm["X_z"] = (
        np.random.default_rng(0).normal(size=(24, 2)) + 50 * (many.obs["label"] == "B").to_numpy()[:, None]
    )
    ax = pl.embedding(many, "X_z", color="label", palette={"A": RED, "B": BLUE}, n_neighbors=5, show=False)
    offsets, colors = ax.collections[0].get_offsets(), [to_hex(c) for c in ax.collections[0].get_facecolors()]
    assert sorted(colors) == [BLUE] * 12 + [RED] * 12
    red = np.array(colors) == RED
    spread = max(np.ptp(offsets[red], axis=0).max(), np.ptp(offsets[~red], axis=0).max())
    assert np.linalg.norm(offsets[red].mean(axis=0) - offsets[~red].mean(axis=0)) > spread / 2


def modalities(slices: AnnData) -> MuData:
    rna, protein = slices.copy(), slices.copy()
    rna.var_names, protein.var_names = ["g0", "g1", "g2"], ["p0", "p1", "p2"]
    rna.X[:, 1] = np.arange(50)
    del protein.obs["depth"]
    return MuData({"rna": rna, "protein": protein})


def test_a_modality_in_another_order_is_joined_by_name(slices):
    mdata = modalities(slices)
    mdata.mod["rna"] = mdata["rna"][np.random.default_rng(0).permutation(50)].copy()  # and no mdata.update()
    for color in ("depth", "rna:depth", "g1"):
        xy, colors = drawn(pl.domains(mdata, color, show=False))
        np.testing.assert_array_equal(xy, slices.obsm["spatial"])
        assert colors == [to_hex(plt.get_cmap("viridis")(value / 49)) for value in range(50)]


def test_a_modality_that_lost_spots(slices):
    mdata = modalities(slices)
    mdata.mod["rna"] = mdata["rna"][5:].copy()
    xy, colors = drawn(pl.domains(mdata, "depth", show=False))  # places are in the other modality still
    np.testing.assert_array_equal(xy, slices.obsm["spatial"])
    assert colors[:5] == ["#d3d3d3"] * 5
    del mdata["protein"].obsm["spatial"]
    with pytest.raises(ValueError, match=r"5 of 50 spots have coordinates in no modality.*`mdata.update\(\)`"):
        pl.domains(mdata, "depth", show=False)


def test_a_modality_whose_spots_were_renamed(slices):
    mdata = modalities(slices)
    mdata.mod["rna"].obs_names = [f"{name}-1" for name in slices.obs_names]
    for color in ("depth", "rna:depth", "g1"):
        with pytest.raises(
            ValueError, match=r"'rna' changed since the MuData was made: 50 .*'0-1'.*`mdata.update\(\)`"
        ):
            pl.domains(mdata, color, show=False)


def test_modalities_must_have_unique_names_and_agree(slices):
    mdata = modalities(slices)
    mdata["protein"].obs["spatial_domain"] = "x"
    with pytest.raises(ValueError, match=r"'spatial_domain' of the modalities 'rna' and 'protein' differs"):
        pl.domains(mdata, show=False)
    assert len(drawn(pl.domains(mdata, "rna:spatial_domain", show=False))[0]) == 50
    mdata["protein"].obsm["spatial"] = slices.obsm["spatial"] + 1
    with pytest.raises(ValueError, match="`spatial_key`: 'spatial' of the modalities"):
        pl.domains(mdata, "rna:spatial_domain", show=False)
    mdata["rna"].obs_names = ["same"] * 50
    with pytest.raises(ValueError, match=r"`mdata\['rna'\].obs_names` are not unique"):
        pl.domains(mdata, "rna:spatial_domain", show=False)
