"""Models in the manner of scvi-tools."""

from stomics_tools.model.graphst import GraphST
from stomics_tools.model.masked_diffusion import MaskedDiffusion
from stomics_tools.model.praga_spike import PRAGASpike
from stomics_tools.model.var_st import VARST, LazySlidePredictor

__all__ = ["VARST", "GraphST", "LazySlidePredictor", "MaskedDiffusion", "PRAGASpike"]
