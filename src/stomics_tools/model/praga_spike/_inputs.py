"""Spots to what the module works on."""

from __future__ import annotations

from stomics_tools.data import Spots, check_batch_sizes
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.model.praga_spike._spike_module import SpikeModule
from stomics_tools.model.praga_spike._tissue import Tissue, read_tissue


def check_sizes(spots: Spots, settings: SpikeSettings) -> None:
    """Raise ``ValueError`` unless every slice has more spots than neighbours are asked for."""
    if spots.spatial_graph is None:
        check_batch_sizes(spots.n_obs, spots.batch, settings.n_spatial_neighbors, argument="n_spatial_neighbors")


def prepare(spots: Spots, settings: SpikeSettings, module: SpikeModule | None = None) -> Tissue:
    """Graphs and standardized values of spots; a trained `module` brings the moments of its training.

    Raises ``ValueError`` if a slice has fewer spots than neighbours are asked for.
    """
    check_sizes(spots, settings)
    return read_tissue(
        spots,
        n_spatial_neighbors=settings.n_spatial_neighbors,
        n_feature_neighbors=settings.n_feature_neighbors if settings.use_fusion else 0,
        n_hops=settings.n_hops,
        moments=None if module is None else module.moments,
        center_slices=None if module is None else bool(module.center_slices),
    )
