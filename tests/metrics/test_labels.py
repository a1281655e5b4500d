from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from stomics_tools.metrics import score_labels

TRUE = ["a", "a", "a", "b", "b", "b", "c", "c"]
PREDICTED = [0, 0, 1, 1, 1, 1, 2, 0]


def test_by_hand():
    """ARI and FMI by counting pairs, NMI and V from the entropies."""
    scores = score_labels(TRUE, PREDICTED)
    t = np.unique(TRUE, return_inverse=True)[1]
    p = np.asarray(PREDICTED)
    i, j = np.triu_indices(len(t), 1)
    same_t, same_p = t[i] == t[j], p[i] == p[j]
    both, n = (same_t & same_p).sum(), len(i)
    expected = same_t.sum() * same_p.sum() / n
    assert scores["ari"] == pytest.approx((both - expected) / ((same_t.sum() + same_p.sum()) / 2 - expected))
    assert scores["fmi"] == pytest.approx(both / np.sqrt(same_t.sum() * same_p.sum()))

    joint = pd.crosstab(t, p).to_numpy() / len(t)
    entropy = lambda q: -sum(v * np.log(v) for v in np.ravel(q) if v > 0)
    h_t, h_p, h = entropy(joint.sum(1)), entropy(joint.sum(0)), entropy(joint)
    mutual = h_t + h_p - h
    assert scores["nmi"] == pytest.approx(2 * mutual / (h_t + h_p))
    assert scores["v_measure"] == pytest.approx(scores["nmi"])
    assert scores["homogeneity"] == pytest.approx(mutual / h_t)
    assert scores["completeness"] == pytest.approx(mutual / h_p)
    assert scores["ami"] < scores["nmi"]


@pytest.mark.parametrize(
    "missing",
    [
        pd.Series(["a", None, *TRUE[2:]], index=list("stuvwxyz")),
        pd.Categorical(["a", np.nan, *TRUE[2:]], categories=["unused", "c", "b", "a"]),
        np.array(["a", np.nan, *TRUE[2:]], dtype=object),
        ["a", "undetermined", *TRUE[2:]],
    ],
    ids=["series", "categorical", "objects", "ignored"],
)
def test_unlabelled_spots_are_left_out_of_both(missing):
    kept = [0, *range(2, 8)]
    expected = adjusted_rand_score([TRUE[k] for k in kept], [PREDICTED[k] for k in kept])
    assert expected != pytest.approx(adjusted_rand_score(TRUE, PREDICTED))
    assert score_labels(missing, PREDICTED, ignore=["undetermined"])["ari"] == pytest.approx(expected)
    assert score_labels(TRUE, [0, np.nan, *PREDICTED[2:]])["ari"] == pytest.approx(expected)


def test_names_of_labels_do_not_matter():
    assert all(v == pytest.approx(1) for v in score_labels(TRUE, [{"a": 5, "b": 2, "c": 9}[t] for t in TRUE]).values())


def test_errors():
    with pytest.raises(ValueError, match="`true` has 8 labels, `predicted` has 7"):
        score_labels(TRUE, PREDICTED[:-1])
    with pytest.raises(ValueError, match="no spot in common"):
        score_labels([None, "a"], [1, np.nan])
