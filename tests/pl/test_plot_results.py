"""Plots of what models write, against arrays made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_hex
from mudata import MuData
from scipy import sparse

from stomics_tools import metrics, pl


@pytest.fixture
def results(slices: AnnData) -> AnnData:
    """Two slices with everything that plots read."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(20, size=(50, 3)).astype(np.float32)
    counts[:, 0] += 30
    adata = AnnData(counts, obs=slices.obs, obsm=dict(slices.obsm))
    adata.var_names = ["g0", "g1", "g2"]
    weight = rng.uniform(0.3, 0.7, 50).astype(np.float32)
    adata.obsm["praga_spike_modality_weights"] = pd.DataFrame({"rna": weight, "adt": 1 - weight}, index=adata.obs_names)
    edges = sparse.lil_matrix((50, 50), dtype=np.float32)
    edges[0, 1], edges[1, 0], edges[2, 3], edges[5, 5], edges[0, 30], edges[21, 22] = 0.2, 0.6, 0.1, 9.0, 8.0, 0.3
    adata.obsp["praga_spike_spatial_connectivities"] = edges.tocsr()
    log = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    adata.layers["var_st"] = log + rng.normal(scale=0.2, size=log.shape)
    adata.layers["var_st_lower"] = adata.layers["var_st"] - 0.2
    adata.layers["var_st_upper"] = adata.layers["var_st"] + 0.2
    adata.uns["var_st"] = {"params": {"level": 0.8}}
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    adata.obsm["spatial_predicted"] = adata.obsm["spatial"] @ turn + 7
    adata.obsm["spatial_dispersion"] = np.arange(50.0)[:, None]
    adata.layers["log"] = log
    return adata


def circles(ax):
    return next(c for c in ax.collections if isinstance(c, EllipseCollection))


def colors(ax) -> list[str]:
    return [to_hex(c) for c in circles(ax).get_facecolor()]


def viridis(values, low, high) -> list[str]:
    return [to_hex(plt.get_cmap("viridis")((v - low) / (high - low))) for v in values]


def test_weights_are_colours_of_one_scale(results):
    axes = pl.modality_weights(results, batch_key="slice", show=False)
    assert [ax.get_title() for ax in axes] == ["rna, one", "adt, one", "rna, two", "adt, two"]
    table = results.obsm["praga_spike_modality_weights"]
    low, high = table.to_numpy().min(), table.to_numpy().max()
    assert colors(axes[1]) == viridis(table["adt"].to_numpy(dtype=float)[:20], low, high)
    assert colors(axes[2]) == viridis(table["rna"].to_numpy(dtype=float)[20:], low, high)
    np.testing.assert_array_equal(circles(axes[3]).get_offsets(), results.obsm["spatial"][20:])
    one = pl.modality_weights(results, modalities=["adt"], show=False)
    assert one.get_title() == "adt"


def test_weights_of_a_mudata(results):
    mdata = MuData({"rna": results[:30].copy()})
    mdata.obsm["praga_spike_modality_weights"] = results.obsm["praga_spike_modality_weights"].iloc[:30]
    del mdata["rna"].obsm["praga_spike_modality_weights"]
    assert len(pl.modality_weights(mdata, show=False)) == 2


