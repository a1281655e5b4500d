"""What the module is made of: neurons that code numbers, weights of edges, fusion of views, and blocks with attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stomics_tools.model._arguments import REMOVED_OPTIONS
from stomics_tools.model.praga_spike._settings import ADDED_ENCODERS, Encoder, SpikeSettings
from stomics_tools.nn import (
    DualSpikeAttention,
    Graph,
    Multispike,
    QuantLinear,
    RepLinear,
    SpikeAttention,
    SpikingRowAttention,
)

_MAX_KEPT = 30_000
"""Rows up to which a block keeps its inner values for the gradient."""
_FUSION_WIDTH = 16


def neurons(settings: SpikeSettings) -> nn.Module:
    """Neurons that fire up to ``n_levels - 1`` times, or ReLU for the model in floating point."""
    return nn.ReLU() if settings.encoder == "relu" else Multispike(settings.n_levels)


def linear(n_in: int, n_out: int, settings: SpikeSettings) -> nn.Module:
    """A map with quantized weights and its normalisation, which are folded into one in the end."""
    if settings.reparameterize:
        return RepLinear(n_in, n_out, settings.bits)
    return nn.Sequential(QuantLinear(n_in, n_out, bias=False, bits=settings.bits), nn.BatchNorm1d(n_out))


class PopulationCode(nn.Module):
    """Numbers of either sign as spikes of a population of neurons.

    A spike count has `n_levels` values, and none is negative. Each number ``u`` therefore drives ``2 C`` neurons, half of
    them by ``u`` and half by ``-u``, whose thresholds are staggered over one step of the count: together their counts
    tell ``2 C (n_levels - 1) + 1`` values of u apart, from ``-range`` to ``range``.

    Parameters
    ----------
    n_directions
        Numbers ``(n, n_directions)`` that are coded.
    settings
        Levels and kind of the neurons.
    """

    ranges: Tensor
    offsets: Tensor

    def __init__(self, n_directions: int, settings: SpikeSettings) -> None:
        super().__init__()
        copies, steps = settings.n_staggered, settings.n_levels - 1
        self.spike = neurons(settings)
        self.register_buffer("ranges", torch.ones(n_directions))
        stagger = ((torch.arange(copies) + 0.5) / copies - 0.5) / steps
        self.register_buffer("offsets", stagger.repeat(2).repeat_interleave(n_directions))

    @property
    def width(self) -> int:
        """Number of neurons."""
        return len(self.offsets)

    def forward(self, u: Tensor) -> Tensor:
        """Spikes ``(n, width)`` of numbers ``(n, n_directions)``."""
        scaled = u / self.ranges
        copies = self.width // (2 * len(self.ranges))
        return self.spike(torch.cat([scaled] * copies + [-scaled] * copies, dim=1) + self.offsets)

    def decoding(self, targets: Tensor) -> Tensor:
        """Weights ``(n_out, width)`` by which the spikes of u give ``targets @ u``, for ``targets`` ``(n_out, n_directions)``."""
        copies = self.width // (2 * len(self.ranges))
        weight = targets * self.ranges / copies
        return torch.cat([weight] * copies + [-weight] * copies, dim=1)


class UniformEdges(nn.Module):
    """All neighbors weigh the same."""

    def forward(self, graph: Graph, state: Tensor) -> Tensor:
        """Weights ``(n_edges,)`` that sum to 1 in each row."""
        ones = torch.ones(graph.n_edges, dtype=state.dtype, device=state.device)
        return ones / graph.row_sum(ones).clamp(min=1).index_select(0, graph.row)


class FreeEdges(nn.Module):
    """One free logit an edge: for the graph of training alone; elsewhere all neighbors weigh the same."""

    def __init__(self, n_edges: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(n_edges))

    def forward(self, graph: Graph, state: Tensor) -> Tensor:
        """Weights ``(n_edges,)`` that sum to 1 in each row."""
        return graph.row_softmax(self.logit)


class InductiveEdges(nn.Module):
    """Edges scored by the neighborhoods of their two ends: the closer, the heavier, or the reverse, as training finds.

    ``w_ij = softmax_j( -t |P s_i - P s_j|^2 )`` with the state s, what the neighbors alone predict of a spot: a cell
    is not compared with its neighbor but its neighborhood with the neighbor's.
    """

    def __init__(self, n_directions: int, width: int = 16) -> None:
        super().__init__()
        self.project = nn.Linear(n_directions, width, bias=False)
        self.sharpness = nn.Parameter(torch.zeros(()))

    def forward(self, graph: Graph, state: Tensor) -> Tensor:
        """Weights ``(n_edges,)`` that sum to 1 in each row."""
        position = self.project(state) / self.project.out_features**0.5
        size = position.square().sum(1)
        closeness = 2 * graph.edge_dots(position, position) - size.index_select(0, graph.col)
        return graph.row_softmax(self.sharpness * closeness)


class Fusion(nn.Module):
    """Weights of several views of each spot, by attention between spikes: ``softmax_v( score(spikes of W h_v) + b_v )``.

    Parameters
    ----------
    n_directions
        Width of the views.
    prior
        Weights to begin with, one a view, positive.
    settings
        Neurons and bits.

    Source: attention aggregation of SpatialGlue (Long et al., 2024), there with tanh in the place of spikes.
    """

    def __init__(self, n_directions: int, prior: Sequence[float], settings: SpikeSettings) -> None:
        super().__init__()
        self.code = PopulationCode(n_directions, settings)
        self.hidden = QuantLinear(self.code.width, _FUSION_WIDTH, bits=settings.bits)
        self.spike = neurons(settings)
        self.score = nn.Parameter(torch.zeros(_FUSION_WIDTH))
        self.bias = nn.Parameter(torch.tensor(prior).log())

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Weights ``(n, n_views)``, each row summing to 1, of views ``(n, n_directions)``."""
        scores = [self.spike(self.hidden(self.code(view))) @ self.score for view in views]
        return (torch.stack(scores, dim=1) + self.bias).softmax(1)


