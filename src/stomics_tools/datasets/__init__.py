"""Data to start from: simulated slices."""

from __future__ import annotations

from stomics_tools.datasets._counts import Modality
from stomics_tools.datasets._simulate import simulate_multiomics

__all__ = ["Modality", "simulate_multiomics"]
