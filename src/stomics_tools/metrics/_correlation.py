"""Correlation of true and predicted expression, gene by gene, with sequencing depth and without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import rankdata

from stomics_tools._by_name import align_rows
from stomics_tools.metrics._matrices import check_pair, check_per_spot, check_truth, mean_of_defined

_DEGREE = 3
_ROUNDING = 1e-9


def pearson_per_gene(truth: Any, prediction: Any, *, sections: Any = None) -> np.ndarray:
    """Pearson correlation of each gene over the spots.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``. NaN: the gene was not measured in that spot, which then does not count.
        Spots and genes of DataFrames are joined by name; arrays go by position. So it is in all scores of expression.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.
    sections
        Section or slide of each spot ``(n_obs,)``. If given, a gene is correlated within each section, and the
        sections in which it varies are averaged with equal weight. Default: all spots pooled.

    Returns
    -------
    ``(n_genes,)``. NaN for a gene whose truth does not vary. 0 for a constant prediction of a gene that does vary: it
    tells nothing of the gene, and leaving it out of a mean would reward it.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    truth, prediction, sections = align_rows({"truth": truth, "prediction": prediction, "sections": sections})
    true, predicted = check_pair(truth, prediction)
    return _by_section(_pearson, true, predicted, sections)


def spearman_per_gene(truth: Any, prediction: Any, *, sections: Any = None) -> np.ndarray:
    """Spearman correlation of each gene over the spots: :func:`pearson_per_gene` of the ranks, ties having their mean.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.
    sections
        Section of each spot ``(n_obs,)``, to correlate within each and average. Default: all spots pooled.

    Returns
    -------
    ``(n_genes,)``; NaN and 0 as there.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    truth, prediction, sections = align_rows({"truth": truth, "prediction": prediction, "sections": sections})
    true, predicted = check_pair(truth, prediction)
    return _by_section(_spearman, true, predicted, sections)


def depth_out(values: Any, log_depth: Any, *, sections: Any = None) -> np.ndarray:
    r"""What is left of expression when a cubic in log-depth is taken out of each gene.

    :math:`r_g = y_g - \sum_{k=0}^{3} b_{gk} z^k` with the coefficients of least squares over the spots where the gene
    was measured, :math:`z` being the log-depth scaled to mean 0 and variance 1. Taken out of truth and prediction
    alike, it leaves a correlation that sequencing depth cannot explain: an image may well show how much RNA a spot
    gives, and normalised counts still depend on it.

    Parameters
    ----------
    values
        Expression ``(n_obs, n_genes)``, true or predicted; NaN where not measured.
    log_depth
        Logarithm of the total counts of each spot over all genes ``(n_obs,)``.
    sections
        Section of each spot ``(n_obs,)``: one cubic for each. Default: one for all spots.

    Returns
    -------
    Residuals ``(n_obs, n_genes)``, NaN where `values` are; exactly 0 for a gene of which nothing but rounding is left.

    Raises
    ------
    ValueError
        If lengths differ or depths are not finite.
    """
    values, log_depth, sections = align_rows({"values": values, "log_depth": log_depth, "sections": sections})
    values = check_truth(values, argument="values")
    depth = check_per_spot(log_depth, len(values), argument="log_depth").astype(np.float64)
    if not np.isfinite(depth).all():
        raise ValueError("`log_depth` must be finite. Drop spots without counts first.")
    if sections is None:
        return _residuals(values, depth)
    sections = check_per_spot(sections, len(values), argument="sections")
    out = np.empty_like(values)
    for name in np.unique(sections):
        inside = sections == name
        out[inside] = _residuals(values[inside], depth[inside])
    return out


def _by_section(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray], true: np.ndarray, predicted: np.ndarray, sections: Any
) -> np.ndarray:
    if sections is None:
        return score(true, predicted)
    sections = check_per_spot(sections, len(true), argument="sections")
    scores = [score(true[sections == name], predicted[sections == name]) for name in np.unique(sections)]
    return mean_of_defined(np.stack(scores), axis=0)


def _pearson(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    measured = ~np.isnan(true)
    t, p = centred_genes(true, measured), centred_genes(predicted, measured)
    t_varies, p_varies = t.any(axis=0), p.any(axis=0)
    scale = np.sqrt((t**2).sum(axis=0)) * np.sqrt((p**2).sum(axis=0))
    r = np.divide((t * p).sum(axis=0), scale, out=np.zeros(true.shape[1]), where=t_varies & p_varies & (scale > 0))
    return np.where(t_varies, np.clip(r, -1, 1), np.nan)


def _spearman(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    masked = np.where(np.isnan(true), np.nan, predicted)
    return _pearson(*(rankdata(values, axis=0, nan_policy="omit") for values in (true, masked)))


def centred_genes(values: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Deviations from the mean of the measured spots, 0 elsewhere; exactly 0 for a constant gene."""
    filled = np.where(measured, values, 0.0)
    deviations = np.where(measured, filled - filled.sum(axis=0) / np.maximum(measured.sum(axis=0), 1), 0.0)
    largest = np.abs(filled).max(axis=0, initial=0.0)
    return np.where(np.abs(deviations).max(axis=0, initial=0.0) > _ROUNDING * largest, deviations, 0.0)


def _residuals(values: np.ndarray, depth: np.ndarray) -> np.ndarray:
    out = np.full_like(values, np.nan)
    # Genes measured in the same spots share one least-squares problem.
    patterns, which = np.unique(~np.isnan(values), axis=1, return_inverse=True)
    for i, measured in enumerate(patterns.T):
        genes = np.flatnonzero(which.ravel() == i)
        if not measured.any():
            continue
        z = depth[measured] - depth[measured].mean()
        basis = np.vander(z / (z.std() or 1.0), _DEGREE + 1)
        y = values[np.ix_(measured, genes)]
        left = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
        left[:, np.abs(left).max(axis=0) <= _ROUNDING * np.abs(y).max(axis=0)] = 0.0
        out[np.ix_(measured, genes)] = left
    return out
