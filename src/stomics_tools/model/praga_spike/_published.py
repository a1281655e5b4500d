"""The published model behind PRAGASpike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stomics_tools.data import Spots, check_batch_sizes
from stomics_tools.model._outputs import Outputs
from stomics_tools.model.praga_spike._inputs import Inputs, prepare
from stomics_tools.model.praga_spike._module import PragaModule, learned_weights
from stomics_tools.model.praga_spike._settings import PragaSettings
from stomics_tools.nn import Graph


class Published:
    """PRAGA as published: a linear encoder over a spatial graph and feature graphs with one free weight an edge.

    Parameters
    ----------
    settings
        See :class:`~stomics_tools.model.PRAGASpike`.
    names
        Modalities in the order of their names.
    loss_weights
        Weight of the reconstruction of each.
    """

    def __init__(self, settings: PragaSettings, names: Sequence[str], loss_weights: Sequence[float]) -> None:
        self.settings, self.names, self.loss_weights = settings, list(names), list(loss_weights)

    def check_sizes(self, spots: Spots) -> None:
        """Every slice must have more spots than neighbours are asked for."""
        if spots.spatial_graph is None:
            n_neighbors = self.settings.n_spatial_neighbors
            check_batch_sizes(spots.n_obs, spots.batch, n_neighbors, argument="n_spatial_neighbors")
        for name, modality in spots.modalities.items():
            if name not in spots.feature_graphs and modality.present.any():
                batch = spots.batch[modality.present]
                n_neighbors = self.settings.n_feature_neighbors
                check_batch_sizes(len(batch), batch, n_neighbors, argument="n_feature_neighbors")

    def prepare(self, spots: Spots, module: PragaModule | None, trained_on: bool) -> Inputs:
        """Inputs of the module; graphs that it holds are not made again."""
        moments = None if module is None else module.moments
        features = None
        if module is not None and trained_on:
            features = [(learned.graph, learned.value.detach()) for learned in module.learned]
        center_slices = None if module is None else bool(module.center_slices)
        return prepare(spots, self.settings, features=features, moments=moments, center_slices=center_slices)

    def make_module(self, inputs: Inputs) -> PragaModule:
        """A new module."""
        return PragaModule(
            inputs.moments, inputs.features, self.loss_weights, self.settings, center_slices=inputs.center_slices
        )

    def module_of(self, tensors: Mapping[str, Tensor]) -> PragaModule:
        """A module into which these tensors fit."""
        indices = range(len(self.names))
        graphs = [
            (
                Graph(tensors[f"learned.{m}.graph.crow"], tensors[f"learned.{m}.graph.col"]),
                tensors[f"learned.{m}.value"],
            )
            for m in indices
        ]
        moments = [(tensors[f"center_{m}"], tensors[f"scale_{m}"]) for m in indices]
        return PragaModule(moments, graphs, self.loss_weights, self.settings)

    def finish(self, module: PragaModule, inputs: Inputs) -> None:
        """Nothing is left to do after training."""

    @torch.no_grad()
    def latent(
        self, module: PragaModule, inputs: Inputs, trained_on: bool, modality: int | None, batch_size: int
    ) -> Tensor:
        """Latent of all modalities or of one, each row of length one."""
        weights = self._weights(module, inputs, trained_on)
        return module.latent(inputs, weights, modality=modality, block_size=batch_size)

    @torch.no_grad()
    def outputs(self, module: PragaModule, inputs: Inputs, trained_on: bool, batch_size: int) -> Outputs:
        """Latent and learned graphs."""
        weights = self._weights(module, inputs, trained_on)
        graphs = [graph for graph, _ in inputs.features]
        return Outputs(
            latent=module.latent(inputs, weights, block_size=batch_size),
            graphs={name: [(g, w)] for name, g, w in zip(self.names, graphs, weights, strict=True)},
        )

    @torch.no_grad()
    def denoised(self, module: PragaModule, inputs: Inputs, trained_on: bool) -> list[Tensor]:
        """Reconstruction of each modality, in the units of the data."""
        latent, _ = module.encode(inputs, self._weights(module, inputs, trained_on))
        return module.decode(inputs, latent)

    @staticmethod
    def _weights(module: PragaModule, inputs: Inputs, trained_on: bool) -> list[Tensor]:
        if trained_on:
            return [learned() for learned in module.learned]
        return [learned_weights(graph, value) for graph, value in inputs.features]
