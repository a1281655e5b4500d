"""Recipes from raw counts to the representations that models and clustering take."""

from __future__ import annotations

from stomics_tools.pp._atac import atac
from stomics_tools.pp._counts import split_counts, thin_counts
from stomics_tools.pp._join_tiles import join_tile_features
from stomics_tools.pp._patch_features import patch_features
from stomics_tools.pp._protein import protein
from stomics_tools.pp._rna import rna
from stomics_tools.pp._smooth import smooth, smooth_features

__all__ = [
    "atac",
    "join_tile_features",
    "patch_features",
    "protein",
    "rna",
    "smooth",
    "smooth_features",
    "split_counts",
    "thin_counts",
]