def test_lines_are_pairs_of_a_slice_the_heaviest_last(results):
    one, two = pl.learned_graph(results, batch_key="slice", show=False)
    (lines,) = (c for c in one.collections if isinstance(c, LineCollection))
    xy = results.obsm["spatial"]
    expected = [xy[[2, 3]], xy[[0, 1]]]  # 0.05 and 0.4, the means of both directions
    np.testing.assert_allclose(lines.get_segments(), expected)
    assert to_hex(lines.get_colors()[0]) == to_hex(plt.get_cmap("viridis_r")(0.0))
    assert to_hex(lines.get_colors()[1]) == to_hex(plt.get_cmap("viridis_r")(1.0))
    (other,) = (c for c in two.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(other.get_segments(), [xy[[21, 22]]])
    assert lines.get_zorder() < circles(one).get_zorder()


def test_only_the_heaviest_edges(results):
    results.uns["spatial_domain_colors"] = ["#010203", "#040506", "#070809"]
    ax = pl.learned_graph(results, max_edges=1, color="spatial_domain", show=False)
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(lines.get_segments(), [results.obsm["spatial"][[0, 30]]])
    assert ax.get_title() == "spatial graph, 1 heaviest of 4 edges"
    assert colors(ax)[:3] == results.uns["spatial_domain_colors"]


def test_graph_of_solid_tissue(results):
    results.obsm["spatial"] = np.column_stack([results.obsm["spatial"], np.arange(50.0)])
    ax = pl.learned_graph(results, show=False)
    assert ax.name == "3d"
    ax.figure.canvas.draw()


def test_positions_are_aligned_slice_by_slice(results):
    axes = pl.positions(results, color="spatial_domain", batch_key="slice", show=False)
    assert [ax.get_title() for ax in axes[:3]] == ["one: true", "one: predicted, error 0.00", "one: dispersion"]
    for true, predicted, rows in ((axes[0], axes[1], slice(20)), (axes[3], axes[4], slice(20, 50))):
        np.testing.assert_allclose(circles(true).get_offsets(), results.obsm["spatial"][rows])
        np.testing.assert_allclose(circles(predicted).get_offsets(), results.obsm["spatial"][rows], atol=1e-9)
        assert colors(true) == colors(predicted)
        assert true.get_xlim() == predicted.get_xlim()
    assert colors(axes[5]) == viridis(np.arange(20.0, 50), 0, 49)


def test_positions_among_landmarks_stay_where_they_are(results):
    results.uns["spatial_predicted"] = {"params": {"landmarks": 5}}
    results.obsm["spatial_predicted"] = results.obsm["spatial"] + 1.0
    axes = pl.positions(results, color="depth", dispersion=False, show=False)
    assert len(axes) == 2
    np.testing.assert_allclose(circles(axes[1]).get_offsets(), results.obsm["spatial"] + 1)
    moved = pl.positions(results, color="depth", dispersion=False, in_frame=False, show=False)
    np.testing.assert_allclose(circles(moved[1]).get_offsets(), results.obsm["spatial"], atol=1e-9)
    truth = results.obsm["spatial"]
    error = metrics.normalized_rmsd(truth, truth + [[0, 0]]) + np.sqrt(2 * 50) / np.linalg.norm(truth - truth.mean(0))
    assert axes[1].get_title() == f"predicted, error {error:.2f}"


@pytest.mark.parametrize("form", ["dense", "csr", "csc", "log"])
def test_measured_expression_has_the_unit_of_the_predicted(results, form):
    log = results.layers["log"]
    if form in ("csr", "csc"):
        results.X = getattr(sparse, f"{form}_matrix")(results.X)
    ax = pl.expression(results, "g1", kind="scatter", layer="log" if form == "log" else None, show=False)
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, log[:, 1], rtol=1e-5)
    np.testing.assert_allclose(y, results.layers["var_st"][:, 1])
    r = np.corrcoef(x, y)[0, 1]
    assert ax.get_title() == f"g1, r = {r:.2f}"


def test_one_name_is_a_name_and_foreign_records_are_passed_over(results):
    ax = pl.modality_weights(results, modalities="adt", show=False)
    assert ax.get_title() == "adt"
    ax = pl.history({"train_loss": np.arange(3.0), "other": np.arange(3.0)}, keys="other", show=False)
    assert ax.get_ylabel() == "other"
    for foreign in ("text", {"params": None}, np.arange(3)):
        results.uns["spatial_predicted"] = results.uns["var_st"] = foreign
        assert len(pl.positions(results, "depth", dispersion=False, show=False)) == 2
        assert pl.intervals(results, "g0", show=False).get_title().endswith("% inside")


