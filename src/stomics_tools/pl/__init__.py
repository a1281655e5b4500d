"""Plots. They read an object and never write into it."""

from __future__ import annotations

from stomics_tools.pl._codebook import codebook_usage
from stomics_tools.pl._compare import compare_models
from stomics_tools.pl._domains import domains
from stomics_tools.pl._embedding import embedding
from stomics_tools.pl._history import history

__all__ = ["codebook_usage", "compare_models", "domains", "embedding", "history"]
