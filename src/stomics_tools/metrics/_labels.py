"""Agreement of two labellings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    fowlkes_mallows_score,
    homogeneity_completeness_v_measure,
    normalized_mutual_info_score,
)


def score_labels(true: Any, predicted: Any, *, ignore: Iterable[Any] = ()) -> dict[str, float]:
    """How well predicted labels agree with true ones, by the scores in use for spatial domains.

    Parameters
    ----------
    true
        True labels ``(n_obs,)`` of any type. Spots without one (NaN or ``None``) are left out.
    predicted
        Predicted labels ``(n_obs,)``. Spots without one are left out as well.
    ignore
        True labels that mean "unlabelled", such as ``"undetermined"``: their spots are left out.

    Returns
    -------
    ``ari`` (adjusted Rand index), ``nmi`` and ``ami`` (normalised and adjusted mutual information, arithmetic mean of
    the entropies), ``fmi`` (Fowlkes-Mallows index), ``homogeneity``, ``completeness`` and ``v_measure`` (equal to
    ``nmi`` by definition). 1 is perfect for all.

    Raises
    ------
    ValueError
        If the lengths differ or no spot is left.
    """
    true_codes, predicted_codes = label_codes(true, ignore=ignore), label_codes(predicted)
    if len(true_codes) != len(predicted_codes):
        raise ValueError(f"`true` has {len(true_codes)} labels, `predicted` has {len(predicted_codes)}.")
    kept = (true_codes >= 0) & (predicted_codes >= 0)
    if not kept.any():
        raise ValueError("`true` and `predicted` have no spot in common that is labelled in both.")
    pair = true_codes[kept], predicted_codes[kept]
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(*pair)
    scores = {
        "ari": adjusted_rand_score(*pair),
        "nmi": normalized_mutual_info_score(*pair),
        "ami": adjusted_mutual_info_score(*pair),
        "fmi": fowlkes_mallows_score(*pair),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v_measure,
    }
    return {name: float(value) for name, value in scores.items()}


def label_codes(labels: Any, *, ignore: Iterable[Any] = ()) -> np.ndarray:
    """Integer codes ``(n_obs,)`` of labels of any type; -1 for missing ones and for those in `ignore`."""
    column = pd.Series(labels)
    return pd.factorize(column.mask(column.isin(list(ignore))))[0]
