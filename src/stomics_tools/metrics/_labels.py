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

from stomics_tools._by_name import align_rows


def score_labels(true: Any, predicted: Any, *, ignore: Any = ()) -> dict[str, float]:
    """How well predicted labels agree with true ones, by the scores in use for spatial domains.

    Parameters
    ----------
    true
        True labels ``(n_obs,)`` of any type. Spots without one (NaN, ``None`` or ``pandas.NA``) are left out.
    predicted
        Predicted labels ``(n_obs,)``. Spots without one are left out as well. Two Series are joined by the names of their
        spots; arrays are compared by position.
    ignore
        True label, or labels, that mean "unlabelled", such as ``"undetermined"``: their spots are left out.

    Returns
    -------
    ``ari`` (adjusted Rand index), ``nmi`` and ``ami`` (normalised and adjusted mutual information, arithmetic mean of
    the entropies), ``fmi`` (Fowlkes-Mallows index), ``homogeneity``, ``completeness`` and ``v_measure`` (equal to
    ``nmi`` by definition). 1 is perfect for all.

    Raises
    ------
    ValueError
        If lengths or names of the spots differ, labels have two dimensions, or no spot is left.
    """
    true, predicted = align_rows({"true": true, "predicted": predicted})
    true_codes = label_codes(true, ignore=ignore, argument="true")
    predicted_codes = label_codes(predicted, argument="predicted")
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


def label_codes(labels: Any, *, ignore: Any = (), argument: str = "labels") -> np.ndarray:
    """Integer codes ``(n_obs,)`` of labels of any type; -1 for missing ones and for those in `ignore`.

    A single column ``(n_obs, 1)`` is taken as well; ``ValueError`` for any other shape.
    """
    if hasattr(labels, "obs_names"):
        raise TypeError(f"`{argument}` must be labels, found {type(labels).__name__}. Give a column, `adata.obs[...]`.")
    shape: tuple[int, ...] = (
        np.shape(labels) if hasattr(labels, "shape") or hasattr(labels, "__array__") else (len(labels),)
    )
    if len(shape) == 2 and shape[1] == 1:
        labels = labels.iloc[:, 0] if isinstance(labels, pd.DataFrame) else np.asarray(labels)[:, 0]
    elif len(shape) != 1 or isinstance(labels, str):
        raise ValueError(f"`{argument}` must hold one label for each spot, shape (n_obs,), found shape {shape}.")
    if type(labels).__module__.split(".")[0] == "torch":
        labels = np.asarray(labels)
    column = labels if isinstance(labels, pd.Series) else pd.Series(labels)
    alone = isinstance(ignore, str | bytes) or not isinstance(ignore, Iterable)
    return pd.factorize(column.mask(column.isin([ignore] if alone else list(ignore))))[0]
