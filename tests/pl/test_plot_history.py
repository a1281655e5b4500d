from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from stomics_tools import pl


@pytest.fixture
def record() -> dict[str, pd.DataFrame]:
    epochs = pd.RangeIndex(4, name="epoch")
    return {
        "train_loss": pd.DataFrame({"train_loss": [4.0, 2.0, 1.0, 0.5]}, index=epochs),
        "prototype_loss": pd.DataFrame({"prototype_loss": [np.nan, np.nan, 3.0, 1.0]}, index=epochs),
        "n_prototypes": pd.DataFrame({"n_prototypes": [5.0, 5.0, 4.0, 4.0]}, index=epochs),
    }


@pytest.mark.parametrize("wrap", [lambda record: record, lambda record: SimpleNamespace(history=record)])
def test_losses_are_drawn_against_the_epoch(record, wrap):
    ax = pl.history(wrap(record), show=False)
    lines = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert list(lines) == ["train_loss", "prototype_loss"]
    np.testing.assert_array_equal(lines["train_loss"], [[0, 4], [1, 2], [2, 1], [3, 0.5]])
    np.testing.assert_array_equal(lines["prototype_loss"], [[2, 3], [3, 1]])
    assert ax.get_xlabel() == "epoch"
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(lines)


def test_chosen_keys_on_given_axes(record):
    _, ax = plt.subplots()
    figure = pl.history(record, keys=["n_prototypes"], ax=ax, return_fig=True)
    assert figure is ax.get_figure()
    assert [line.get_label() for line in ax.lines] == ["n_prototypes"]
    assert ax.get_ylabel() == "n prototypes"


def test_all_are_drawn_if_none_is_a_loss(record):
    series = {"n_prototypes": record["n_prototypes"]["n_prototypes"]}
    assert [line.get_label() for line in pl.history(series, show=False).lines] == ["n_prototypes"]


def test_errors(record):
    with pytest.raises(KeyError, match="`keys`: key 'train_los' not found.*Did you mean 'train_loss'"):
        pl.history(record, keys=["train_los"])
    for untrained in (SimpleNamespace(history={}), SimpleNamespace()):
        with pytest.raises(ValueError, match=r"Call `model\.train\(\)` first"):
            pl.history(untrained)
