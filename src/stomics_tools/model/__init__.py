"""Models in the manner of scvi-tools."""

from typing import Any

from stomics_tools._namespace import missing_attribute, random_states_kept

with random_states_kept():
    from stomics_tools.model.graphst import GraphST
    from stomics_tools.model.masked_diffusion import MaskedDiffusion
    from stomics_tools.model.praga import PRAGA
    from stomics_tools.model.praga_spike import PRAGASpike
    from stomics_tools.model.var_st import VARST, LazySlidePredictor

__all__ = ["PRAGA", "VARST", "GraphST", "LazySlidePredictor", "MaskedDiffusion", "PRAGASpike"]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
