"""Whether one method is better than another on the same sections or folds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stomics_tools._by_name import align_rows
from stomics_tools.metrics._matrices import check_per_spot

_EXACT = 20


class PairedTest(NamedTuple):
    """Result of :func:`paired_test`."""

    difference: float
    """Mean of `a` less `b`."""
    p_value: float
    """Two-sided."""
    n_pairs: int
    n_higher: int
    """Pairs in which `a` is higher than `b`."""


def paired_test(a: Any, b: Any, *, groups: Any = None, n_flips: int = 100_000, seed: int = 0) -> PairedTest:
    """Sign-flip permutation test of two methods over pairs of scores.

    If the methods were equal, each difference could as well have the other sign. The p-value is the share of all
    :math:`2^n` choices of signs under which the mean difference is at least as far from 0 as the one that was seen.
    With n pairs it cannot be below :math:`2^{1-n}`: 0.125 for 4, 0.03 for 6. Pairs must be independent of each other:
    average over seeds first, and name the patients of sections as `groups`. Sections of one patient share the patient,
    and where patients are left out the training set as well.

    Parameters
    ----------
    a, b
        Scores of the two methods ``(n_pairs,)``, in the same order of sections or folds. Series are joined by name.
    groups
        What pairs share that makes them dependent ``(n_pairs,)``, such as the patient of each section. The differences of
        a group are averaged, and the groups are the pairs of the test. Default: every pair by itself.
    n_flips
        Random choices of signs, where there are more than 20 pairs and not all can be tried.
    seed
        Of these choices.

    Returns
    -------
    ``difference`` (mean of ``a - b``), ``p_value``, ``n_pairs`` and ``n_higher``; with `groups` over the groups.

    Raises
    ------
    ValueError
        If lengths or names differ, there are no pairs, or scores or groups are missing.
    """
    a, b, groups = align_rows({"a": a, "b": b, "groups": groups})
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"`a` and `b` must be pairs of scores, found shapes {first.shape} and {second.shape}.")
    d = first - second
    if not np.isfinite(d).all():
        raise ValueError(f"`a` and `b`: {int((~np.isfinite(d)).sum())} pairs have a missing score.")
    if groups is not None:
        names = check_per_spot(groups, len(d), argument="groups", what="pairs")
        d = np.array([d[names == name].mean() for name in pd.unique(names)])
    seen = abs(d.sum())
    enough = seen - 1e-9 * np.abs(d).sum()  # equal sums may differ in their last digits
    if len(d) <= _EXACT:
        half = len(d) // 2
        sums = np.add.outer(_signed_sums(d[:half]), _signed_sums(d[half:]))
        p_value = float((np.abs(sums) >= enough).mean())
    else:
        rng = np.random.default_rng(seed)
        blocks = [min(10_000, n_flips - start) for start in range(0, n_flips, 10_000)]
        hits = sum(int((np.abs(rng.choice((-1.0, 1.0), (n, len(d))) @ d) >= enough).sum()) for n in blocks)
        p_value = (1 + hits) / (1 + n_flips)
    return PairedTest(float(d.mean()), p_value, len(d), int((d > 0).sum()))


def _signed_sums(values: np.ndarray) -> np.ndarray:
    """Sums under all choices of signs ``(2**n,)``."""
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    return sums
