"""VARST: gene expression from histology."""

from stomics_tools.model.var_st._lazyslide import LazySlidePredictor
from stomics_tools.model.var_st._model import VARST

__all__ = ["VARST", "LazySlidePredictor"]
