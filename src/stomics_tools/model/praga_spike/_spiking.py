"""The spike-driven model behind PRAGASpike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stomics_tools.data import Spots, check_batch_sizes
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga_spike._clusters import find_prototypes
from stomics_tools.model.praga_spike._compress import quantize, restore_packed
from stomics_tools.model.praga_spike._signal import Signal, find_signal
from stomics_tools.model.praga_spike._spike_module import Encoded, SpikeModule, neighbours
from stomics_tools.model.praga_spike._spike_settings import SpikeSettings
from stomics_tools.model.praga_spike._spike_stats import spike_stats
from stomics_tools.model.praga_spike._tissue import Tissue, read_tissue


class Spiking:
    """Prediction of each spot from its neighbours, see :class:`SpikeModule`.

    Parameters
    ----------
    settings
        See :class:`~stomics_tools.model.PRAGASpike`.
    names
        Modalities in the order of their names.
    loss_weights
        Weight of the prediction of each.
    """

    def __init__(self, settings: SpikeSettings, names: Sequence[str], loss_weights: Sequence[float]) -> None:
        self.settings, self.names, self.loss_weights = settings, list(names), list(loss_weights)

    def check_sizes(self, spots: Spots) -> None:
        """Every slice must have more spots than neighbours are asked for."""
        if spots.spatial_graph is None:
            n_neighbors = self.settings.n_spatial_neighbors
            check_batch_sizes(spots.n_obs, spots.batch, n_neighbors, argument="n_spatial_neighbors")

    def prepare(self, spots: Spots, module: SpikeModule | None, trained_on: bool) -> Tissue:
        """Inputs of the module."""
        return read_tissue(
            spots,
            n_spatial_neighbors=self.settings.n_spatial_neighbors,
            n_feature_neighbors=self.settings.n_feature_neighbors if self.settings.use_fusion else 0,
            n_hops=self.settings.n_hops,
            moments=None if module is None else module.moments,
            center_slices=None if module is None else bool(module.center_slices),
        )

    def make_module(self, inputs: Tissue) -> SpikeModule:
        """A new module, which begins with the closed-form solution."""
        signal = find_signal(inputs, self.settings.n_latent, self.settings.signal_threshold)
        n_edges = [graph.n_edges for graph in (*inputs.rings, *inputs.alike)]
        return SpikeModule(
            signal, inputs.moments, n_edges, self.loss_weights, self.settings, center_slices=inputs.center_slices
        )

    def module_of(self, tensors: Mapping[str, Tensor]) -> SpikeModule:
        """A module into which these tensors fit."""
        n_modalities = len(self.names)
        signal = Signal(
            encoders=[tensors[f"encoder_{m}"] for m in range(n_modalities)],
            decoders=[tensors[f"decoder_{m}"] for m in range(n_modalities)],
            hops=tensors["hops"],
            alike=tensors["alike"],
        )
        moments = [(tensors[f"center_{m}"], tensors[f"scale_{m}"]) for m in range(n_modalities)]
        n_graphs = self.settings.n_hops + (n_modalities if self._both_graphs else 0)
        sizes = [(f"edges.{i}.logit", f"average_{i}") for i in range(n_graphs)]
        n_edges = [next((len(tensors[key]) for key in keys if key in tensors), 0) for keys in sizes]
        module = SpikeModule(signal, moments, n_edges, self.loss_weights, self.settings)
        restore_packed(module, tensors)
        return module

    @property
    def _both_graphs(self) -> bool:
        return self.settings.use_fusion and self.settings.n_feature_neighbors > 0

    def finish(self, module: SpikeModule, inputs: Tissue) -> None:
        """Measure what the outputs need."""
        module.finish(inputs)

    @torch.no_grad()
    def latent(
        self, module: SpikeModule, inputs: Tissue, trained_on: bool, modality: int | None, batch_size: int
    ) -> Tensor:
        """Latent of all modalities or of one."""
        return module.latent(inputs, self.encode(module, inputs, trained_on, batch_size), modality)

    @torch.no_grad()
    def outputs(self, module: SpikeModule, inputs: Tissue, trained_on: bool, batch_size: int) -> Outputs:
        """Latent, learned graphs, and the weights of modalities and graphs."""
        encoded = self.encode(module, inputs, trained_on, batch_size)
        shares = module.spatial_shares()
        edges = dict(zip(self.names, encoded.edges[len(inputs.rings) :], strict=False))
        tables = {}
        if module.modality_fusion is not None:
            tables["modality_weights"] = (self.names, encoded.modality_weights)
        if len(module.graph_fusion):
            tables["spatial_weights"] = (self.names, encoded.spatial_weights)
        return Outputs(
            latent=module.latent(inputs, encoded),
            graphs={
                "spatial": [
                    (ring, weight * share)
                    for ring, weight, share in zip(inputs.rings, encoded.edges, shares, strict=False)
                ],
                **{name: [(inputs.alike[m], weight)] for m, (name, weight) in enumerate(edges.items())},
            },
            tables=tables,
        )

    @torch.no_grad()
    def denoised(self, module: SpikeModule, inputs: Tissue, trained_on: bool) -> list[Tensor]:
        """Features of each modality from the latent, in the units of the data."""
        return module.decode(inputs, self._latent_at_once(module, inputs, trained_on))

    def encode(self, module: SpikeModule, inputs: Tissue, trained_on: bool, batch_size: int | None = None) -> Encoded:
        """What the encoder finds; free edges are those of the data of training, all alike on other data."""
        return module.encode(inputs, block_size=batch_size, free_edges=trained_on)

    @torch.no_grad()
    def _latent_at_once(self, module: SpikeModule, inputs: Tissue, trained_on: bool) -> Tensor:
        """Latent of all modalities, not in blocks."""
        return module.latent(inputs, self.encode(module, inputs, trained_on))

    def quantize(self, module: SpikeModule, inputs: Tissue, trained_on: bool, n_repeats: int) -> pd.DataFrame:
        """Pack the layers of the module."""
        return quantize(module, lambda: self._latent_at_once(module, inputs, trained_on), n_repeats)

    def spike_stats(self, module: SpikeModule, inputs: Tissue, trained_on: bool) -> pd.DataFrame:
        """Spikes of the layers, operations and energy."""
        return spike_stats(module, inputs, lambda: self._latent_at_once(module, inputs, trained_on))

    @torch.no_grad()
    def prototypes(self, module: SpikeModule, inputs: Tissue, trained_on: bool, n_prototypes: int | None) -> np.ndarray:
        """Cluster of the latent that each spot belongs to, ``(n_obs,)``, in the order of the inputs."""
        latent = self._latent_at_once(module, inputs, trained_on).double().cpu().numpy()
        n_prototypes = self.settings.n_prototypes if n_prototypes is None else n_prototypes
        return find_prototypes(latent, n_prototypes=n_prototypes, graph=neighbours(inputs))
