"""PRAGASpike as a torch module: from features to spikes, from the spikes of neighbors to a prediction of each spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stomics_tools.model._prototypes import DynamicPrototypes
from stomics_tools.model.praga_spike._inputs import Inputs, Moments
from stomics_tools.model.praga_spike._layers import (
    FreeEdges,
    Fusion,
    InductiveEdges,
    PopulationCode,
    SpikeBlock,
    UniformEdges,
)
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.nn import Graph, QuantConv2d, QuantLinear, allocate_bits

_OUTER_BITS = 8
"""Bits of the maps from features and back: they read and write numbers in floating point (as Esser et al., 2020)."""
_OUTER_RATE = 0.1
"""Learning rate of these maps in units of the others': one slice has little to teach as many weights."""
_SPATIAL_WEIGHT = 0.9
"""Weight of the neighbors in space to begin with; the spots with similar neighborhoods have the rest."""
_ALLOCATE_EVERY = 10
"""Epochs between two allocations of learned bits."""


@dataclass
class Encoded:
    """What the module finds, each of it for all spots.

    Parameters
    ----------
    own
        What the own spikes of a spot stand for along the directions, ``(n_obs, n_directions)`` a modality.
    views
        What the spikes of its neighbors predict of that, ``(n_obs, n_directions)`` a modality.
    predicted
        What they predict together, after the blocks, ``(n_obs, n_directions)``.
    modality_weights
        Weight of each modality, ``(n_obs, n_modalities)``.
    spatial_weights
        For each modality the weight of the neighbors in space, ``(n_obs, n_modalities)``; spots with similar
        neighborhoods have the rest.
    edges
        Weights of each ring and then of each feature graph, ``(n_edges,)``; each row sums to 1.
    """

    own: list[Tensor]
    views: list[Tensor]
    predicted: Tensor
    modality_weights: Tensor
    spatial_weights: Tensor
    edges: list[Tensor]


