"""Which layers an encoder has, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from stomics_tools.model.praga_spike._layers import MembraneLayer, SpikeLayer
from stomics_tools.model.praga_spike._settings import ADDED_ENCODERS, Encoder, SpikeSettings
from stomics_tools.model.praga_spike._step_layers import StepLayer


def register_encoder(name: str, layer: Callable[[SpikeSettings], MembraneLayer]) -> None:
    """Add an encoder, for ``PRAGASpike(adata, encoder=name)``.

    A saved model that uses it is loaded where it has been added before.

    Parameters
    ----------
    name
        Another name than those of the encoders that are there. One that was added before is replaced.
    layer
        Makes a layer from the settings of the model (``settings.n_latent`` is the width); called ``n_layers`` times.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if name in get_args(Encoder):
        raise ValueError(f"`name`: {name!r} is an encoder of the package. Take another name.")
    ADDED_ENCODERS[name] = layer


def layer_of(encoder: str) -> Callable[[SpikeSettings], MembraneLayer]:
    """What makes a layer of this encoder."""
    if encoder in ADDED_ENCODERS:
        return ADDED_ENCODERS[encoder]
    return StepLayer if encoder == "spikformer" else SpikeLayer
