"""AnnData and MuData to arrays, graphs and tensors."""

from stomics_tools.data._cells import Cells, CellsSpec, read_cells
from stomics_tools.data._expression import normalize_expression, total_counts, variable_genes
from stomics_tools.data._graphs import (
    alike_elsewhere,
    check_batch_sizes,
    check_slice_sizes,
    feature_knn,
    normalized_adjacency,
    ring_distances,
    rings,
    spatial_knn,
)
from stomics_tools.data._image_read import read_image_spots
from stomics_tools.data._image_spots import ImageSpec, ImageSpots
from stomics_tools.data._log_counts import are_counts, check_same_unit, decide_counts, log_cp10k
from stomics_tools.data._matrix import expression_matrix, open_matrix
from stomics_tools.data._order import hilbert_order
from stomics_tools.data._read import check_same_features, read_spots
from stomics_tools.data._splits import Fold, expression_folds, leave_one_group_out
from stomics_tools.data._spots import Modality, Spots, SpotsSpec

__all__ = [
    "Cells",
    "CellsSpec",
    "Fold",
    "ImageSpec",
    "ImageSpots",
    "Modality",
    "Spots",
    "SpotsSpec",
    "alike_elsewhere",
    "are_counts",
    "check_batch_sizes",
    "check_slice_sizes",
    "check_same_features",
    "check_same_unit",
    "decide_counts",
    "expression_folds",
    "expression_matrix",
    "feature_knn",
    "hilbert_order",
    "leave_one_group_out",
    "log_cp10k",
    "open_matrix",
    "normalize_expression",
    "normalized_adjacency",
    "read_cells",
    "read_image_spots",
    "read_spots",
    "ring_distances",
    "rings",
    "spatial_knn",
    "total_counts",
    "variable_genes",
]
