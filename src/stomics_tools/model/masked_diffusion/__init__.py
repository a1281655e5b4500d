"""Diffusion over the cells of a slice."""

from stomics_tools.model.masked_diffusion._model import MaskedDiffusion

__all__ = ["MaskedDiffusion"]
