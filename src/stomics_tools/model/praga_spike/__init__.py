"""Spatial domains from multi-omics, by a quantized spike-driven network."""

from stomics_tools.model.praga_spike._layers import register_encoder
from stomics_tools.model.praga_spike._model import PRAGASpike

__all__ = ["PRAGASpike", "register_encoder"]
