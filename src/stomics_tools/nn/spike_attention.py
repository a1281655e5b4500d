"""Attention between spikes at a cost linear in the number of rows, over whole slices or windows of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stomics_tools.nn.multispike import Multispike
from stomics_tools.nn.quantization import Bits, QuantLinear
from stomics_tools.nn.reparam import RepLinear
from stomics_tools.nn.segments import evaluating, segment_lengths, segment_of_rows, within

_EPSILON = 0.01  # a product of two lone spikes of the lowest level is 1/16


def _layer(n_features: int, bits: Bits, rep: bool) -> nn.Module:
    if rep:
        return RepLinear(n_features, n_features, bits)
    return nn.Sequential(QuantLinear(n_features, n_features, bias=False, bits=bits), nn.BatchNorm1d(n_features))


def _activation(n_levels: int | None) -> nn.Module:
    return nn.ReLU() if n_levels is None else Multispike(n_levels)


def _with_constant(x: Tensor, constant: float = 1.0) -> Tensor:
    return F.pad(x, (0, 1), value=constant)


def _state(keys: Tensor, values: Tensor) -> Tensor:
    """``[K, 1]^T [V, 1]`` over the rows, ``(..., rows, heads, width)`` to ``(..., heads, width, width)``."""
    return keys.transpose(-3, -2).transpose(-2, -1) @ values.transpose(-3, -2)


def _read(queries: Tensor, state: Tensor) -> Tensor:
    """``[Q, eps] S``, ``(..., rows, heads, width)``."""
    return (queries.transpose(-3, -2) @ state).transpose(-3, -2)


class _Windows:
    """Rows of segments cut into windows of at most `size` rows, as equal as they can be, and padded to one length."""

    def __init__(self, lengths: Sequence[int], size: int, device: torch.device) -> None:
        length = torch.tensor(lengths, device=device)
        count = -(-length // size)
        n_rows, self.n_windows = sum(lengths), int(count.sum())
        self.length = max((-(-n // -(-n // size)) for n in lengths if n), default=0)

        def to_rows(of_segment: Tensor) -> Tensor:
            return of_segment.repeat_interleave(length, output_size=n_rows)

        row = torch.arange(n_rows, device=device) - to_rows(length.cumsum(0) - length)
        n, k = to_rows(length), to_rows(count)
        window = row * k // n
        place = row - (window * n + k - 1) // k
        self.window = to_rows(count.cumsum(0) - count) + window
        self.index = self.window * self.length + place

    def split(self, x: Tensor) -> Tensor:
        """``(n, heads, width)`` to ``(n_windows, length, heads, width)``, zero where there is no row."""
        padded = x.new_zeros(self.n_windows * self.length, *x.shape[1:]).index_copy(0, self.index, x)
        return padded.view(self.n_windows, self.length, *x.shape[1:])

    def join(self, x: Tensor) -> Tensor:
        """The way back."""
        return x.flatten(0, 1).index_select(0, self.index)


class SpikeAttention(nn.Module):
    """Multi-head attention between spikes without softmax.

    With spikes ``s = Multispike(x)`` and queries, keys and values ``Multispike(layer(s))``, all from 0 to 1, each head
    gives row i the mean of the values weighted by coincidence of spikes,

    ``y_i = sum_j (q_i . k_j + eps) v_j / sum_j (q_i . k_j + eps)``, ``eps = 0.01``,

    and a last layer mixes the heads. The sums are ``[q_i, eps]`` times the state ``[K, 1]^T [V, 1]``, hence the cost
    O(n d^2 / heads) and nothing of size n x n. Being a mean, the outcome does not grow with n; eps is what a silent
    query reads by (the plain mean), and keeps the gradient there bounded.

    Parameters
    ----------
    n_features
        Width d of input and output, a multiple of `n_heads`.
    n_heads
        Number of heads, a multiple of the number of `windows`.
    n_levels
        Levels of the spikes, see :func:`multispike`; None: ReLU instead of spikes, for comparison.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    rep
        Whether the layers are :class:`RepLinear`; else a :class:`QuantLinear` and a batch normalisation.
    windows
        Spatial scales, over which the heads are split evenly and in order: None for all rows of a segment, or a
        number of rows: each segment is cut into windows of at most so many consecutive rows, as equal as they can be.
        With the rows along a space-filling curve a window is a compact piece of tissue.

    Source: attention of QSD-Transformer (Qiu et al., 2025), there with a fixed factor instead of the mean; the order of
    the products as in linear attention (Katharopoulos et al., 2020).
    """

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        n_levels: int | None = 5,
        bits: Bits = None,
        rep: bool = True,
        windows: Sequence[int | None] = (None,),
    ) -> None:
        super().__init__()
        if n_heads < 1 or n_features % n_heads:
            raise ValueError(f"`n_features` must be a multiple of `n_heads`, found {n_features} and {n_heads}.")
        if not windows or n_heads % len(windows):
            raise ValueError(
                f"`n_heads` must be a multiple of the number of `windows`, found {n_heads} and {len(windows)}."
            )
        if any(size is not None and size < 1 for size in windows):
            raise ValueError(f"`windows` must be None or at least 1 row, found {tuple(windows)}.")
        self.n_heads, self.windows = n_heads, tuple(windows)
        self.spike = _activation(n_levels)
        self.query, self.key, self.value, self.project = (_layer(n_features, bits, rep) for _ in range(4))
        self.query_spike, self.key_spike, self.value_spike = (_activation(n_levels) for _ in range(3))

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """Outcome of the attention, to be added to the membrane.

        Parameters
        ----------
        x
            Membrane ``(n, n_features)``.
        segments
            Row pointers ``(n_segments + 1,)`` from 0 to n, integer: rows of different segments (slices) do not see
            each other. None: one segment.

        Returns
        -------
        ``(n, n_features)``.
        """
        lengths = segment_lengths(segments, len(x))
        spikes = self.spike(x)
        queries = self._queries(spikes)
        keys, values = self._keys_values(spikes)
        n_each = self.n_heads // len(self.windows)
        parts = [part.split(n_each, dim=1) for part in (queries, keys, values)]
        scales = [_attend(q, k, v, lengths, size) for q, k, v, size in zip(*parts, self.windows, strict=True)]
        return self._output(torch.cat(scales, dim=1))

    def accumulate(self, x: Tensor) -> Tensor:
        """State ``[K, 1]^T [V, 1]`` of a block of rows, for inference in blocks.

        Parameters
        ----------
        x
            Membrane of the block, ``(n_block, n_features)``.

        Returns
        -------
        ``(n_heads, d / n_heads + 1, d / n_heads + 1)``; the state of a segment is the sum of those of its blocks. Its
        parts are ``K^T V``, ``K^T 1``, ``1^T V`` and the number of rows.
        """
        self._check_whole()
        return _state(*self._keys_values(self.spike(x)))

    def read(self, x: Tensor, state: Tensor) -> Tensor:
        """Outcome for a block of rows, given the state of their segment (:meth:`accumulate`).

        Parameters
        ----------
        x
            Membrane of the block, ``(n_block, n_features)``.
        state
            Sum of the states of all blocks of the segment.

        Returns
        -------
        ``(n_block, n_features)``; in evaluation the rows of the whole pass.
        """
        self._check_whole()
        return self._output(_read(self._queries(self.spike(x)), state))

    @torch.no_grad()
    def attention_weights(self, x: Tensor, rows: Tensor, segments: Tensor | None = None) -> Tensor:
        """How much chosen rows read from each row of their segment, in evaluation; the mean over the heads.

        ``a_ij = (q_i . k_j + eps) / sum_j (q_i . k_j + eps)``, j over the segment, or the window, of row i.

        Parameters
        ----------
        x, segments
            As of :meth:`forward`.
        rows
            Which rows, int64 ``(n_query,)``.

        Returns
        -------
        ``(n_query, n)``, each row with the sum 1; 0 for rows of other segments.
        """
        lengths = segment_lengths(segments, len(x))
        with evaluating(self):
            spikes = self.spike(x)
            queries, (keys, _) = self._queries(spikes[rows]), self._keys_values(spikes)
        products = torch.einsum("rhc,nhc->hrn", queries, keys).split(self.n_heads // len(self.windows))
        total = products[0].new_zeros(len(rows), len(x))
        for scale, size in zip(products, self.windows, strict=True):
            parts = segment_of_rows(lengths, x.device) if size is None else _Windows(lengths, size, x.device).window
            total += within(scale, rows, parts).sum(0)
        return total / self.n_heads

    def _check_whole(self) -> None:
        if self.windows != (None,):
            raise ValueError(f"blocks of rows are for `windows=(None,)`, found {self.windows}.")

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(len(x), self.n_heads, x.shape[1] // self.n_heads)

    def _queries(self, spikes: Tensor) -> Tensor:
        return _with_constant(self._heads(self.query_spike(self.query(spikes))), _EPSILON)

    def _keys_values(self, spikes: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.key_spike(self.key(spikes)), self.value_spike(self.value(spikes))
        return _with_constant(self._heads(keys)), _with_constant(self._heads(values))

    def _output(self, sums: Tensor) -> Tensor:
        mean = sums[..., :-1] / sums[..., -1:]
        return self.project(mean.flatten(1))


def _attend(queries: Tensor, keys: Tensor, values: Tensor, lengths: list[int], size: int | None) -> Tensor:
    """Sums of the heads of one scale, ``(n, heads, width)``."""
    if size is None:
        parts = zip(queries.split(lengths), keys.split(lengths), values.split(lengths), strict=True)
        return torch.cat([_read(q, _state(k, v)) for q, k, v in parts])
    windows = _Windows(lengths, size, queries.device)
    return windows.join(_read(windows.split(queries), _state(windows.split(keys), windows.split(values))))
