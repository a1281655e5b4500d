"""A linear classifier on a frozen representation, blocks of tissue held out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score

from stomics_tools.metrics import _probe, linear_probe, spatial_blocks


@pytest.fixture
def tissue() -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of 900 spots, and stripes of three labels."""
    xy = np.stack(np.unravel_index(np.arange(900), (30, 30)), 1).astype(float)
    return xy, np.array(["a", "b", "c"])[(xy[:, 0] // 5).astype(int) % 3]


def test_blocks_are_compact_and_within_slices(tissue: tuple) -> None:
    xy, _ = tissue
    batch = np.where(xy[:, 1] < 10, "x", "y")
    blocks = spatial_blocks(xy, 12, batch=batch)
    assert sorted(np.unique(blocks)) == list(range(12))
    assert [len(np.unique(blocks[batch == name])) for name in ("x", "y")] == [4, 8]
    assert not set(blocks[batch == "x"]) & set(blocks[batch == "y"])
    widths = [cdist(xy[blocks == b], xy[blocks == b]).max() for b in range(12)]
    assert max(widths) < 20
    np.testing.assert_array_equal(blocks, spatial_blocks(xy, 12, batch=batch))


def test_labels_in_the_representation_are_found(tissue: tuple) -> None:
    xy, labels = tissue
    onehot = (labels[:, None] == np.unique(labels)).astype(float)
    noise = np.random.default_rng(0).normal(size=(900, 3))
    found = linear_probe(onehot, labels, xy)
    assert found == {"macro_f1": 1.0, "accuracy": 1.0, "balanced_accuracy": 1.0, "n_obs": 900.0}
    assert linear_probe(noise, labels, xy)["accuracy"] < 0.45
    assert 0.45 < linear_probe(onehot + noise, labels, xy)["macro_f1"] < 0.95


def test_a_map_of_the_tissue_is_no_help(tissue: tuple) -> None:
    """Position tells the label of a spot between training spots, and not that of a block held out."""
    xy, _ = tissue
    labels = np.random.default_rng(0).integers(3, size=(6, 6))[(xy[:, 0] // 5).astype(int), (xy[:, 1] // 5).astype(int)]
    bumps = np.exp(-(cdist(xy, xy[::7]) ** 2) / 8)
    order = np.random.default_rng(1).permutation(900)
    train, test = order[:720], order[720:]
    from sklearn.linear_model import LogisticRegression

    at_random = LogisticRegression(max_iter=1000).fit(bumps[train], labels[train]).score(bumps[test], labels[test])
    assert at_random > 0.8
    assert linear_probe(bumps, labels, xy, n_blocks=36)["accuracy"] < 0.6


def test_predictions_of_all_folds_together(tissue: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a classifier that is known, the scores are those of scikit-learn on all spots."""

    class Threshold:
        def fit(self, x: np.ndarray, y: np.ndarray) -> Threshold:
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            return (x[:, 0] > 0.5).astype(int)

    xy, labels = tissue
    x = np.random.default_rng(0).uniform(size=(900, 1))
    monkeypatch.setattr(_probe, "make_pipeline", lambda *steps: Threshold())
    expected = f1_score(np.unique(labels, return_inverse=True)[1], (x[:, 0] > 0.5).astype(int), average="macro")
    assert linear_probe(x, labels, xy)["macro_f1"] == pytest.approx(expected)


def test_training_spots_keep_off_those_held_out(tissue: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    xy, labels = tissue
    seen = []

    class Recorder(_probe.LogisticRegression):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Recorder:
            seen.append([x])
            return super().fit(x, y)

        def predict(self, x: np.ndarray) -> np.ndarray:
            seen[-1].append(x)
            return super().predict(x)

    monkeypatch.setattr(_probe, "StandardScaler", lambda: "passthrough")
    monkeypatch.setattr(_probe, "LogisticRegression", Recorder)
    linear_probe(xy, labels, xy, margin=2.5)
    assert len(seen) == 5
    for train, test in seen:
        assert 2.5 < cdist(train, test).min() <= 4
    assert sum(len(test) for _, test in seen) == 900


def test_spots_without_a_label_are_left_out(tissue: tuple) -> None:
    xy, labels = tissue
    some = labels.astype(object)
    some[::3] = None
    assert linear_probe(xy, some, xy)["n_obs"] == 600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"representation": np.ones((5, 2))}, "a row each for every spot"),
        ({"representation": np.full((900, 2), np.nan)}, "`representation`.*NaN"),
        ({"labels": np.zeros(900)}, "at least two"),
        ({"n_folds": 1}, "n_folds"),
        ({"n_blocks": 3}, "3 blocks for 5 folds"),
        ({"margin": -1.0}, "margin"),
        ({"margin": 100.0}, "lower `margin`"),
        ({"coordinates": np.zeros((900, 2))}, "same coordinates"),
    ],
)
def test_bad_input(tissue: tuple, change: dict, message: str) -> None:
    xy, labels = tissue
    with pytest.raises(ValueError, match=message):
        linear_probe(**{"representation": xy, "labels": labels, "coordinates": xy, **change})
