"""Spatial domains from multi-omics, by the published PRAGA."""

from stomics_tools.model.praga._model import PRAGA

__all__ = ["PRAGA"]
