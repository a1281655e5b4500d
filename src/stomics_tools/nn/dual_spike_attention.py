"""Attention between spikes and groups of rows, in which one of two factors is always spikes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.row_groups import consecutive_groups, group_mean
from stomics_tools.nn.spiking_self_attention import SpikingLayer, lif

_MOMENTUM = 0.001
_LEAST_RATE = 1e-4
"""Of heads that are silent, whose scale would be infinite."""


class DualSpikeAttention(nn.Module):
    """Attention of rows to groups of rows, by two products of spikes with numbers.

    With spikes X and the function ``f(X) = BN(pool(X) W)`` from N rows to G groups, which gives Y1 and Y2, each
    ``(G, d)`` for a head of width d,

    ``A = neuron(X Y1^T / sqrt(r d))``, ``(N, G)``, and ``y = neuron(A Y2 / sqrt(s G))``,

    where r and s are the running rates at which X and A fire, one a head: as many products of spikes are added up.
    A last layer mixes the heads. Neither Y1 nor Y2 are spikes, but what they are multiplied with always is.

    In the source rows are pixels, and f is a convolution of p x p pixels with stride p, in which each pixel of a patch
    has weights of its own. Spots have neither rows nor columns: the mean over a group of spots, in no order, and the
    weights that they share take its place. With groups of one row both are the same.

    Cost and numbers made: O(N G) a head, held for some rows at a time; in training they are made twice.

    Parameters
    ----------
    n_features
        Width C, a multiple of `n_heads`.
    n_heads
        Number of heads.
    group_size
        Rows of a group where none are given, p^2 in the source.
    n_rows
        Rows of which the map is held at a time.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape.
    output_spikes
        Whether neurons follow the last layer, as where residuals are sums of spikes.
    bits
        Bits of the weights, as of :class:`QuantLinear`.

    Source: dual spike self-attention of SpikingResformer (Shi et al., 2024), formula and scales as in its code.
    """

    input_rate: Tensor
    map_rate: Tensor
    initialised: Tensor

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        *,
        group_size: int = 16,
        n_rows: int = 1024,
        neuron: Callable[[float], nn.Module] = lif,
        output_spikes: bool = True,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if n_heads < 1 or n_features % n_heads:
            raise ValueError(f"`n_features` must be a multiple of `n_heads`, found {n_features} and {n_heads}.")
        for name, value in (("group_size", group_size), ("n_rows", n_rows)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        self.n_heads, self.group_size, self.n_rows = n_heads, group_size, n_rows
        self.reduce = SpikingLayer(n_features, 2 * n_features, None, bits=bits)
        self.map_neuron, self.attention_neuron = neuron(1.0), neuron(1.0)
        self.project = SpikingLayer(n_features, n_features, neuron if output_spikes else None, bits=bits)
        self.register_buffer("input_rate", torch.ones(n_heads))
        self.register_buffer("map_rate", torch.ones(n_heads))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor, groups: Tensor | None = None) -> Tensor:
        """What each row reads.

        Parameters
        ----------
        x
            Spikes ``(T, B, N, C)``: time steps, sets, rows of a set, features.
        groups
            Group of each row from 0, int64 ``(N,)``; by default rows that lie one after the other.

        Returns
        -------
        ``(T, B, N, C)``.
        """
        groups = consecutive_groups(x.shape[2], self.group_size, x.device) if groups is None else groups
        first, second = self._heads(self.reduce(group_mean(x, groups))).chunk(2, dim=-1)
        heads = self._heads(x)
        if self.training:
            self._follow(self.input_rate, heads.detach().mean((0, 1, 3, 4)))
        keys = first * _scale(self.input_rate, first.shape[-1])
        blocks = heads.split(self.n_rows, dim=-2)
        # The map of a block is not kept for the gradient, where there are several.
        again = len(blocks) > 1 and torch.is_grad_enabled()
        parts = [
            checkpoint(self._rows, block, keys, second, use_reentrant=False)
            if again
            else self._rows(block, keys, second)
            for block in blocks
        ]
        if self.training:
            fired = torch.stack([events for _, events in parts]).sum(0)
            self._follow(self.map_rate, fired / (heads[..., 0].numel() / self.n_heads * second.shape[-2]))
            self.initialised.fill_(True)
        sums = torch.cat([part for part, _ in parts], dim=-2) * _scale(self.map_rate, second.shape[-2])
        return self.project(self.attention_neuron(sums.transpose(2, 3).flatten(3)))

    def _rows(self, spikes: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """``A Y2`` of a block of rows, and the sum of A for each head."""
        read = self.map_neuron(spikes @ keys.mT)
        return read @ values, read.detach().sum((0, 1, 3, 4))

    def _follow(self, rate: Tensor, found: Tensor) -> None:
        rate.lerp_(found.to(rate), _MOMENTUM if self.initialised else 1.0)

    def _heads(self, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to ``(T, B, heads, N, C / heads)``."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3)


def _scale(rate: Tensor, n: int) -> Tensor:
    """``1 / sqrt(rate n)``, ``(heads, 1, 1)``; of no later change of the rate."""
    return 1 / (rate.clamp(min=_LEAST_RATE) * n).sqrt()[:, None, None]
