"""Analyses that write their results into an AnnData or MuData."""

from __future__ import annotations

from typing import Any

from stomics_tools._namespace import missing_attribute, random_states_kept

with random_states_kept():
    from stomics_tools.tl._domains import spatial_domains
    from stomics_tools.tl._evaluate_expression import evaluate_expression
    from stomics_tools.tl._evaluate_representation import evaluate_representation
    from stomics_tools.tl._spatial_components import spatial_components

__all__ = [
    "compare_models",
    "evaluate_expression",
    "evaluate_reconstruction",
    "evaluate_representation",
    "graphst",
    "impute_expression",
    "masked_diffusion",
    "praga",
    "praga_spike",
    "reconstruct_positions",
    "spatial_components",
    "spatial_domains",
    "var_st",
]


def __getattr__(name: str) -> Any:
    if name == "compare_models":  # models bring torch, which the others do not need
        from stomics_tools.tl._compare import compare_models

        return compare_models
    if name == "evaluate_reconstruction":
        from stomics_tools.tl._evaluate_reconstruction import evaluate_reconstruction

        return evaluate_reconstruction
    if name == "graphst":
        from stomics_tools.tl._graphst import graphst

        return graphst
    if name in ("impute_expression", "masked_diffusion", "reconstruct_positions"):
        from stomics_tools.tl import _masked_diffusion

        return getattr(_masked_diffusion, name)
    if name in ("praga", "praga_spike"):
        from stomics_tools.tl import _praga

        return getattr(_praga, name)
    if name == "var_st":
        from stomics_tools.tl._var_st import var_st

        return var_st
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
