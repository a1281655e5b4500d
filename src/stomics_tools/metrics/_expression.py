"""All scores of predicted expression at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stomics_tools._by_name import align_columns, align_rows
from stomics_tools.metrics._correlation import depth_out, pearson_per_gene, spearman_per_gene
from stomics_tools.metrics._errors import (
    gene_correlation_error,
    mean_absolute_error,
    mean_squared_error,
    r2_against,
    r2_per_gene,
    relative_variance_difference,
)
from stomics_tools.metrics._matrices import check_pair, check_per_gene, check_samples, mean_of_defined
from stomics_tools.metrics._probabilistic import crps_samples


def score_expression(
    truth: Any,
    prediction: Any,
    *,
    train_mean: Any,
    sections: Any = None,
    log_depth: Any = None,
    gene_rank: Any = None,
    top: Sequence[int] = (10, 50, 200),
) -> dict[str, float]:
    """Score a point prediction of expression.

    Parameters
    ----------
    truth
        True expression of the test spots ``(n_obs, n_genes)``; NaN where a gene was not measured.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite, in the same units.
    train_mean
        Mean of each gene over the training spots ``(n_genes,)``.
    sections
        Section of each spot ``(n_obs,)``, for the scores within sections.
    log_depth
        Log of the total counts of each spot over all genes ``(n_obs,)``, for the scores without depth.
    gene_rank
        Indices of the genes ``(n_genes,)``, the one that should be predicted best first, ranked on training data.
    top
        Numbers of genes for ``pcc_<k>``; those above the number of genes are left out.

    Returns
    -------
    ``pcc``, ``spearman``
        Mean over the genes of the correlation over all spots.
    ``pcc_section``
        Mean of :func:`pearson_per_gene` within sections; only with `sections`.
    ``pcc_<k>``
        Mean of the first k genes of `gene_rank`; only with it.
    ``pcc_<k>_oracle``
        Mean of the k genes that are predicted best on these very spots: an optimistic number, here for comparison
        with tables that report it.
    ``<any of these>_depth_out``
        The same after :func:`depth_out` of truth and prediction (by section for ``pcc_section``); only with
        `log_depth`. The oracle chooses anew.
    ``mse``, ``mae``, ``r2``, ``r2_gene_median``, ``rvd``, ``gene_correlation_error``
        As :func:`mean_squared_error`, :func:`mean_absolute_error`, :func:`r2_against`, the median of
        :func:`r2_per_gene`, :func:`relative_variance_difference` and :func:`gene_correlation_error`.
    ``n_obs``, ``n_genes``, ``n_genes_undefined``
        Spots, genes, and genes without a correlation, since their truth does not vary: they are not in the means.

    Raises
    ------
    ValueError
        If shapes or names do not fit or the prediction is not finite.
    """
    truth, prediction, sections, log_depth = align_rows(
        {"truth": truth, "prediction": prediction, "sections": sections, "log_depth": log_depth}
    )
    _, train_mean = align_columns({"truth": truth, "train_mean": train_mean})
    true, predicted = check_pair(truth, prediction)
    mean = check_per_gene(train_mean, true.shape[1], argument="train_mean")
    rank = None if gene_rank is None else _check_rank(gene_rank, true.shape[1])
    sizes = [k for k in top if k <= true.shape[1]]

    pooled = pearson_per_gene(true, predicted)
    scores = _over_genes(pooled, true, predicted, rank, sizes)
    if sections is not None:
        scores["pcc_section"] = _mean(pearson_per_gene(true, predicted, sections=sections))
    if log_depth is not None:
        left = _without_depth(true, predicted, log_depth, None)
        without = _over_genes(pearson_per_gene(*left), *left, rank, sizes)
        if sections is not None:
            left = _without_depth(true, predicted, log_depth, sections)
            without["pcc_section"] = _mean(pearson_per_gene(*left, sections=sections))
        scores = {
            key: value for name in scores for key, value in ((name, scores[name]), (f"{name}_depth_out", without[name]))
        }
    return scores | {
        "mse": mean_squared_error(true, predicted),
        "mae": mean_absolute_error(true, predicted),
        "r2": r2_against(true, predicted, mean),
        "r2_gene_median": _median(r2_per_gene(true, predicted, mean)),
        "rvd": relative_variance_difference(true, predicted),
        "gene_correlation_error": gene_correlation_error(true, predicted),
        "n_obs": float(len(true)),
        "n_genes": float(true.shape[1]),
        "n_genes_undefined": float(np.isnan(pooled).sum()),
    }


def score_samples(truth: Any, samples: Any) -> dict[str, float]:
    """Score samples of expression, each as it is and all as a distribution.

    Parameters
    ----------
    truth
        True expression of the test spots ``(n_obs, n_genes)``; NaN where a gene was not measured.
    samples
        ``(n_samples, n_obs, n_genes)``, finite, at least two.

    Returns
    -------
    ``crps``
        Mean of :func:`crps_samples`.
    ``pcc_sample``, ``rvd_sample``, ``gene_correlation_error_sample``
        The scores of single samples, averaged over them. A sample of a perfect model is correlated less than its mean.

    Raises
    ------
    ValueError
        If shapes do not fit, or samples are too few or not finite.
    """
    true, drawn = check_samples(truth, samples, minimum=2)
    return {
        "crps": _mean(crps_samples(true, drawn)),
        "pcc_sample": _mean(np.array([_mean(pearson_per_gene(true, sample)) for sample in drawn])),
        "rvd_sample": _mean(np.array([relative_variance_difference(true, sample) for sample in drawn])),
        "gene_correlation_error_sample": _mean(np.array([gene_correlation_error(true, sample) for sample in drawn])),
    }


def _over_genes(
    pearson: np.ndarray, true: np.ndarray, predicted: np.ndarray, rank: np.ndarray | None, sizes: Sequence[int]
) -> dict[str, float]:
    scores = {"pcc": _mean(pearson), "spearman": _mean(spearman_per_gene(true, predicted))}
    if rank is not None:
        scores |= {f"pcc_{k}": _mean(pearson[rank[:k]]) for k in sizes}
    best = np.sort(pearson[~np.isnan(pearson)])[::-1]
    return scores | {f"pcc_{k}_oracle": _mean(best[:k]) for k in sizes}


def _without_depth(
    true: np.ndarray, predicted: np.ndarray, log_depth: Any, sections: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Both without depth, fitted on the spots where the gene was measured; elsewhere the prediction is 0."""
    masked = np.where(np.isnan(true), np.nan, predicted)
    return depth_out(true, log_depth, sections=sections), np.nan_to_num(depth_out(masked, log_depth, sections=sections))


def _mean(values: np.ndarray) -> float:
    return float(mean_of_defined(values))


def _median(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) if len(defined) else float("nan")


def _check_rank(gene_rank: Any, n_genes: int) -> np.ndarray:
    rank = np.asarray(gene_rank)
    if rank.shape != (n_genes,) or (np.sort(rank) != np.arange(n_genes)).any():
        raise ValueError(f"`gene_rank` must hold each index from 0 to {n_genes - 1} once, the best gene first.")
    return rank
