"""Spatial domains from multi-omics."""

from stomics_tools.model.praga_spike._model import PRAGASpike

__all__ = ["PRAGASpike"]
