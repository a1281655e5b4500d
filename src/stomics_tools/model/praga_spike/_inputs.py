"""Spots to what the module works on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stomics_tools.data import Spots, SpotsSpec, check_slice_sizes
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.model.praga_spike._spike_module import SpikeModule
from stomics_tools.model.praga_spike._tissue import Tissue, read_tissue


def check_sizes(sizes: Mapping[str, Any], spec: SpotsSpec, settings: SpikeSettings) -> None:
    """Raise ``ValueError`` unless every slice (see :meth:`Spots.sizes`) has more spots than neighbours are asked for."""
    if spec.spatial_graph_key is None:
        check_slice_sizes(sizes["all"], settings.n_spatial_neighbors, argument="n_spatial_neighbors")


def prepare(spots: Spots, settings: SpikeSettings, module: SpikeModule | None = None) -> Tissue:
    """Graphs and standardized values of spots; a trained `module` brings the moments of its training."""
    return read_tissue(
        spots,
        n_spatial_neighbors=settings.n_spatial_neighbors,
        n_feature_neighbors=settings.n_feature_neighbors if settings.use_fusion else 0,
        n_hops=settings.n_hops,
        moments=None if module is None else module.moments,
        center_slices=None if module is None else bool(module.center_slices),
    )