def test_genes_that_repeat_are_refused(results):
    results.var_names = ["g0", "g1", "g1"]
    assert pl.expression(results, "g0", show=False)[0].get_title() == "g0, measured"
    with pytest.raises(ValueError, match=r"`genes`: \['g1'\] are there more than once"):
        pl.expression(results, "g1")


def test_expression_on_tissue(results):
    axes = pl.expression(results, ["g0", "g2"], batch_key="slice", show=False)
    assert len(axes) == 8
    measured, predicted = results.layers["log"][20:, 2], results.layers["var_st"][20:, 2]
    both = np.concatenate([measured, predicted])
    assert axes[6].get_title() == "g2, two, measured"
    assert axes[7].get_title() == f"predicted, r = {np.corrcoef(measured, predicted)[0, 1]:.2f}"
    assert colors(axes[7]) == viridis(predicted, both.min(), both.max())
    own = pl.expression(results, "g2", shared_scale=False, show=False)
    values = results.layers["var_st"][:, 2]
    assert colors(own[1]) == viridis(values, values.min(), values.max())


def test_expression_from_a_table_and_genes_not_measured(results):
    results.obsm["table"] = pd.DataFrame(results.layers["var_st"], index=results.obs_names, columns=results.var_names)
    results.layers["gaps"] = np.where(np.arange(50)[:, None] < 5, np.nan, results.layers["log"])
    axes = pl.expression(results, "g1", key="table", layer="gaps", show=False)
    assert colors(axes[0])[:5] == ["#d3d3d3"] * 5
    r = np.corrcoef(results.layers["log"][5:, 1], results.layers["var_st"][5:, 1])[0, 1]
    assert axes[1].get_title() == f"predicted, r = {r:.2f}"


def test_arrays_of_genes_that_uns_names(results):
    """What models write where genes differ from those of training: here in reverse order."""
    plain = results.copy()
    for end in ("", "_lower", "_upper"):
        results.obsm[f"var_st{end}"] = results.layers.pop(f"var_st{end}")[:, ::-1].copy()
    with pytest.raises(KeyError, match="`key`: key 'var_st' not found"):
        pl.intervals(results, "g1", show=False)
    results.uns["var_st"] = {**results.uns["var_st"], "gene_names": results.var_names[::-1].to_numpy()}
    for draw in (pl.expression, pl.intervals):
        first, second = (draw(data, "g1", show=False, return_fig=True) for data in (plain, results))
        first.canvas.draw()
        second.canvas.draw()
        assert (np.asarray(first.canvas.buffer_rgba()) == np.asarray(second.canvas.buffer_rgba())).all()
    with pytest.raises(KeyError, match="key 'other' not found"):
        pl.intervals(results, "other", show=False)


def test_intervals_are_sorted_and_counted(results):
    ax = pl.intervals(results, "g1", show=False)
    expected, measured = results.layers["var_st"][:, 1], results.layers["log"][:, 1]
    order = np.argsort(expected)
    inside, outside, mean = ax.lines
    np.testing.assert_allclose(mean.get_ydata(), expected[order])
    within = np.abs(measured - expected)[order] <= 0.2
    np.testing.assert_array_equal(inside.get_xdata(), np.flatnonzero(within))
    np.testing.assert_allclose(outside.get_ydata(), measured[order][~within], rtol=1e-5)
    assert ax.get_title() == f"g1: {100 * within.mean():.0f} % inside (80 % expected)"
    band = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([band[:, 1].min(), band[:, 1].max()], [expected.min() - 0.2, expected.max() + 0.2])


def test_firing_rates_of_maps_that_read_spikes():
    table = pd.DataFrame(
        {"firing_rate": [0.1, 0.3, np.nan, 0.2], "silent_fraction": [0.0, 0.5, np.nan, np.nan]},
        index=["graph_fusion.0.hidden", "blocks.1.attention.key.0", "encoders.0", "total"],
    )
    for model in (table, SimpleNamespace(spike_stats=lambda: table)):
        ax = pl.firing_rates(model, show=False)
        np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], [0.1, 0.3])
        np.testing.assert_allclose(ax.lines[0].get_xdata(), [0, 0.5])
        assert [t.get_text() for t in ax.get_yticklabels()] == ["graph fusion 0 hidden", "block 1: attention key"]
    with pytest.raises(ValueError, match="no row of the table"):
        pl.firing_rates(table.iloc[2:])


