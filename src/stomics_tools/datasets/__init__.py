"""Data to start from: simulated slices, public slices, and a reader of slices in files."""

from __future__ import annotations

from typing import Any

from stomics_tools._namespace import missing_attribute, random_states_kept

with random_states_kept():
    from stomics_tools.datasets._counts import Modality
    from stomics_tools.datasets._her2st import her2st
    from stomics_tools.datasets._hest import hest
    from stomics_tools.datasets._histology import simulate_histology
    from stomics_tools.datasets._public import human_lymph_node, mouse_brain, mouse_spleen, mouse_thymus
    from stomics_tools.datasets._read import read_slice
    from stomics_tools.datasets._simulate import simulate_multiomics
    from stomics_tools.datasets._simulate_sections import simulate_sections
    from stomics_tools.datasets._spatialdata import from_spatialdata

__all__ = [
    "Modality",
    "from_spatialdata",
    "her2st",
    "hest",
    "human_lymph_node",
    "mouse_brain",
    "mouse_spleen",
    "mouse_thymus",
    "read_slice",
    "simulate_histology",
    "simulate_multiomics",
    "simulate_sections",
]


def __getattr__(name: str) -> Any:
    raise missing_attribute(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
