"""Layers of the encoder: fusion, and graph aggregation with attention beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.nn import Graph, Multispike, QuantLinear, RepLinear, SpikeAttention

_MAX_KEPT = 30_000
"""Rows up to which a layer keeps its inner values for the gradient."""


def activation(settings: SpikeSettings) -> nn.Module:
    """What stands between the linear layers of an encoder."""
    if settings.encoder == "spike":
        return Multispike(settings.n_levels)
    return nn.ReLU() if settings.encoder == "relu" else nn.Identity()


class FusionAttention(nn.Module):
    """Weights of several views of each spot, by attention: ``softmax_v( u . tanh(W h_v) + b_v )``.

    Parameters
    ----------
    n_latent
        Width of the views.
    prior
        Shares to begin with, one a view, positive.

    Source: attention aggregation of SpatialGlue (Long et al., 2024).
    """

    def __init__(self, n_latent: int, prior: Sequence[float], width: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_latent, width)
        self.score = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.tensor(prior).log())

    def forward(self, views: Tensor) -> Tensor:
        """Weights ``(n, n_views)``, each row summing to 1, of views ``(n_views, n, n_latent)``."""
        return ((torch.tanh(self.hidden(views)) @ self.score).T + self.bias).softmax(1)


class MembraneLayer(nn.Module):
    """Graph aggregation and attention beside it, then a map of each spot, both added to the membrane.

    ``u <- u + g1 (L(A s) + attention(norm(u)))`` and ``u <- u + g2 within(u)``, where s is what the neurons of
    ``norm(u)`` fire: spikes pass through the layers, the membrane goes past them (membrane shortcut).
    """

    attention: Any  # None, or what has `windows`, `forward` and `accumulate` as SpikeAttention

    def __init__(self, settings: SpikeSettings) -> None:
        super().__init__()
        n_latent = settings.n_latent
        self.norm, self.second_norm = nn.BatchNorm1d(n_latent), nn.BatchNorm1d(n_latent)
        self.aggregate = linear(n_latent, n_latent, settings)
        self.first_scale = nn.Parameter(torch.full((n_latent,), settings.layer_scale))
        self.second_scale = nn.Parameter(torch.full((n_latent,), settings.layer_scale))

    def fired(self, normed: Tensor) -> Tensor:
        """What the neighbours see of the normalised membrane ``(n, n_latent)``, in the same shape."""
        raise NotImplementedError

    def within(self, normed: Tensor) -> Tensor:
        """What a spot makes of its own normalised membrane, ``(n, n_latent)``."""
        raise NotImplementedError

    def read(self, normed: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """What a block of rows reads from the sum of the states of its segment, which has `n_rows`."""
        raise NotImplementedError

    def forward(self, membrane: Tensor, graph: Graph, weight: Tensor, segments: Tensor) -> Tensor:
        """Membrane ``(n, n_latent)`` to membrane."""
        normed = self.norm(membrane)
        update = self._kept(self._around, normed, graph, weight)
        if self.attention is not None:
            update = update + self._kept(self.attention, normed, segments)
        membrane = membrane + self.first_scale * update
        return membrane + self._kept(self._within, membrane)

    def _around(self, normed: Tensor, graph: Graph, weight: Tensor) -> Tensor:
        return self.aggregate(graph(self.fired(normed), weight))

    def _within(self, membrane: Tensor) -> Tensor:
        return self.second_scale * self.within(self.second_norm(membrane))

    def _kept(self, part: Callable[..., Tensor], membrane: Tensor, *others: Any) -> Tensor:
        """Outcome of a part, whose inner values are kept for the gradient, or made again where there are many rows."""
        if len(membrane) <= _MAX_KEPT or not torch.is_grad_enabled():
            return part(membrane, *others)
        return checkpoint(
            part, membrane, *others, use_reentrant=False, context_fn=lambda: (nullcontext(), _still_norms(self))
        )

    @torch.no_grad()
    def in_blocks(self, membrane: Tensor, graph: Graph, weight: Tensor, segments: Tensor, block_size: int) -> Tensor:
        """The same in evaluation, over blocks of rows: beside a few arrays of all rows, memory O(block_size)."""
        blocks = [slice(i, min(i + block_size, len(membrane))) for i in range(0, len(membrane), block_size)]
        spikes = torch.cat([self.fired(self.norm(membrane[rows])) for rows in blocks])
        update = torch.cat([self.aggregate(graph.rows(spikes, weight, rows.start, rows.stop)) for rows in blocks])
        if self.attention is not None and self.attention.windows == (None,):
            for first, last in zip(segments[:-1].tolist(), segments[1:].tolist(), strict=True):
                parts = [slice(i, min(i + block_size, last)) for i in range(first, last, block_size)]
                state = torch.stack([self.attention.accumulate(self.norm(membrane[rows])) for rows in parts]).sum(0)
                for rows in parts:
                    update[rows] += self.read(self.norm(membrane[rows]), state, last - first)
        elif self.attention is not None:  # a window can lie across two blocks
            update += self.attention(self.norm(membrane), segments)
        membrane = membrane + self.first_scale * update
        for rows in blocks:
            membrane[rows] += self._within(membrane[rows])
        return membrane


class SpikeLayer(MembraneLayer):
    """A :class:`MembraneLayer` whose neurons are :func:`activation`, without time steps."""

    def __init__(self, settings: SpikeSettings) -> None:
        super().__init__(settings)
        n_latent = settings.n_latent
        self.spike, self.second_spike, self.inner_spike = (activation(settings) for _ in range(3))
        self.attention = None
        if settings.attends:
            self.attention = SpikeAttention(
                n_latent,
                settings.n_heads,
                settings.n_levels if settings.encoder == "spike" else None,
                settings.bits,
                rep=settings.reparameterize,
                windows=settings.attention_windows,
            )
        self.expand = linear(n_latent, 2 * n_latent, settings)
        self.contract = linear(2 * n_latent, n_latent, settings)

    def fired(self, normed: Tensor) -> Tensor:
        """Spike counts in units of the largest."""
        return self.spike(normed)

    def within(self, normed: Tensor) -> Tensor:
        """Two linear maps, neurons before each."""
        return self.contract(self.inner_spike(self.expand(self.second_spike(normed))))

    def read(self, normed: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """The state holds the number of rows."""
        return self.attention.read(normed, state)


@contextmanager
def _still_norms(module: nn.Module) -> Iterator[None]:
    """Running statistics do not move a second time when values are made again."""
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def linear(n_in: int, n_out: int, settings: SpikeSettings) -> nn.Module:
    if settings.reparameterize:
        return RepLinear(n_in, n_out, settings.bits)
    return nn.Sequential(QuantLinear(n_in, n_out, bias=False, bits=settings.bits), nn.BatchNorm1d(n_out))
