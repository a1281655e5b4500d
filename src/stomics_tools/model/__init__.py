"""Models in the manner of scvi-tools."""

from stomics_tools.model.praga_spike import PRAGASpike

__all__ = ["PRAGASpike"]
