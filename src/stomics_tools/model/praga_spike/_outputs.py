"""Inputs to a module, and a module to its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from stomics_tools.model._clusters import find_prototypes
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga_spike._compress import restore_packed
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.model.praga_spike._signal import Signal, find_signal
from stomics_tools.model.praga_spike._spike_module import SpikeModule, neighbours
from stomics_tools.model.praga_spike._tissue import Tissue


def make_module(inputs: Tissue, loss_weights: Sequence[float], settings: SpikeSettings) -> SpikeModule:
    """A new module, which begins with the closed-form solution; one loss weight a modality, in the order of names."""
    signal = find_signal(inputs, settings.n_latent, settings.signal_threshold)
    n_edges = [graph.n_edges for graph in (*inputs.rings, *inputs.alike)]
    return SpikeModule(signal, inputs.moments, n_edges, loss_weights, settings, center_slices=inputs.center_slices)


def restored_module(
    tensors: Mapping[str, Tensor], loss_weights: Sequence[float], settings: SpikeSettings
) -> SpikeModule:
    """A module into which saved tensors fit."""
    modalities = range(len(loss_weights))
    signal = Signal(
        encoders=[tensors[f"encoder_{m}"] for m in modalities],
        decoders=[tensors[f"decoder_{m}"] for m in modalities],
        hops=tensors["hops"],
        alike=tensors["alike"],
    )
    moments = [(tensors[f"center_{m}"], tensors[f"scale_{m}"]) for m in modalities]
    n_graphs = settings.n_hops + (len(modalities) if settings.feature_graphs else 0)
    sizes = [(f"edges.{i}.logit", f"average_{i}") for i in range(n_graphs)]
    n_edges = [next((len(tensors[key]) for key in keys if key in tensors), 0) for keys in sizes]
    module = SpikeModule(signal, moments, n_edges, loss_weights, settings)
    restore_packed(module, tensors)
    return module


@torch.no_grad()
def latent_of(
    module: SpikeModule,
    inputs: Tissue,
    *,
    trained_on: bool,
    modality: int | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Latent ``(n_obs, n_latent)``; free edges are those of the data of training, uniform on other data."""
    encoded = module.encode(inputs, block_size=batch_size, free_edges=trained_on)
    return module.latent(inputs, encoded, modality)


@torch.no_grad()
def outputs(module: SpikeModule, inputs: Tissue, names: Sequence[str], *, trained_on: bool, batch_size: int) -> Outputs:
    """Latent, learned graphs, and the weights of modalities and graphs; `names` in the order of the inputs."""
    encoded = module.encode(inputs, block_size=batch_size, free_edges=trained_on)
    edges = dict(zip(names, encoded.edges[len(inputs.rings) :], strict=False))
    tables = {}
    if module.modality_fusion is not None:
        tables["modality_weights"] = (list(names), encoded.modality_weights)
    if len(module.graph_fusion):
        tables["spatial_weights"] = (list(names), encoded.spatial_weights)
    hops = zip(inputs.rings, encoded.edges, module.spatial_shares(), strict=False)
    return Outputs(
        latent=module.latent(inputs, encoded),
        graphs={
            "spatial": [(ring, weight * hop) for ring, weight, hop in hops],
            **{name: [(inputs.alike[m], weight)] for m, (name, weight) in enumerate(edges.items())},
        },
        tables=tables,
    )


def prototypes(module: SpikeModule, inputs: Tissue, *, trained_on: bool, n_prototypes: int | None) -> np.ndarray:
    """Cluster of the latent that each spot belongs to, ``(n_obs,)``, in the order of the inputs."""
    latent = latent_of(module, inputs, trained_on=trained_on).double().cpu().numpy()
    number = module.settings.n_prototypes if n_prototypes is None else n_prototypes
    return find_prototypes(latent, n_prototypes=number, graph=neighbours(inputs))
