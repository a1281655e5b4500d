"""How labels lie in a representation."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import silhouette_score

from stomics_tools._by_name import align_rows
from stomics_tools.metrics._labels import label_codes


def silhouette(embedding: Any, labels: Any, *, max_obs: int = 10_000, seed: int = 0) -> float:
    """Mean silhouette width of labels in a representation, by Euclidean distance.

    Parameters
    ----------
    embedding
        ``(n_obs, n_features)``.
    labels
        ``(n_obs,)`` of any type, joined by name where both have names; unlabelled spots (NaN or ``None``) are left out.
    max_obs
        Of more labelled spots than this as many are drawn at random, as the cost grows with their square.
    seed
        Of that draw.

    Returns
    -------
    From -1 to 1; NaN if there are fewer than two labels or no two spots of one label.
    """
    embedding, labels = align_rows({"embedding": embedding, "labels": labels})
    x, codes = np.asarray(embedding), label_codes(labels)
    if len(x) != len(codes):
        raise ValueError(f"`embedding` has {len(x)} rows, but there are {len(codes)} `labels`.")
    kept = np.flatnonzero(codes >= 0)
    if len(kept) > max_obs:
        kept = np.sort(np.random.default_rng(seed).choice(kept, max_obs, replace=False))
    if not 2 <= len(np.unique(codes[kept])) < len(kept):
        return float("nan")
    return float(silhouette_score(x[kept], codes[kept]))
