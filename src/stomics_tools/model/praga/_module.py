"""PRAGA as a torch module on edge lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stomics_tools.model._centers import add_centers, slice_sums
from stomics_tools.model._prototypes import MixturePrototypes
from stomics_tools.model.praga._inputs import Inputs
from stomics_tools.model.praga._settings import PragaSettings
from stomics_tools.nn import Graph, normalize_symmetric


def learned_weights(graph: Graph, value: Tensor) -> Tensor:
    """Weights of the learned graph, ``D^-1/2 (B + I) D^-1/2`` with ``B = ReLU((P + P^T) / 2)``.

    Parameters
    ----------
    graph
        A symmetric pattern with all of the diagonal.
    value
        The entries ``P`` of the pattern, ``(n_edges,)``.

    Entries outside of the pattern would stay zero for ever (their ReLU has no gradient, and decay and momentum keep
    a zero), so this is the published n x n parameter, on the edges alone.
    """
    weight = torch.relu(graph.mirror_mean(value)) + (graph.row == graph.col)
    return normalize_symmetric(graph, weight)


class LearnedGraph(nn.Module):
    """A feature graph with one free value an edge, and the running mean that keeps it steady."""

    average: Tensor

    def __init__(self, graph: Graph, initial: Tensor) -> None:
        super().__init__()
        self.graph = graph
        self.value = nn.Parameter(initial.clone())
        self.register_buffer("average", initial.clone())

    def forward(self) -> Tensor:
        """Weights of the edges, ``(n_edges,)``."""
        return learned_weights(self.graph, self.value)


class PragaModule(nn.Module):
    """Adaptive graph aggregation, linear encoder and decoder, and prototypes.

    For each modality with features X, spatial graph S and learned graph A, all on edges:
    ``Z_m = (a S + b A + c 1 1^T) X W``, where the last term is the column sums of ``X W`` over a slice;
    ``Z = L2(L1([Z_1 ... Z_M]))``; reconstruction ``S Z V``.

    Parameters
    ----------
    moments
        Center ``(n_features,)`` and scale of each modality, kept for the preparation of other data.
    graphs
        Feature graph of each modality and its first weights.
    loss_weights
        Weight of the reconstruction of each modality.
    settings
        See :class:`~stomics_tools.model.PRAGA`.
    center_slices
        Whether each slice was centered by itself in training, and is to be in other data.

    Source: PRAGA, arXiv 2409.12728, and the code published with it.
    """

    center_slices: Tensor
    n_epochs: Tensor

    def __init__(
        self,
        moments: Sequence[tuple[Tensor, Tensor]],
        graphs: Sequence[tuple[Graph, Tensor]],
        loss_weights: Sequence[float],
        settings: PragaSettings,
        center_slices: bool = False,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("center_slices", torch.tensor(center_slices))
        self.loss_weights = list(loss_weights)
        n_latent, n_features = settings.n_latent, [len(center) for center, _ in moments]
        for m, (center, scale) in enumerate(moments):
            self.register_buffer(f"center_{m}", center)
            self.register_buffer(f"scale_{m}", scale)
        self.mix = nn.ParameterList(nn.init.uniform_(torch.empty(3), -(2**-0.5), 2**-0.5) for _ in n_features)
        self.encoders = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(n, n_latent)) for n in n_features)
        self.decoders = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(n_latent, n)) for n in n_features)
        self.fusion = nn.Sequential(nn.Linear(len(n_features) * n_latent, n_latent), nn.Linear(n_latent, n_latent))
        self.learned: Sequence[LearnedGraph] = nn.ModuleList(LearnedGraph(*graph) for graph in graphs)  # type: ignore[assignment]
        self.prototypes = MixturePrototypes(
            n_latent,
            settings.n_prototypes,
            settings.prototype_start,
            settings.prototype_every,
            settings.temperature,
        )
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.int64))

    @property
    def moments(self) -> list[tuple[Tensor, Tensor]]:
        """Center and scale of each modality in training."""
        return [(self.get_buffer(f"center_{m}"), self.get_buffer(f"scale_{m}")) for m in range(len(self.encoders))]

    def edge_weights(self, inputs: Inputs, *, trained_on: bool) -> list[Tensor]:
        """Weights of the feature graphs: as learned for the data of training, as training starts from for others."""
        if trained_on:
            return [learned() for learned in self.learned]
        return [learned_weights(graph, value) for graph, value in inputs.features]

    def forward(self, inputs: Inputs, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Latent of all modalities together and of each, ``(n_obs, n_latent)``, given the feature graphs' weights."""
        spatial, spatial_weight = inputs.spatial
        each = []
        for m, x in enumerate(inputs.values):
            hidden = x @ self.encoders[m]
            a, b, c = self.mix[m]
            graph = inputs.features[m][0]
            each.append(
                a * spatial(hidden, spatial_weight)
                + b * graph(hidden, weights[m])
                + c * slice_sums(hidden, inputs.segments)
            )
        return self.fusion(torch.cat(each, dim=1)), each

    def loss(self, inputs: Inputs) -> dict[str, Tensor]:
        """Losses of one training step; the running means and prototypes move on with it."""
        current = [graph() for graph in self.learned]
        epoch = int(self.n_epochs)
        if epoch > 0:
            for graph, weight in zip(self.learned, current, strict=True):
                graph.average.lerp_(weight.detach(), 1 - self.settings.ema_decay)
        # The published model sees its first feature graph once as it is, without the second normalisation.
        used = current if epoch > 0 else [weight for _, weight in inputs.features]
        latent, _ = self(inputs, used)
        reconstruction = self._reconstruction_loss(inputs, latent)
        homogeneity = torch.stack(
            [torch.linalg.vector_norm(w - g.average) for g, w in zip(self.learned, current, strict=True)]
        ).mean()
        prototype = latent.new_zeros(())
        if self.settings.prototype_weight > 0:
            prototype = self.settings.prototype_weight * self.prototypes.loss(latent, epoch)
        self.n_epochs += 1
        return {
            "train_loss": reconstruction + self.settings.homogeneity_weight * homogeneity + prototype,
            "reconstruction_loss": reconstruction,
            "homogeneity_loss": homogeneity,
            "prototype_loss": prototype,
        }

    def _reconstruction_loss(self, inputs: Inputs, latent: Tensor) -> Tensor:
        spatial, spatial_weight = inputs.spatial
        smooth = spatial(latent, spatial_weight)
        total = latent.new_zeros(())
        for m, x in enumerate(inputs.values):
            error = (smooth @ self.decoders[m] - x).square()
            present = inputs.present[m]
            total = total + self.loss_weights[m] * (error if present is None else error[present]).mean()
        return total

    def decode(self, inputs: Inputs, latent: Tensor) -> list[Tensor]:
        """Features ``(n_obs, n_features)`` of each modality, in the units of the data."""
        smooth = inputs.spatial[0](latent, inputs.spatial[1])
        return [
            add_centers(smooth @ d * scale, centers, inputs.segments)
            for d, centers, (_, scale) in zip(self.decoders, inputs.centers, self.moments, strict=True)
        ]

    @torch.no_grad()
    def latent(
        self, inputs: Inputs, weights: Sequence[Tensor], *, modality: int | None = None, block_size: int = 8192
    ) -> Tensor:
        """The latent of :meth:`forward`, L2-normalised, computed layer by layer over blocks of rows.

        Exact for any graph, since every layer is finished for all spots before the next reads it. Memory beside the
        inputs: O(n_obs x n_latent) and one block.
        """
        n_obs = inputs.n_obs
        blocks = [(start, min(start + block_size, n_obs)) for start in range(0, n_obs, block_size)]
        hidden = [
            torch.cat([x[start:stop] @ encoder for start, stop in blocks])
            for x, encoder in zip(inputs.values, self.encoders, strict=True)
        ]
        sums = [slice_sums(h, inputs.segments) for h in hidden]
        spatial, spatial_weight = inputs.spatial
        result = hidden[0].new_empty(n_obs, self.settings.n_latent)
        for start, stop in blocks:
            each = []
            for m, h in enumerate(hidden):
                a, b, c = self.mix[m]
                near = spatial.rows(h, spatial_weight, start, stop)
                alike = inputs.features[m][0].rows(h, weights[m], start, stop)
                each.append(a * near + b * alike + c * sums[m][start:stop])
            result[start:stop] = self.fusion(torch.cat(each, dim=1)) if modality is None else each[modality]
        return nn.functional.normalize(result, dim=1)


def restored_module(
    tensors: Mapping[str, Tensor], loss_weights: Sequence[float], settings: PragaSettings
) -> PragaModule:
    """A module into which saved tensors fit."""
    indices = range(len(loss_weights))
    graphs = [
        (Graph(tensors[f"learned.{m}.graph.crow"], tensors[f"learned.{m}.graph.col"]), tensors[f"learned.{m}.value"])
        for m in indices
    ]
    moments = [(tensors[f"center_{m}"], tensors[f"scale_{m}"]) for m in indices]
    return PragaModule(moments, graphs, loss_weights, settings)
