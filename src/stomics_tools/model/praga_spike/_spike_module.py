"""PRAGASpike as a torch module: each spot predicted from its neighbours, then corrected by its own values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from stomics_tools.data._tensors import to_csr
from stomics_tools.model._prototypes import DynamicPrototypes
from stomics_tools.model.praga_spike._edges import FreeEdges, InductiveEdges, UniformEdges
from stomics_tools.model.praga_spike._encoders import layer_of
from stomics_tools.model.praga_spike._layers import FusionAttention, MembraneLayer
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.model.praga_spike._signal import Signal, own_noise
from stomics_tools.model.praga_spike._tissue import Moments, Tissue
from stomics_tools.nn import Graph, allocate_bits, hop_filter

_SPATIAL_SHARE = 0.9
"""Share of the neighbours in space to begin with; spots with like neighbourhoods have the rest."""
_N_DRAWS = 4
"""Draws of hidden spots by which the error of prediction is measured."""
_ALLOCATE_EVERY = 10  # epochs
_HELD_OUT = 0.2
"""Share of the spots that are never predicted in training; they tell how much the layers help."""
_MIN_WHOLE = 50
"""Spots with every modality from which the noise is told; where there are fewer, all are taken."""


@dataclass
class Encoded:
    """What the encoder finds, each of it for all spots.

    Parameters
    ----------
    own
        Values along the directions of spatial signal, ``(n_obs, n_directions)`` a modality.
    views
        What the neighbours predict of them, ``(n_obs, n_directions)`` a modality.
    predicted
        What they predict together, after the layers, ``(n_obs, n_directions)``.
    modality_weights
        Share of each modality, ``(n_obs, n_modalities)``.
    spatial_weights
        For each modality the share of the neighbours in space, ``(n_obs, n_modalities)``; spots with like
        neighbourhoods have the rest.
    edges
        Weights of each ring and then of each graph of like neighbourhoods, ``(n_edges,)``; each row sums to 1.
    """

    own: list[Tensor]
    views: list[Tensor]
    predicted: Tensor
    modality_weights: Tensor
    spatial_weights: Tensor
    edges: list[Tensor]


class SpikeModule(nn.Module):
    """Predict each spot from its neighbours alone, and let that prediction teach graphs, layers and fusion.

    In training a share of the spots is hidden from everything and predicted (a blind spot): whoever sees a spot
    learns to copy it. For modality m with features X, rings of neighbours R_h in space and spots with like
    neighbourhoods F::

        Y_m = X_m W_m                                          directions of spatial signal
        P_m = s_m sum_h a_mh * R_h Y_m + (1 - s_m) b_m * F_m Y_m   s_m: attention between the graphs of a spot
        P_0 = M sum_m w_m P_m                                  w_m: attention between modalities
        P   = P_0 + c (layers(P_0) - P_0)                      c: 1 in training
        Z   = P + g * (sum_m Y_m - P),   g = (1 - noise / residual)^2

    The directions are those of the closed form: trained, they would fit the noise of the one slice there is. What the
    layers add counts as much as it helps on spots held out from training: `c`, of all shares from 0 to 1, makes
    the error of their prediction least.

    The last line, after training, is the update of a Kalman filter: `residual` is the variance of the error of
    prediction, `noise` what no spot shares with another. Where domains are wide and single cells mixed, a spot's own
    values count little; where domains are narrow they count much. (The square makes less of small gains, which the
    estimate exaggerates.)

    Parameters
    ----------
    signal
        The closed-form solution that training starts from.
    moments
        Center ``(n_features,)`` and scale of each modality, kept for the preparation of other data.
    n_edges
        Edges of each ring and each graph of like neighbourhoods.
    loss_weights
        Weight of the prediction of each modality.
    settings
        See :class:`~stomics_tools.model.PRAGASpike`.
    center_slices
        Whether each slice was centered by itself in training, and is to be in other data.
    """

    center_slices: Tensor
    gain: Tensor
    layer_share: Tensor
    n_epochs: Tensor
    seed: Tensor

    def __init__(
        self,
        signal: Signal,
        moments: Sequence[Moments],
        n_edges: Sequence[int],
        loss_weights: Sequence[float],
        settings: SpikeSettings,
        center_slices: bool = False,
    ) -> None:
        super().__init__()
        self.settings, self.loss_weights = settings, list(loss_weights)
        n_directions, n_modalities = signal.hops.shape[2], len(moments)
        for m, (center, scale) in enumerate(moments):
            self.register_buffer(f"center_{m}", center)
            self.register_buffer(f"scale_{m}", scale)
            self.register_buffer(f"encoder_{m}", signal.encoders[m].clone())
            self.register_buffer(f"decoder_{m}", signal.decoders[m].clone())
        self.register_buffer("center_slices", torch.tensor(center_slices))
        self.register_buffer("gain", torch.zeros(n_directions))
        self.register_buffer("layer_share", torch.ones(()))
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seed", torch.randint(2**62, ()))
        self.hops = nn.Parameter(signal.hops.clone(memory_format=torch.contiguous_format))
        self.alike = nn.Parameter(signal.alike.clone(memory_format=torch.contiguous_format))
        self.edges = nn.ModuleList(_edges(settings, n_directions, n) for n in n_edges)
        averaged = settings.homogeneity_weight > 0 and settings.edges != "uniform"
        for i, n in enumerate(n_edges if averaged else []):
            self.register_buffer(f"average_{i}", torch.zeros(n))
        both_graphs = settings.use_fusion and settings.n_feature_neighbors > 0
        shares = (_SPATIAL_SHARE, 1 - _SPATIAL_SHARE)
        self.graph_fusion = nn.ModuleList(FusionAttention(n_directions, shares) for _ in moments if both_graphs)
        several = settings.use_fusion and n_modalities > 1
        self.modality_fusion = FusionAttention(n_directions, (1.0,) * n_modalities) if several else None
        layer = layer_of(settings.encoder)
        self.layers: Sequence[MembraneLayer] = nn.ModuleList(layer(settings) for _ in range(settings.n_layers))  # type: ignore[assignment]
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
        return [(self.get_buffer(f"center_{m}"), self.get_buffer(f"scale_{m}")) for m in range(len(self.hops))]

    @property
    def encoders(self) -> list[Tensor]:
        """Features to directions, ``(n_features, n_directions)`` a modality."""
        return [self.get_buffer(f"encoder_{m}") for m in range(len(self.hops))]

    @property
    def decoders(self) -> list[Tensor]:
        """Directions to features, ``(n_directions, n_features)`` a modality."""
        return [self.get_buffer(f"decoder_{m}") for m in range(len(self.hops))]

    def encode(
        self,
        tissue: Tissue,
        visible: Sequence[Tensor] | None = None,
        *,
        block_size: int | None = None,
        free_edges: bool = True,
    ) -> Encoded:
        """Directions, predictions and weights.

        Parameters
        ----------
        tissue
            The spots.
        visible
            1 for what may be seen, 0 for the rest, ``(n_obs, 1)`` a modality; by default what is present.
        block_size
            Rows that a layer takes at a time, in evaluation; the outcome does not depend on it. None: all.
        free_edges
            Whether free weights of edges belong to these graphs; if not, all neighbours weigh the same.
        """
        visible = tissue.present if visible is None else visible
        n_modalities, n_rings = len(tissue.values), len(tissue.rings)
        own = [x @ w for x, w in zip(tissue.values, self.encoders, strict=True)]
        edges = self._scored_edges(tissue, own, visible, free_edges)
        views, spatial = [], []
        for m, (y, v) in enumerate(zip(own, visible, strict=True)):
            view = _filtered(tissue.rings, edges[:n_rings], y, v, self.hops[m])
            share = torch.ones_like(v)
            if len(self.graph_fusion):
                far = _filtered([tissue.alike[m]], [edges[n_rings + m]], y, v, self.alike[m : m + 1])
                both = torch.stack([view, far])
                shares = self.graph_fusion[m](both)
                view, share = _weighted(shares, both), shares[:, :1]
            views.append(view)
            spatial.append(share)
        stacked = torch.stack(views)
        if self.modality_fusion is None:
            weights = stacked.new_full((tissue.n_obs, n_modalities), 1 / n_modalities)
        else:
            weights = self.modality_fusion(stacked)
        start = self._padded(n_modalities * _weighted(weights, stacked))
        membrane = start
        for layer in self.layers:
            if block_size is None:
                membrane = layer(membrane, tissue.rings[0], edges[0], tissue.segments)
            else:
                membrane = layer.in_blocks(membrane, tissue.rings[0], edges[0], tissue.segments, block_size)
        if not self.training:
            membrane = start + self.layer_share * (membrane - start)
        return Encoded(
            own=own,
            views=views,
            predicted=membrane[:, : stacked.shape[2]],
            modality_weights=weights,
            spatial_weights=torch.cat(spatial, dim=1),
            edges=edges,
        )

    def _padded(self, directions: Tensor) -> Tensor:
        """Columns of zeros up to the width of the latent representation."""
        return nn.functional.pad(directions, (0, self.settings.n_latent - directions.shape[1]))

    def _scored_edges(
        self, tissue: Tissue, own: Sequence[Tensor], visible: Sequence[Tensor], free_edges: bool
    ) -> list[Tensor]:
        """Weights of the edges of all graphs, each row summing to 1; they do not teach what they are scored by."""
        uniform = UniformEdges()
        with torch.no_grad():
            plain = [uniform(ring, self.hops) for ring in tissue.rings]
            state = torch.zeros_like(own[0])
            if self.settings.edges == "inductive":
                for y, v, scale in zip(own, visible, self.hops, strict=True):
                    state += _filtered(tissue.rings, plain, y, v, scale)
        scores = [uniform if isinstance(s, FreeEdges) and not free_edges else s for s in self.edges]
        return [score(graph, state) for score, graph in zip(scores, [*tissue.rings, *tissue.alike], strict=True)]

    # -------------------------------------------------------------- training

    def set_targets(self, tissue: Tissue, denoised: Mapping[str, np.ndarray] | None) -> None:
        """Modalities as a teacher sees them, in the units and order of its object; None: no teacher."""
        if denoised is None:
            self.targets = None
            return
        tissue = tissue.to(self.gain.device)
        values = [torch.from_numpy(x[tissue.order]).to(self.gain) for _, x in sorted(denoised.items())]
        self.targets = [tissue.standardized(x, m) for m, x in enumerate(values)]

    def loss(self, tissue: Tissue) -> dict[str, Tensor]:
        """Losses of one training step; running means and prototypes move on with it."""
        settings = self.settings
        hidden, visible = self._hide(tissue, int(self.n_epochs))
        taught = ~self._held_out(tissue)
        hidden = hidden[taught[hidden]]
        if settings.weight_bits == "learned" and len(self.layers) and int(self.n_epochs) % _ALLOCATE_EVERY == 0:
            allocate_bits(
                self,
                settings.bit_budget,
                lambda: self._prediction_error(tissue, self.encode(tissue, visible).predicted, hidden),
            )
        encoded = self.encode(tissue, visible)
        losses = {"reconstruction_loss": self._prediction_error(tissue, encoded.predicted, hidden)}
        total = losses["reconstruction_loss"]
        if hasattr(self, "average_0"):
            losses["homogeneity_loss"] = self._homogeneity(encoded.edges)
            total = total + settings.homogeneity_weight * losses["homogeneity_loss"]
        if self.prototypes is not None:
            losses["prototype_loss"] = self.prototypes.loss(encoded.predicted, int(self.n_epochs), neighbours(tissue))
            total = total + settings.prototype_weight * losses["prototype_loss"]
        if self.targets is not None:
            errors = [
                (encoded.predicted @ d - target)[taught].square().mean()
                for d, target in zip(self.decoders, self.targets, strict=True)
            ]
            losses["distillation_loss"] = torch.stack(errors).sum()
            total = total + settings.distill_weight * losses["distillation_loss"]
        self.n_epochs += 1
        return {"train_loss": total, **losses}

    def _hide(self, tissue: Tissue, draw: int) -> tuple[Tensor, list[Tensor]]:
        """Rows to be predicted, and what is left to be seen of each modality; the same for the same number of draw."""
        generator = torch.Generator().manual_seed(int(self.seed) + draw)
        hidden = torch.rand(tissue.n_obs, 1, generator=generator) < self.settings.hidden_share
        rows, shown = hidden.squeeze(1).nonzero().squeeze(1), ~hidden.to(self.gain.device)
        return rows.to(self.gain.device), [there * shown for there in tissue.present]

    def _held_out(self, tissue: Tissue) -> Tensor:
        """Whether a spot is held out, ``(n_obs,)``; none where there are no layers to judge."""
        if not len(self.layers):
            return torch.zeros(tissue.n_obs, dtype=torch.bool, device=self.gain.device)
        generator = torch.Generator().manual_seed(int(self.seed))
        return (torch.rand(tissue.n_obs, generator=generator) < _HELD_OUT).to(self.gain.device)

    def _prediction_error(self, tissue: Tissue, predicted: Tensor, rows: Tensor) -> Tensor:
        """Mean squared error of the features of `rows`, summed over the modalities by their weights."""
        total = predicted.new_zeros(())
        for m, x in enumerate(tissue.values):
            there = tissue.present[m][rows]
            error = (predicted[rows] @ self.decoders[m] - x[rows]).square() * there
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

    @torch.no_grad()
    def finish(self, tissue: Tissue) -> None:
        """After training: the shares of the layers and of each spot's own values."""
        if len(self.layers):
            self._weigh_layers(tissue)
        whole = torch.stack(tissue.present).prod(0)  # zeros that stand for a missing modality are no noise
        if whole.sum() < _MIN_WHOLE:
            whole = torch.ones_like(whole)
        total, count = self.gain.new_zeros(len(self.gain)), self.gain.new_zeros(())
        for draw in range(_N_DRAWS):
            hidden, visible = self._hide(tissue, -1 - draw)
            encoded = self.encode(tissue, visible)
            own = torch.stack(encoded.own).sum(0)
            error = (own - encoded.predicted)[hidden].square() * whole[hidden]
            total, count = total + error.sum(0), count + whole[hidden].sum()
        residual = (total / count.clamp(min=1)).clamp(min=1e-9)
        noise = own_noise(own, tissue, whole)
        self.gain.copy_((1 - noise / residual).clamp(0, 1).square())

    def _weigh_layers(self, tissue: Tissue) -> None:
        """The share of the layers of least error on the spots held out: the lowest point of a parabola."""
        held = self._held_out(tissue)
        visible = [there * ~held[:, None] for there in tissue.present]
        errors = []
        for share in (0.0, 0.5, 1.0):
            self.layer_share.fill_(share)
            errors.append(self._prediction_error(tissue, self.encode(tissue, visible).predicted, held.nonzero()[:, 0]))
        none, half, full = errors
        curvature, slope = 2 * (none - 2 * half + full), 4 * half - 3 * none - full
        self.layer_share.copy_((-slope / (2 * curvature).clamp(min=1e-12)).clamp(0, 1))

    # ------------------------------------------------------------- inference

    def latent(self, tissue: Tissue, encoded: Encoded, modality: int | None = None) -> Tensor:
        """Prediction corrected by the spots' own values, ``(n_obs, n_latent)``.

        Where a modality is missing, the prediction of it takes the place of its own values.
        """
        chosen = range(len(encoded.own)) if modality is None else [modality]
        predicted = encoded.predicted if modality is None else encoded.views[modality]
        own = torch.zeros_like(predicted)
        for m in chosen:
            there = tissue.present[m]
            expected = encoded.predicted @ self.decoders[m] @ self.encoders[m]
            own = own + there * encoded.own[m] + (1 - there) * expected
        return self._padded(predicted + self.gain * (own - predicted))

    def decode(self, tissue: Tissue, latent: Tensor) -> list[Tensor]:
        """Features ``(n_obs, n_features)`` of each modality, in the units of the data, about the center of each slice."""
        return [tissue.in_units(latent[:, : len(d)] @ d, m) for m, d in enumerate(self.decoders)]

    def spatial_shares(self) -> Tensor:
        """Share of each ring in the prediction, ``(n_hops,)``; they sum to 1."""
        share = self.hops.abs().sum((0, 2))
        return share / share.sum()


def neighbours(tissue: Tissue) -> sparse.csr_matrix:
    """The first ring as a matrix."""
    ring = tissue.rings[0]
    return to_csr(ring, torch.ones(ring.n_edges))


def _edges(settings: SpikeSettings, n_directions: int, n_edges: int) -> nn.Module:
    if settings.edges == "free":
        return FreeEdges(n_edges)
    return InductiveEdges(n_directions) if settings.edges == "inductive" else UniformEdges()


def _filtered(graphs: Sequence[Graph], weights: Sequence[Tensor], x: Tensor, visible: Tensor, scale: Tensor) -> Tensor:
    """Sum over the graphs of the weighted means of the neighbours that are visible, each column by its own scale."""
    column, shown = visible.squeeze(1), []
    for graph, weight in zip(graphs, weights, strict=True):
        seen = weight * column.index_select(0, graph.col)
        shown.append(seen / graph.row_sum(seen).clamp(min=1e-6).index_select(0, graph.row))
    return hop_filter(graphs, shown, x, scale=scale)


def _weighted(weights: Tensor, views: Tensor) -> Tensor:
    """Sum over the views ``(n_views, n, width)`` by the weights ``(n, n_views)``."""
    return (weights.T[..., None] * views).sum(0)