def test_prototypes_and_how_like_they_are(results):
    own = np.arange(50) % 3
    z = np.array([[1.0, 0], [-1, 0], [0.9, 0.1]])[own]
    model = SimpleNamespace(
        adata=results,
        get_prototypes=lambda data, n_prototypes: own,
        get_latent_representation=lambda data: z,
    )
    tissue, heat = pl.prototypes(model, palette=["#010203", "#040506", "#070809"], show=False)
    assert colors(tissue)[:3] == ["#010203", "#040506", "#070809"]
    order = [int(label.get_text()) for label in heat.get_xticklabels()]
    assert order[1] != 1  # the two like ones stand together
    means = np.array([[1.0, 0], [-1, 0], [0.9, 0.1]]) - z.mean(axis=0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(heat.images[0].get_array(), (means @ means.T)[np.ix_(order, order)], atol=1e-12)
    assert [t.get_text() for t in tissue.get_legend().get_texts()][0] == "0 (17 spots)"


CALLS = {
    "modality_weights": lambda a, **k: pl.modality_weights(a, modalities=["rna"], **k),
    "learned_graph": lambda a, **k: pl.learned_graph(a, **k),
    "positions": lambda a, **k: pl.positions(a, color="spatial_domain", **k),
    "expression": lambda a, **k: pl.expression(a, "g0", **k),
    "intervals": lambda a, **k: pl.intervals(a, "g0", **k),
}
N_AXES = {"modality_weights": 1, "learned_graph": 1, "positions": 3, "expression": 2, "intervals": 1}


@pytest.mark.parametrize("name", CALLS)
def test_given_axes_and_nothing_written(results, name):
    before = results.copy()
    _, given = plt.subplots(1, N_AXES[name], squeeze=False)
    n_figures = len(plt.get_fignums())
    drawn = CALLS[name](results, ax=given.ravel(), show=False)
    assert (drawn if isinstance(drawn, list) else [drawn]) == given.ravel().tolist()
    assert CALLS[name](results, ax=given.ravel(), return_fig=True) is given[0, 0].figure
    with pytest.raises(ValueError, match="`ax` has 5 axes for"):
        CALLS[name](results, ax=plt.subplots(5)[1])
    assert len(plt.get_fignums()) == n_figures + 1
    for part in ("uns", "obsm", "obsp", "layers"):
        assert set(getattr(results, part)) == set(getattr(before, part))
    np.testing.assert_array_equal(results.X, before.X)
    assert [str(c) for c in results.obs] == [str(c) for c in before.obs]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: pl.modality_weights(a, key="praga"), "`key`: key 'praga_modality_weights' not found"),
        (lambda a: pl.modality_weights(a, modalities=["rns"]), "`modalities`: key 'rns'.*Did you mean 'rna'"),
        (lambda a: pl.learned_graph(a, graph="rna"), "`graph`: key 'praga_spike_rna_connectivities' not found"),
        (lambda a: pl.learned_graph(a, color="spatial_domian"), "`color`: key 'spatial_domian'"),
        (lambda a: pl.positions(a, color="spatial_domain", key="predicted"), "`key`: key 'predicted' not found"),
        (lambda a: pl.positions(a, color="spatial_domain", batch_key="slide"), "`batch_key`: key 'slide' not found"),
        (lambda a: pl.expression(a, "g9"), "`genes`: key 'g9' not found"),
        (lambda a: pl.expression(a, "g1", layer="raw"), "`layer`: key 'raw' not found"),
        (lambda a: pl.intervals(a, "g1", key="var_s"), "`key`: key 'var_s' not found"),
    ],
)
def test_missing_keys_are_told_before_anything_is_drawn(results, call, message):
    with pytest.raises(KeyError, match=message):
        call(results)
    assert not plt.get_fignums()
