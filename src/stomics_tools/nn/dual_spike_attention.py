"""Attention between spikes and groups of rows, in which one of two factors is always spikes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.row_groups import consecutive_groups, group_mean
from stomics_tools.nn.segments import evaluating, segment_lengths, segment_of_rows, within
from stomics_tools.nn.spiking_layer import SpikingLayer, lif

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
        Rows of a group where none are given, p^2 in the source; 16 if neither it nor `n_groups` is set.
    n_groups
        Number of groups of each segment instead, as equal as they can be: the cost is linear in the number of rows.
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
        group_size: int | None = None,
        n_groups: int | None = None,
        n_rows: int = 1024,
        neuron: Callable[[float], nn.Module] = lif,
        output_spikes: bool = True,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if n_heads < 1 or n_features % n_heads:
            raise ValueError(f"`n_features` must be a multiple of `n_heads`, found {n_features} and {n_heads}.")
        if group_size is not None and n_groups is not None:
            raise ValueError(f"`group_size` and `n_groups`: give one of them, found {group_size} and {n_groups}.")
        for name, value in (("group_size", group_size), ("n_groups", n_groups), ("n_rows", n_rows)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        self.group_size = 16 if group_size is None and n_groups is None else group_size
        self.n_heads, self.n_groups, self.n_rows = n_heads, n_groups, n_rows
        self.reduce = SpikingLayer(n_features, 2 * n_features, None, bits=bits)
        self.map_neuron, self.attention_neuron = neuron(1.0), neuron(1.0)
        self.project = SpikingLayer(n_features, n_features, neuron if output_spikes else None, bits=bits)
        self.follow_rates = True  # off where a pass is made again for the gradient
        self.register_buffer("input_rate", torch.ones(n_heads))
        self.register_buffer("map_rate", torch.ones(n_heads))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, x: Tensor, groups: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What each row reads.

        Parameters
        ----------
        x
            Spikes ``(T, B, N, C)``: time steps, sets, rows of a set, features.
        groups
            Group of each row from 0, int64 ``(N,)``; by default rows that lie one after the other.
        segments
            Row numbers at which sets begin, and N at the end, int64 ``(n_sets + 1,)``: rows that lie one after the other
            but read from groups of their own set alone. Not together with `groups`.

        Returns
        -------
        ``(T, B, N, C)``.
        """
        if groups is not None and segments is not None:
            raise ValueError("`groups` and `segments`: give one of them; groups of segments are made here.")
        lengths = segment_lengths(segments, x.shape[2])
        places, counts = self._places(lengths, x.device) if groups is None else (groups, None)
        pooled = self._heads(self.reduce(group_mean(x, places)))
        sets = pooled.split(counts or [pooled.shape[-2]], dim=-2)
        heads = self._heads(x)
        if self.training:
            self._follow(self.input_rate, heads.detach().mean((0, 1, 3, 4)))
        found = [self._sums(h, one) for h, one in zip(heads.split(lengths, dim=-2), sets, strict=True)]
        if self.training:
            fired = torch.stack([events for _, events in found]).sum(0)
            of_head = heads.shape[0] * heads.shape[1]
            possible = of_head * sum(n * one.shape[-2] for n, one in zip(lengths, sets, strict=True))
            self._follow(self.map_rate, fired / possible)
            self.initialised.fill_(True)
        sums = [part * _scale(self.map_rate, one.shape[-2]) for (part, _), one in zip(found, sets, strict=True)]
        return self._output(torch.cat(sums, dim=-2))

    def accumulate(self, x: Tensor, first: int, n_rows: int) -> Tensor:
        """State of a block of rows, for inference in blocks.

        Parameters
        ----------
        x
            The block, ``(T, B, n_block, C)``.
        first
            Place of its first row in its set.
        n_rows
            Rows of the set.

        Returns
        -------
        Sums of the spikes of each group of the set, ``(T, B, n_groups, C)``; the state of the set is the sum over its
        blocks.
        """
        places, (count,) = self._places([n_rows], x.device)
        sums = x.new_zeros(*x.shape[:2], count, x.shape[-1])
        return sums.index_add(2, places[first : first + x.shape[2]], x)

    def read(self, x: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """Outcome for a block of rows ``(T, B, n_block, C)``, given the state of their set and its number of rows.

        Returns
        -------
        ``(T, B, n_block, C)``; in evaluation the rows of the whole pass.
        """
        sizes = self._places([n_rows], x.device)[0].bincount()
        pooled = self._heads(self.reduce(state / sizes[:, None]))
        sums, _ = self._sums(self._heads(x), pooled)
        return self._output(sums * _scale(self.map_rate, pooled.shape[-2]))

    @torch.no_grad()
    def attention_weights(self, x: Tensor, rows: Tensor, segments: Tensor | None = None) -> Tensor:
        """How much chosen rows read from each row of their set, in evaluation.

        A row reads from a group what the map A says, in equal parts from each row of the group; added up over time steps
        and heads, and divided by the sum over all rows.

        Parameters
        ----------
        x, segments
            As of :meth:`forward`, for groups of rows that lie one after the other.
        rows
            Which rows, int64 ``(n_query,)``.

        Returns
        -------
        ``(B, n_query, N)``: each row sums to 1, or to 0 where no neuron of the map fires; 0 for rows of other sets.
        """
        lengths = segment_lengths(segments, x.shape[2])
        places, _ = self._places(lengths, x.device)
        with evaluating(self):
            keys = self._heads(self.reduce(group_mean(x, places))).chunk(2, dim=-1)[0]
            keys = keys * _scale(self.input_rate, keys.shape[-1])
            fired = self.map_neuron(self._heads(x)[..., rows, :] @ keys.mT).sum((0, 2))  # (B, n_query, all groups)
        weights = (fired / places.bincount())[..., places]
        return within(weights, rows, segment_of_rows(lengths, x.device))

    def _places(self, lengths: Sequence[int], device: torch.device) -> tuple[Tensor, list[int]]:
        """Group of each row, and number of groups of each segment."""
        parts: list[Tensor] = []
        counts: list[int] = []
        for n in lengths:
            if self.group_size is None:
                count = min(self.n_groups or n, n)
                part = torch.arange(n, device=device) * count // max(n, 1)
            else:
                part, count = consecutive_groups(n, self.group_size, device), -(-n // self.group_size)
            parts.append(part + sum(counts))
            counts.append(count)
        return torch.cat(parts), counts

    def _sums(self, spikes: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """``A Y2`` of the rows of one set ``(T, B, heads, N, d)``, and the sum of A for each head."""
        first, second = pooled.chunk(2, dim=-1)
        keys = first * _scale(self.input_rate, first.shape[-1])
        blocks = spikes.split(self.n_rows, dim=-2)
        # The map of a block is not kept for the gradient, where there are several.
        again = len(blocks) > 1 and torch.is_grad_enabled()
        parts = [
            checkpoint(self._rows, block, keys, second, use_reentrant=False)
            if again
            else self._rows(block, keys, second)
            for block in blocks
        ]
        return torch.cat([part for part, _ in parts], dim=-2), torch.stack([events for _, events in parts]).sum(0)

    def _output(self, sums: Tensor) -> Tensor:
        """``(T, B, heads, N, d)`` to ``(T, B, N, C)``."""
        return self.project(self.attention_neuron(sums.transpose(2, 3).flatten(3)))

    def _rows(self, spikes: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """``A Y2`` of a block of rows, and the sum of A for each head."""
        read = self.map_neuron(spikes @ keys.mT)
        return read @ values, read.detach().sum((0, 1, 3, 4))

    def _follow(self, rate: Tensor, found: Tensor) -> None:
        if self.follow_rates:
            rate.lerp_(found.to(rate), _MOMENTUM if self.initialised else 1.0)

    def _heads(self, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to ``(T, B, heads, N, C / heads)``."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3)


def _scale(rate: Tensor, n: int) -> Tensor:
    """``1 / sqrt(rate n)``, ``(heads, 1, 1)``; of no later change of the rate."""
    return 1 / (rate.clamp(min=_LEAST_RATE) * n).sqrt()[:, None, None]
