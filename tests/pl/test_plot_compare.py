from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from stomics_tools import pl


@pytest.fixture
def table() -> pd.DataFrame:
    """Three seeds of two models, one of them diverged."""
    return pd.DataFrame(
        {
            "model": ["original"] * 3 + ["enhanced"] * 3,
            "seed": [0, 1, 2] * 2,
            "ari": [0.1, 0.2, 0.6, 0.7, np.nan, 0.9],
            "silhouette": [0.1, 0.1, 0.1, 0.2, np.nan, 0.2],
            "reconstruction_mse": np.nan,
            "seconds": [1.0, 2.0, 3.0, 4.0, 100.0, 6.0],
            "n_domains": pd.array([5, 5, 5, 5, None, 4], dtype="Int64"),
            "stability": [0.3] * 3 + [0.8] * 3,
            "error": ["", "", "", "", "the loss is nan", ""],
        }
    )


def drawn(ax) -> list[tuple[str, list[float], str]]:
    """Kind of marker, heights and colour of all points."""
    points = [line for line in ax.lines if line.get_marker() in ("o", "D")]
    heights = [np.asarray(line.get_ydata(), dtype=float).round(6).tolist() for line in points]
    return [(line.get_marker(), y, to_hex(line.get_color())) for line, y in zip(points, heights, strict=True)]


def labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def test_a_panel_for_each_metric_that_has_values(table):
    axes = pl.compare_models(table, show=False)
    assert [ax.get_title() for ax in axes] == ["ARI", "silhouette width", "stability (ARI between seeds)", "time [s]"]
    for ax in axes:
        assert labels(ax) == ["original", "enhanced\n(1 of 3 diverged)"]


def test_points_mean_and_deviation(table):
    ax = pl.compare_models(table, metrics=["ari"], palette=["#ff0000", "#0000ff"], show=False)
    assert drawn(ax) == [
        ("o", [0.1, 0.2, 0.6], "#ff0000"),
        ("D", [0.3], "#ff0000"),
        ("o", [0.7, 0.9], "#0000ff"),
        ("D", [0.8], "#0000ff"),
    ]
    bars = [container[2][0].get_segments()[0][:, 1] for container in ax.containers]
    np.testing.assert_allclose(bars, [[0.3 - 0.07**0.5, 0.3 + 0.07**0.5], [0.8 - 0.02**0.5, 0.8 + 0.02**0.5]])
    points = [np.asarray(line.get_xdata(), dtype=float) for line in ax.lines if line.get_marker() in ("o", "D")]
    assert [x.round().tolist() for x in points] == [[0] * 3, [0], [1] * 2, [1]]


def test_diverged_runs_and_repeats_are_not_drawn(table):
    number, time, stability = pl.compare_models(table, metrics=["n_domains", "seconds", "stability"], show=False)
    assert [heights for marker, heights, _ in drawn(number) if marker == "o"] == [[5, 5, 5], [5, 4]]
    assert [heights for marker, heights, _ in drawn(time) if marker == "o"] == [[1, 2, 3], [4, 6]]
    assert [heights for _, heights, _ in drawn(stability)] == [[0.3], [0.8]]  # one of a model


def test_one_seed_has_no_deviation(table):
    table = table[table["seed"] == 0].drop(columns="error")
    ax = pl.compare_models(table, metrics=["ari"], show=False)
    assert [(marker, heights) for marker, heights, _ in drawn(ax)] == [("o", [0.1]), ("o", [0.7])]
    assert not ax.containers
    assert labels(ax) == ["original", "enhanced"]


def test_a_table_read_from_a_file(table, tmp_path):
    table.to_csv(tmp_path / "table.csv", index=False)
    ax = pl.compare_models(pd.read_csv(tmp_path / "table.csv"), metrics=["ari"], show=False)
    assert labels(ax) == ["original", "enhanced\n(1 of 3 diverged)"]


def test_grid_and_figure(table):
    figure = pl.compare_models(table, ncols=3, return_fig=True)
    assert [ax.get_subplotspec().rowspan.start for ax in figure.axes] == [0, 0, 0, 1]
    _, ax = plt.subplots()
    assert pl.compare_models(table, metrics=["seconds"], ax=ax, return_fig=True) is ax.get_figure()


def test_the_table_is_left_alone(table):
    before = table.copy()
    pl.compare_models(table, show=False)
    pd.testing.assert_frame_equal(table, before)


def test_errors(table):
    with pytest.raises(KeyError, match="`metrics`: key 'arri' not found.*Did you mean 'ari'"):
        pl.compare_models(table, metrics=["arri"])
    with pytest.raises(KeyError, match="`table`: key 'model' not found"):
        pl.compare_models(table.drop(columns="model"))
    with pytest.raises(ValueError, match=r"none of \['reconstruction_mse'\] has a value"):
        pl.compare_models(table, metrics=["reconstruction_mse"])
    with pytest.raises(ValueError, match="`ax` is one plot but there are 4 metrics"):
        pl.compare_models(table, ax=plt.figure().add_subplot())
    with pytest.raises(ValueError, match="`ncols` must be at least 1"):
        pl.compare_models(table, ncols=0)


def test_axes_begin_at_zero_and_wide_times_are_logarithmic(table):
    table["silhouette"] = [-0.2, 0.1, 0.1, 0.2, np.nan, 0.2]
    ari, silhouette, time = pl.compare_models(table, metrics=["ari", "silhouette", "seconds"], show=False)
    assert ari.get_ylim()[0] == time.get_ylim()[0] == 0
    assert silhouette.get_ylim()[0] < -0.2
    table.loc[0, "seconds"] = 0.1  # beside 6; the diverged run of 100 is not drawn
    assert pl.compare_models(table, metrics=["seconds"], show=False).get_yscale() == "log"
    table.loc[0, "seconds"] = 0.3
    assert pl.compare_models(table, metrics=["seconds"], show=False).get_yscale() == "linear"
