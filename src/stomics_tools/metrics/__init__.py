"""Scores of spatial domains and of predicted expression: arrays in, numbers out."""

from __future__ import annotations

from stomics_tools.metrics._correlation import depth_out, pearson_per_gene, spearman_per_gene
from stomics_tools.metrics._domains import score_domains
from stomics_tools.metrics._embedding import silhouette
from stomics_tools.metrics._errors import (
    gene_correlation_error,
    mean_absolute_error,
    mean_squared_error,
    r2_against,
    r2_per_gene,
    relative_variance_difference,
)
from stomics_tools.metrics._expression import score_expression, score_samples
from stomics_tools.metrics._graph import local_purity, morans_i_labels
from stomics_tools.metrics._labels import score_labels
from stomics_tools.metrics._noise_ceiling import noise_ceiling
from stomics_tools.metrics._paired import paired_test
from stomics_tools.metrics._probabilistic import crps_gaussian, crps_samples, interval_coverage, interval_width

__all__ = [
    "crps_gaussian",
    "crps_samples",
    "depth_out",
    "gene_correlation_error",
    "interval_coverage",
    "interval_width",
    "local_purity",
    "mean_absolute_error",
    "mean_squared_error",
    "morans_i_labels",
    "noise_ceiling",
    "paired_test",
    "pearson_per_gene",
    "r2_against",
    "r2_per_gene",
    "relative_variance_difference",
    "score_domains",
    "score_expression",
    "score_labels",
    "score_samples",
    "silhouette",
    "spearman_per_gene",
]
