"""Spatial domains from multi-omics."""

from stomics_tools.model.praga_spike._encoders import register_encoder
from stomics_tools.model.praga_spike._layers import MembraneLayer
from stomics_tools.model.praga_spike._model import PRAGASpike

__all__ = ["MembraneLayer", "PRAGASpike", "register_encoder"]