class SpikeBlock(nn.Module):
    """Graph aggregation of spikes and attention between spikes in parallel, then a perceptron of spikes.

    ``u <- u + g1 (A W s + V fire(attention(s)))`` and ``u <- u + g2 (W2 fire(W1 s))``, where s are the spikes of u: the
    membrane shortcut of QSD-Transformer. With ``residual="sew"`` the perceptron reads the sum of s and of the spikes that
    the first half fires, in the place of the spikes of its membrane (spike-element-wise shortcut).

    Parameters
    ----------
    n_directions
        Width of the membrane u.
    settings
        ``n_latent`` is the width of the attention, twice as much that of the perceptron.
    """

    def __init__(self, n_directions: int, settings: SpikeSettings) -> None:
        super().__init__()
        self.residual, width = settings.residual, settings.n_latent
        self.code = PopulationCode(n_directions, settings)
        n_neurons = self.code.width
        self.aggregate = linear(n_neurons, n_directions, settings)
        self.attention: Any = None
        if settings.use_attention:
            self.expand = linear(n_neurons, width, settings)
            self.attention = attention_of(settings)
            self.attention_spike = neurons(settings)
            self.read_attention = QuantLinear(width, n_directions, bias=False, bits=settings.bits)
        self.second_code = PopulationCode(n_directions, settings)
        self.hidden = linear(n_neurons, 2 * width, settings)
        self.hidden_spike = neurons(settings)
        self.contract = linear(2 * width, n_directions, settings)
        self.first_scale = nn.Parameter(torch.full((n_directions,), settings.layer_scale))
        self.second_scale = nn.Parameter(torch.full((n_directions,), settings.layer_scale))

    @property
    def codes(self) -> tuple[PopulationCode, ...]:
        """Neurons that read the membrane."""
        return self.code, self.second_code

    def forward(
        self, membrane: Tensor, graph: Graph, weight: Tensor, segments: Tensor, *, block_size: int | None = None
    ) -> Tensor:
        """Membrane ``(n, n_directions)`` to membrane; in evaluation the attention over blocks of rows, if they are given."""
        spikes = self.code(membrane)
        update = self._kept(self._aggregated, spikes, graph, weight)
        if self.attention is not None:
            update = update + self._kept(self._attended, spikes, segments, block_size)
        scaled = self.first_scale * update
        membrane = membrane + scaled
        inputs = self.second_code(membrane if self.residual == "membrane" else scaled)
        if self.residual == "sew":
            inputs = inputs + spikes
        return membrane + self.second_scale * self._kept(self._perceptron, inputs)

    def _aggregated(self, spikes: Tensor, graph: Graph, weight: Tensor) -> Tensor:
        return graph(self.aggregate(spikes), weight)

    def _attended(self, spikes: Tensor, segments: Tensor, block_size: int | None) -> Tensor:
        membrane = self.expand(spikes)
        if block_size is None or not hasattr(self.attention, "in_blocks"):
            read = self.attention(membrane, segments)
        else:
            read = self.attention.in_blocks(membrane, segments, block_size)
        return self.read_attention(self.attention_spike(read))

    def _perceptron(self, spikes: Tensor) -> Tensor:
        return self.contract(self.hidden_spike(self.hidden(spikes)))

    def attention_weights(self, membrane: Tensor, rows: Tensor, segments: Tensor) -> Tensor:
        """How much chosen rows ``(n_query,)`` read from each row of their segment, ``(n_query, n)``."""
        return self.attention.attention_weights(self.expand(self.code(membrane)), rows, segments)

    def _kept(self, part: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor:
        """Outcome of a part, whose inner values are kept for the gradient, or made again where there are many rows."""
        if len(x) <= _MAX_KEPT or not torch.is_grad_enabled():
            return part(x, *others)
        return checkpoint(part, x, *others, use_reentrant=False, context_fn=lambda: (nullcontext(), _still_norms(self)))


@contextmanager
def _still_norms(module: nn.Module) -> Iterator[None]:
    """Running statistics do not move a second time when values are made again."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    rates = [m for m in module.modules() if isinstance(m, DualSpikeAttention)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    for part in rates:
        part.follow_rates = False
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part in rates:
            part.follow_rates = True


def attention_of(settings: SpikeSettings) -> nn.Module:
    """The attention of an encoder, from ``(n, n_latent)`` and the row pointers of slices to ``(n, n_latent)``."""
    if settings.encoder in ADDED_ENCODERS:
        return ADDED_ENCODERS[settings.encoder](settings)
    if settings.encoder in ("spike", "relu"):
        n_levels = settings.n_levels if settings.encoder == "spike" else None
        return SpikeAttention(
            settings.n_latent,
            settings.n_heads,
            n_levels,
            settings.bits,
            rep=settings.reparameterize,
            windows=settings.attention_windows,
        )
    return SpikingRowAttention(
        settings.n_latent,
        settings.n_heads,
        settings.encoder,  # type: ignore[arg-type]
        n_steps=None if settings.encoder == "sdt3" else settings.n_steps,
        bits=settings.bits,
    )


def register_encoder(name: str, attention: Callable[[SpikeSettings], nn.Module]) -> None:
    """Add an encoder, for ``PRAGASpike(adata, encoder=name)``: another attention beside the graph aggregation.

    A saved model that uses it is loaded where it has been added before.

    Parameters
    ----------
    name
        Another name than those of the encoders that are there. One that was added before is replaced.
    attention
        Makes a module from the settings of the model; called ``n_layers`` times. Its ``forward(x, segments)`` gets what
        the neurons of a block have fired, mapped to ``(n, settings.n_latent)``, and the row pointers of the slices, int64
        ``(n_slices + 1,)``; it returns ``(n, settings.n_latent)``. With a method ``in_blocks(x, segments, block_size)``
        it works in blocks of rows in evaluation.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if name in get_args(Encoder):
        raise ValueError(f"`name`: {name!r} is an encoder of the package. Take another name.")
    if ("encoder", name) in REMOVED_OPTIONS["PRAGASpike"]:
        raise ValueError(f"`name`: {name!r} was an encoder of earlier versions. Take another name.")
    ADDED_ENCODERS[name] = attention
