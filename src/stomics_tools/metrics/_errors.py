"""Errors of predicted expression in its own units, and of its variances and gene-gene correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from stomics_tools._by_name import align_columns
from stomics_tools.metrics._matrices import check_pair, check_per_gene, mean_of_defined


def mean_squared_error(truth: Any, prediction: Any) -> float:
    """Mean squared error over all measured values.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.

    Returns
    -------
    The error, in squared units of the expression; NaN if nothing was measured.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    true, predicted = check_pair(truth, prediction)
    return float(mean_of_defined((true - predicted) ** 2))


def mean_absolute_error(truth: Any, prediction: Any) -> float:
    """Mean absolute error over all measured values.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.

    Returns
    -------
    The error, in units of the expression; NaN if nothing was measured.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    true, predicted = check_pair(truth, prediction)
    return float(mean_of_defined(np.abs(true - predicted)))


def rmse_per_gene(truth: Any, prediction: Any) -> np.ndarray:
    """Root mean squared error of each gene over the spots where it was measured.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.

    Returns
    -------
    ``(n_genes,)``, in units of the expression; NaN for a gene that was not measured.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    true, predicted = check_pair(truth, prediction)
    return np.sqrt(mean_of_defined((true - predicted) ** 2, axis=0))


def r2_against(truth: Any, prediction: Any, train_mean: Any) -> float:
    r"""Share of the squared error of the training mean that a prediction takes away, over all genes together.

    :math:`1 - \sum (y - \hat y)^2 / \sum (y - m)^2` with the training mean :math:`m_g` of each gene. Unlike the usual
    R2 it knows nothing of the test spots, so that a shift of a patient counts for those who predict it.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.
    train_mean
        Mean of each gene over the training spots ``(n_genes,)``.

    Returns
    -------
    1 for a perfect prediction, 0 for the training mean itself; NaN if the training mean has no error.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    left, all_of_it = _squared_errors(truth, prediction, train_mean)
    return float(1 - left.sum() / all_of_it.sum()) if all_of_it.sum() else float("nan")


def r2_per_gene(truth: Any, prediction: Any, train_mean: Any) -> np.ndarray:
    """The share of :func:`r2_against`, of each gene by itself.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite.
    train_mean
        Mean of each gene over the training spots ``(n_genes,)``.

    Returns
    -------
    ``(n_genes,)``; NaN for a gene of which the training mean has no error.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    left, all_of_it = _squared_errors(truth, prediction, train_mean)
    share = np.divide(left, all_of_it, out=np.full_like(left, np.nan), where=all_of_it > 0)
    return 1 - share


def relative_variance_difference(truth: Any, prediction: Any) -> float:
    r"""RVD: mean over the genes of :math:`((Var(\hat y_g) - Var(y_g)) / Var(y_g))^2`.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite: a mean, or a single sample.

    Returns
    -------
    0 if every gene varies as much as it should, 1 for a constant. Genes whose truth does not vary are left out.

    Notes
    -----
    A conditional mean varies less than what it predicts, by right: compare samples by this score.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    true, predicted = check_pair(truth, prediction)
    predicted = np.where(np.isnan(true), np.nan, predicted)
    variance = [
        mean_of_defined((values - mean_of_defined(values, axis=0)) ** 2, axis=0) for values in (true, predicted)
    ]
    varies = np.nan_to_num(variance[0]) > 0
    return float(mean_of_defined((variance[1][varies] / variance[0][varies] - 1) ** 2))


def gene_correlation_error(truth: Any, prediction: Any) -> float:
    r"""How far the gene-gene correlations of a prediction are from the true ones.

    :math:`\|\hat C - C\|_F / \|C\|_F`, both without their diagonals, of the Pearson correlations of all pairs of genes
    over the spots where both were measured. O(n_obs x n_genes^2) time, O(n_genes^2) memory.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite: a mean, or a single sample.

    Returns
    -------
    0 if all correlations are right, 1 for a prediction without any (or a constant). Genes whose truth does not vary
    are left out; NaN if fewer than two are left.

    Raises
    ------
    ValueError
        If shapes or names differ or the prediction is not finite.
    """
    true, predicted = check_pair(truth, prediction)
    measured = ~np.isnan(true)
    c_true, c_predicted = _correlations(true, measured), _correlations(predicted, measured)
    varies = np.diag(c_true) > 0
    keep = np.outer(varies, varies) & ~np.eye(len(varies), dtype=bool)
    size = np.linalg.norm(c_true[keep])
    return float(np.linalg.norm((c_predicted - c_true)[keep]) / size) if size else float("nan")


def _squared_errors(truth: Any, prediction: Any, train_mean: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the measured spots, of the prediction and of the training mean, ``(n_genes,)`` each."""
    _, train_mean = align_columns({"truth": truth, "train_mean": train_mean})
    true, predicted = check_pair(truth, prediction)
    mean = check_per_gene(train_mean, true.shape[1], argument="train_mean")
    left, right = np.nansum((true - predicted) ** 2, axis=0), np.nansum((true - mean) ** 2, axis=0)
    return left, right


def _correlations(values: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Pearson correlations over the spots where both genes were measured; 0 where one of them does not vary."""
    m = measured.astype(np.float64)
    x = np.where(measured, values, 0.0)
    x = (x - x.sum(axis=0) / np.maximum(m.sum(axis=0), 1)) * m
    n = np.maximum(m.T @ m, 1)
    sums, squares = x.T @ m, (x**2).T @ m  # of the gene of the row, over the spots that it shares with the column's
    covariance = x.T @ x - sums * sums.T / n
    variance = squares - sums**2 / n
    variance[variance <= 1e-12 * squares] = 0.0
    scale = np.sqrt(variance * variance.T)
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
