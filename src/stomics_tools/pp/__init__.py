"""Recipes from raw counts to the representations that models and clustering take."""

from __future__ import annotations

from typing import Any

from stomics_tools._namespace import missing_attribute, random_states_kept

with random_states_kept():
    from stomics_tools.data._recipe import Recipe
    from stomics_tools.pp._atac import atac
    from stomics_tools.pp._controls import drop_controls
    from stomics_tools.pp._counts import split_counts, thin_counts
    from stomics_tools.pp._join_tiles import join_tile_features
    from stomics_tools.pp._patch_features import patch_features
    from stomics_tools.pp._protein import protein
    from stomics_tools.pp._reference import load_recipe, save_recipe
    from stomics_tools.pp._rna import rna
    from stomics_tools.pp._smooth import smooth, smooth_features

__all__ = [
    "Recipe",
    "atac",
    "drop_controls",
    "join_tile_features",
    "load_recipe",
    "patch_features",
    "protein",
    "rna",
    "save_recipe",
    "smooth",
    "smooth_features",
    "split_counts",
    "thin_counts",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
