"""Scores of spatial domains: arrays in, numbers out."""

from __future__ import annotations

from stomics_tools.metrics._domains import score_domains
from stomics_tools.metrics._embedding import silhouette
from stomics_tools.metrics._graph import local_purity, morans_i_labels
from stomics_tools.metrics._labels import score_labels

__all__ = ["local_purity", "morans_i_labels", "score_domains", "score_labels", "silhouette"]
