"""AnnData and MuData to arrays, graphs and tensors."""

from stomics_tools.data._expression import normalize_expression, total_counts, variable_genes
from stomics_tools.data._graphs import (
    alike_elsewhere,
    check_batch_sizes,
    feature_knn,
    normalized_adjacency,
    rings,
    spatial_knn,
)
from stomics_tools.data._order import hilbert_order
from stomics_tools.data._read import check_same_features, read_spots
from stomics_tools.data._splits import Fold, expression_folds, leave_one_group_out
from stomics_tools.data._spots import Modality, Spots, SpotsSpec

__all__ = [
    "Fold",
    "Modality",
    "Spots",
    "SpotsSpec",
    "alike_elsewhere",
    "check_batch_sizes",
    "check_same_features",
    "expression_folds",
    "feature_knn",
    "hilbert_order",
    "leave_one_group_out",
    "normalize_expression",
    "normalized_adjacency",
    "read_spots",
    "rings",
    "spatial_knn",
    "total_counts",
    "variable_genes",
]
