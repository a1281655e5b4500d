"""From a module and its inputs to the results of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stomics_tools import _validate
from stomics_tools.model._clusters import find_prototypes
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga_spike._inputs import Inputs
from stomics_tools.model.praga_spike._module import SpikeModule


@torch.no_grad()
def latent_of(
    module: SpikeModule,
    inputs: Inputs,
    *,
    trained_on: bool,
    modality: int | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Latent ``(n_obs, n_latent)``; free edges are those of the data of training, uniform on other data."""
    encoded = module(inputs, block_size=batch_size, free_edges=trained_on)
    return module.latent(inputs, encoded, modality)


@torch.no_grad()
def outputs(module: SpikeModule, inputs: Inputs, names: Sequence[str], *, trained_on: bool, batch_size: int) -> Outputs:
    """Latent, learned graphs, and the weights of modalities and graphs; `names` in the order of the inputs."""
    encoded = module(inputs, block_size=batch_size, free_edges=trained_on)
    edges = dict(zip(names, encoded.edges[len(inputs.rings) :], strict=False))
    tables = {}
    if module.modality_fusion is not None:
        tables["modality_weights"] = (list(names), encoded.modality_weights)
    if len(module.graph_fusion):
        tables["spatial_weights"] = (list(names), encoded.spatial_weights)
    hops = zip(inputs.rings, encoded.edges, module.ring_weights(), strict=False)
    return Outputs(
        latent=module.latent(inputs, encoded),
        graphs={
            "spatial": [(ring, weight * hop) for ring, weight, hop in hops],
            **{name: [(inputs.feature_graphs[m], weight)] for m, (name, weight) in enumerate(edges.items())},
        },
        tables=tables,
    )


def check_attention(module: SpikeModule, layer: int) -> None:
    """Raise ``ValueError`` unless the attention of that block can be looked at."""
    settings = module.settings
    if not settings.n_layers or not settings.use_attention:
        found = "n_layers=0" if not settings.n_layers else "use_attention=False"
        raise ValueError(f"`{found}`: this model has no attention. Make one with `n_layers` above 0 and attention.")
    _validate.check_integer(layer, argument="layer", minimum=0)
    if layer >= settings.n_layers:
        raise ValueError(f"`layer={layer}`: the layers of this model are 0 to {settings.n_layers - 1}.")
    if not hasattr(module.blocks[layer].attention, "attention_weights"):
        raise ValueError(f"`encoder={settings.encoder!r}`: its attention has no method `attention_weights`.")


@torch.no_grad()
def attention_weights(
    module: SpikeModule, inputs: Inputs, rows: np.ndarray | slice, *, layer: int, trained_on: bool
) -> np.ndarray:
    """What chosen rows of the object read from all of them by the attention of a block, float32 ``(n_query, n_obs)``."""
    blocks: Any = module.blocks
    module.blocks = blocks[:layer]
    try:
        membrane = module(inputs, free_edges=trained_on).predicted
    finally:
        module.blocks = blocks
    place = inputs.restore(np.arange(inputs.n_obs))  # of each row along the curve
    chosen = torch.from_numpy(place[rows]).to(membrane.device)
    weights = blocks[layer].attention_weights(membrane, chosen, inputs.segments)
    return inputs.restore(weights.T.float().cpu().numpy()).T


def prototypes(module: SpikeModule, inputs: Inputs, *, trained_on: bool, n_prototypes: int | None) -> np.ndarray:
    """Cluster of the latent that each spot belongs to, ``(n_obs,)``, in the order of the inputs."""
    latent = latent_of(module, inputs, trained_on=trained_on).double().cpu().numpy()
    number = module.settings.n_prototypes if n_prototypes is None else n_prototypes
    return find_prototypes(latent, n_prototypes=number, graph=inputs.neighbors)