class SpikeModule(nn.Module):
    """Predict each spot from the spikes of its neighbors.

    In training some spots are blind spots: their spikes reach nobody, and they are predicted. Whoever sees a spot learns
    to copy it. For modality m with features X, rings of neighbors R_h in space and a feature graph F::

        S_m = fire(Q_m X_m)                                        spikes of each spot, population code
        V_m = s_m sum_h R_h W_mh S_m + (1 - s_m) F_m W_mf S_m      s_m: fusion of the two graphs
        P   = blocks(M sum_m w_m V_m)                              w_m: fusion of the modalities
        Z   = P + g (sum_m W_m0 S_m - P)                           g: self weights
        X'  = D fire(Z)                                            decoder

    Q, W and D have quantized weights. Nothing of the features reaches Z but spikes, and nothing of Z reaches X' but
    spikes. ``_closed_form.py`` sets the weights to begin with, and the self weights in the end.

    Parameters
    ----------
    n_features
        Features of each modality.
    n_directions
        Directions of spatial signal.
    n_edges
        Edges of each ring and then of each feature graph.
    loss_weights
        Weight of the prediction of each modality.
    settings
        See :class:`~stomics_tools.model.PRAGASpike`.
    """

    self_weights: Tensor
    center_slices: Tensor
    n_epochs: Tensor
    seed: Tensor
    encoders: Any  # lists of modules, whose items nn.ModuleList does not type
    codes: Any
    synapses: Any
    graph_fusion: Any
    blocks: Any

    def __init__(
        self,
        n_features: Sequence[int],
        n_directions: int,
        n_edges: Sequence[int],
        loss_weights: Sequence[float],
        settings: SpikeSettings,
    ) -> None:
        super().__init__()
        # The first that is drawn: models of any settings have the same blind spots where they have the same seed.
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.settings, self.n_directions, self.loss_weights = settings, n_directions, list(loss_weights)
        self.n_features, self.validation_size = list(n_features), 0.0
        outer = None if settings.bits is None else _OUTER_BITS
        n_maps = 1 + settings.n_hops + settings.has_feature_graphs
        for m, n in enumerate(n_features):
            self.register_buffer(f"center_{m}", torch.zeros(n))
            self.register_buffer(f"scale_{m}", torch.ones(()))
            self.register_buffer(f"feature_scale_{m}", torch.ones(n))
            self.register_buffer(f"expected_{m}", torch.zeros(n_directions, n_directions))
        self.encoders = nn.ModuleList(QuantLinear(n, n_directions, bias=False, bits=outer) for n in n_features)
        self.codes = nn.ModuleList(PopulationCode(n_directions, settings) for _ in n_features)
        self.synapses = nn.ModuleList(
            QuantLinear(code.width, n_maps * n_directions, bias=False, bits=settings.bits) for code in self.codes
        )
        self.edges = nn.ModuleList(_edge_weights(settings, n_directions, n) for n in n_edges)
        averaged = settings.homogeneity_weight > 0 and settings.edges != "uniform"
        for i, n in enumerate(n_edges if averaged else []):
            self.register_buffer(f"average_{i}", torch.zeros(n))
        weights = (_SPATIAL_WEIGHT, 1 - _SPATIAL_WEIGHT)
        self.graph_fusion = nn.ModuleList()
        for _ in n_features if settings.has_feature_graphs else []:
            if settings.graph_fusion == "attention":
                self.graph_fusion.append(Fusion(n_directions, weights, settings))
            else:
                self.graph_fusion.append(_graph_convolution(weights, outer))
        several = settings.use_fusion and len(n_features) > 1
        self.modality_fusion = Fusion(n_directions, (1.0,) * len(n_features), settings) if several else None
        self.blocks = nn.ModuleList(SpikeBlock(n_directions, settings) for _ in range(settings.n_layers))
        self.decoder_code = PopulationCode(n_directions, settings)
        self.decoder = QuantLinear(self.decoder_code.width, sum(n_features), bias=False, bits=outer)
        self.register_buffer("self_weights", torch.zeros(n_directions))
        self.register_buffer("center_slices", torch.tensor(False))
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.int64))
        self.prototypes: DynamicPrototypes | None = None
        if settings.prototype_weight > 0:
            self.prototypes = DynamicPrototypes(
                n_directions,
                settings.n_prototypes,
                settings.prototype_start,
                settings.prototype_every,
                settings.temperature,
            )
        self.targets: list[Tensor] | None = None

    @property
    def moments(self) -> list[Moments]:
        """Center and scale of each modality in training."""
        return [(self.get_buffer(f"center_{m}"), self.get_buffer(f"scale_{m}")) for m in range(len(self.n_features))]

    # --------------------------------------------------------------- forward

    def forward(
        self,
        inputs: Inputs,
        visible: Sequence[Tensor] | None = None,
        *,
        block_size: int | None = None,
        free_edges: bool = True,
    ) -> Encoded:
        """Spikes, predictions and weights.

        Parameters
        ----------
        inputs
            The spots.
        visible
            1 where the spikes of a spot reach its neighbors, 0 for the rest, ``(n_obs, 1)`` a modality; by default where
            the modality is present.
        block_size
            Rows that the attention takes at a time, in evaluation; the outcome does not depend on it. None: all.
        free_edges
            Whether free weights of edges belong to these graphs; if not, all neighbors weigh the same.
        """
        visible = inputs.present if visible is None else visible
        n_modalities, n_rings = len(inputs.values), len(inputs.rings)
        graphs = [*inputs.rings, *inputs.feature_graphs]
        mapped = [list(x.split(self.n_directions, dim=1)) for x in self._synaptic_currents(inputs)]
        own = [parts[0] * there for parts, there in zip(mapped, inputs.present, strict=True)]
        edges = self._scored_edges(inputs, mapped, visible, free_edges)
        views, spatial = [], []
        for m, (parts, seen) in enumerate(zip(mapped, visible, strict=True)):
            view = _neighbor_sum(inputs.rings, edges[:n_rings], parts[1 : 1 + n_rings], seen)
            weight = torch.ones_like(seen)
            if len(self.graph_fusion):
                far = _neighbor_sum([graphs[n_rings + m]], [edges[n_rings + m]], parts[1 + n_rings :], seen)
                view, weight = self._fused_graphs(m, view, far)
            views.append(view)
            spatial.append(weight)
        if self.modality_fusion is None:
            weights = views[0].new_full((inputs.n_obs, n_modalities), 1 / n_modalities)
        else:
            weights = self.modality_fusion(views)
        membrane = n_modalities * torch.stack(
            [w[:, None] * v for w, v in zip(weights.unbind(1), views, strict=True)]
        ).sum(0)
        for block in self.blocks:
            membrane = block(membrane, inputs.rings[0], edges[0], inputs.segments, block_size=block_size)
        return Encoded(
            own=own,
            views=views,
            predicted=membrane,
            modality_weights=weights,
            spatial_weights=torch.cat(spatial, dim=1),
            edges=edges,
        )

    def _synaptic_currents(self, inputs: Inputs) -> list[Tensor]:
        """What the spikes of each spot set off: the part for itself, for each ring, and for the feature graph."""
        currents = []
        for m, x in enumerate(inputs.values):
            membrane = self.encoders[m](x / self.get_buffer(f"feature_scale_{m}"))
            currents.append(self.synapses[m](self.codes[m](membrane)))
        return currents

    def _scored_edges(
        self, inputs: Inputs, mapped: Sequence[Sequence[Tensor]], visible: Sequence[Tensor], free_edges: bool
    ) -> list[Tensor]:
        """Weights of the edges of all graphs, each row summing to 1; they do not teach what they are scored by."""
        uniform, n_rings = UniformEdges(), len(inputs.rings)
        with torch.no_grad():
            state = torch.zeros_like(mapped[0][0])
            if self.settings.edges == "inductive":
                plain = [uniform(ring, state) for ring in inputs.rings]
                for parts, seen in zip(mapped, visible, strict=True):
                    state += _neighbor_sum(inputs.rings, plain, parts[1 : 1 + n_rings], seen)
        scores = [uniform if isinstance(s, FreeEdges) and not free_edges else s for s in self.edges]
        return [
            score(graph, state) for score, graph in zip(scores, [*inputs.rings, *inputs.feature_graphs], strict=True)
        ]

    def _fused_graphs(self, m: int, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """One view of the two graphs of a modality, and the weight of the one in space ``(n_obs, 1)``."""
        fusion = self.graph_fusion[m]
        if isinstance(fusion, Fusion):
            weights = fusion([near, far])
            return weights[:, :1] * near + weights[:, 1:] * far, weights[:, :1]
        both = fusion.used_weight.flatten()
        weight = (both[0] / both.abs().sum().clamp(min=1e-6)).clamp(min=0)
        return both[0] * near + both[1] * far, weight.expand(len(near), 1)

    # -------------------------------------------------------------- training

    def parameter_groups(self) -> list[dict[str, object]]:
        """Parameters for an optimizer, with the factor of the learning rate of each group."""
        outer = [*self.encoders.parameters(), *self.decoder.parameters()]
        known = {id(p) for p in outer}
        inner = [p for p in self.parameters() if id(p) not in known]
        return [{"params": inner}, {"params": outer, "lr_factor": _OUTER_RATE}]

    def set_targets(self, inputs: Inputs, denoised: Mapping[str, np.ndarray] | None) -> None:
        """Modalities as a teacher sees them, in the units and order of its object; None: no teacher."""
        if denoised is None:
            self.targets = None
            return
        inputs = inputs.to(self.self_weights.device)
        values = [torch.from_numpy(x[inputs.order]).to(self.self_weights) for _, x in sorted(denoised.items())]
        self.targets = [inputs.standardized(x, m) for m, x in enumerate(values)]

    def loss(self, inputs: Inputs) -> dict[str, Tensor]:
        """Losses of one training step; running means and prototypes move on with it."""
        settings, epoch = self.settings, int(self.n_epochs)
        if settings.weight_bits == "learned" and epoch % _ALLOCATE_EVERY == 0:
            self.allocate(inputs)
        blind, visible = self.blind_spots(inputs, epoch)
        training_mask = ~self._validation_mask(inputs)
        blind = blind[training_mask[blind]]
        encoded = self(inputs, visible)
        losses = {"reconstruction_loss": self._prediction_error(inputs, encoded.predicted, blind)}
        total = losses["reconstruction_loss"]
        if hasattr(self, "average_0"):
            losses["homogeneity_loss"] = self._homogeneity(encoded.edges)
            total = total + settings.homogeneity_weight * losses["homogeneity_loss"]
        if self.prototypes is not None:
            losses["prototype_loss"] = self.prototypes.loss(encoded.predicted, epoch, inputs.neighbors)
            total = total + settings.prototype_weight * losses["prototype_loss"]
        if self.targets is not None:
            predicted = self._features(encoded.predicted)
            errors = [(x - y)[training_mask].square().mean() for x, y in zip(predicted, self.targets, strict=True)]
            losses["distillation_loss"] = torch.stack(errors).sum()
            total = total + settings.distill_weight * losses["distillation_loss"]
        self.n_epochs += 1
        return {"train_loss": total, **losses}

    def validation_loss(self, inputs: Inputs) -> Tensor:
        """Error of the prediction of the spots that training never predicts, all of them blind spots at once."""
        mask = self._validation_mask(inputs)
        visible = [there * ~mask[:, None] for there in inputs.present]
        return self._prediction_error(inputs, self(inputs, visible).predicted, mask.nonzero()[:, 0])

    def allocate(self, inputs: Inputs) -> None:
        """Give every layer of learned width its bits, within the budget of the settings."""
        blind, visible = self.blind_spots(inputs, int(self.n_epochs))
        allocate_bits(
            self,
            self.settings.bit_budget,
            lambda: self._prediction_error(inputs, self(inputs, visible).predicted, blind),
        )

    def blind_spots(self, inputs: Inputs, draw: int) -> tuple[Tensor, list[Tensor]]:
        """Rows to be predicted, and what is left to be seen of each modality; the same for the same number of draw."""
        generator = torch.Generator().manual_seed(int(self.seed) + draw)
        blind = torch.rand(inputs.n_obs, 1, generator=generator) < self.settings.blind_fraction
        blind = blind.to(self.self_weights.device)
        return blind[:, 0].nonzero()[:, 0], [there * ~blind for there in inputs.present]

    def _validation_mask(self, inputs: Inputs) -> Tensor:
        """Spots that training never predicts, bool ``(n_obs,)``."""
        generator = torch.Generator().manual_seed(int(self.seed))
        mask = torch.rand(inputs.n_obs, generator=generator) < self.validation_size
        return mask.to(self.self_weights.device)

    def _prediction_error(self, inputs: Inputs, predicted: Tensor, rows: Tensor) -> Tensor:
        """Mean squared error of the features of `rows`, summed over the modalities by their weights."""
        total = predicted.new_zeros(())
        for m, x in enumerate(self._features(predicted[rows])):
            there = inputs.present[m][rows]
            error = (x - inputs.values[m][rows]).square() * there
            total = total + self.loss_weights[m] * error.sum() / (there.sum() * x.shape[1]).clamp(min=1)
        return total

    def _homogeneity(self, edges: Sequence[Tensor]) -> Tensor:
        """Distance of the edge weights from their running means, the mean over the graphs."""
        first, distances = int(self.n_epochs) == 0, []
        for i, weight in enumerate(edges):
            average = self.get_buffer(f"average_{i}")
            average.lerp_(weight.detach(), 1.0 if first else 1 - self.settings.ema_decay)
            distances.append(torch.linalg.vector_norm(weight - average))
        return torch.stack(distances).mean()

    # ------------------------------------------------------------- inference

    def latent(self, inputs: Inputs, encoded: Encoded, modality: int | None = None) -> Tensor:
        """Prediction corrected by the spots' own spikes, ``(n_obs, n_latent)``.

        Where a modality is missing, the prediction of it takes the place of its own spikes.
        """
        chosen = range(len(encoded.own)) if modality is None else [modality]
        predicted = encoded.predicted if modality is None else encoded.views[modality]
        own = torch.zeros_like(predicted)
        for m in chosen:
            expected = encoded.predicted @ self.get_buffer(f"expected_{m}")
            own = own + encoded.own[m] + (1 - inputs.present[m]) * expected
        latent = predicted + self.self_weights * (own - predicted)
        return nn.functional.pad(latent, (0, self.settings.n_latent - self.n_directions))

    def decode(self, inputs: Inputs, latent: Tensor) -> list[Tensor]:
        """Features ``(n_obs, n_features)`` of each modality, in the units of the data, about the center of each slice."""
        return [inputs.in_units(x, m) for m, x in enumerate(self._features(latent[:, : self.n_directions]))]

    def _features(self, predicted: Tensor) -> tuple[Tensor, ...]:
        """Standardized features of each modality from the spikes of ``(n, n_directions)``."""
        return self.decoder(self.decoder_code(predicted)).split(self.n_features, dim=1)

    def ring_weights(self) -> Tensor:
        """Weight of each ring in the prediction, ``(n_hops,)``; they sum to 1."""
        total = torch.zeros(self.settings.n_hops, device=self.self_weights.device)
        for layer in self.synapses:
            weight = layer.weight if not isinstance(layer, QuantLinear) else layer.used_weight
            parts = weight.unflatten(0, (-1, self.n_directions))[1 : 1 + self.settings.n_hops]
            total = total + parts.abs().sum((1, 2))
        return total / total.sum().clamp(min=1e-12)


def _edge_weights(settings: SpikeSettings, n_directions: int, n_edges: int) -> nn.Module:
    if settings.edges == "free":
        return FreeEdges(n_edges)
    return InductiveEdges(n_directions) if settings.edges == "inductive" else UniformEdges()


def _graph_convolution(weights: Sequence[float], bits: int | None) -> QuantConv2d:
    """The 1 x 1 convolution of two graphs as channels, ``2 -> 1``, which gives each graph one weight."""
    convolution = QuantConv2d(2, 1, 1, bias=False, bits=bits)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor(weights).view(1, 2, 1, 1))
        if convolution.quantizer is not None:
            convolution.quantizer.refit(convolution.weight)
    return convolution


def _neighbor_sum(graphs: Sequence[Graph], weights: Sequence[Tensor], x: Sequence[Tensor], visible: Tensor) -> Tensor:
    """Sum over the graphs of the weighted means of what the visible neighbors send, ``(n_obs, width)``."""
    column, total = visible.squeeze(1), torch.zeros_like(x[0])
    for graph, weight, sent in zip(graphs, weights, x, strict=True):
        seen = weight * column.index_select(0, graph.col)
        total = total + graph(sent, seen / graph.row_sum(seen).clamp(min=1e-6).index_select(0, graph.row))
    return total
