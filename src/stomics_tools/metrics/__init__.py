"""Scores of spatial domains, predicted expression and predicted positions: arrays in, numbers out."""

from __future__ import annotations

from typing import Any

from stomics_tools._namespace import missing_attribute
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
    rmse_per_gene,
)
from stomics_tools.metrics._expression import score_expression, score_samples
from stomics_tools.metrics._graph import local_purity, morans_i_labels
from stomics_tools.metrics._labels import score_labels
from stomics_tools.metrics._layout import distance_spearman, gyration_ratio, sliced_wasserstein
from stomics_tools.metrics._moran import morans_i_error
from stomics_tools.metrics._neighborhoods import (
    continuity,
    neighbor_overlap,
    neighborhood_composition,
    trustworthiness,
)
from stomics_tools.metrics._noise_ceiling import noise_ceiling
from stomics_tools.metrics._paired import paired_test
from stomics_tools.metrics._position_scores import score_positions
from stomics_tools.metrics._probabilistic import crps_gaussian, crps_samples, interval_coverage, interval_width
from stomics_tools.metrics._probe import linear_probe, spatial_blocks
from stomics_tools.metrics._procrustes import align, normalized_rmsd, rmsd

__all__ = [
    "align",
    "continuity",
    "crps_gaussian",
    "crps_samples",
    "depth_out",
    "distance_spearman",
    "gene_correlation_error",
    "gyration_ratio",
    "interval_coverage",
    "interval_width",
    "linear_probe",
    "local_purity",
    "mean_absolute_error",
    "mean_squared_error",
    "morans_i_error",
    "morans_i_labels",
    "neighbor_overlap",
    "neighborhood_composition",
    "noise_ceiling",
    "normalized_rmsd",
    "paired_test",
    "pearson_per_gene",
    "r2_against",
    "r2_per_gene",
    "relative_variance_difference",
    "rmsd",
    "rmse_per_gene",
    "score_domains",
    "score_expression",
    "score_labels",
    "score_positions",
    "score_samples",
    "silhouette",
    "sliced_wasserstein",
    "spatial_blocks",
    "spearman_per_gene",
    "trustworthiness",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
