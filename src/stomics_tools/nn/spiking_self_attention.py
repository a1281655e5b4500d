"""Self-attention between spikes over time steps, in the forms of the spiking transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.segments import evaluating, segment_lengths, segment_of_rows, within
from stomics_tools.nn.spiking_layer import SpikingLayer, lif

Form = Literal["ssa", "mask", "token", "channel"]
Order = Literal["auto", "linear", "quadratic"]
_LEAST_RATE = 0.01
"""Of the mean channel of a head: heads that hardly fire let nothing through, and their gradient stays bounded."""


def spiking_attention(
    queries: Tensor, keys: Tensor, values: Tensor, *, order: Order = "auto", n_rows: int = 1024
) -> Tensor:
    """Attention without softmax, ``Q K^T V``, in the cheaper order of its products.

    Without softmax ``(Q K^T) V = Q (K^T V)``: O(N^2 d) or O(N d^2) a head. Products of spikes are whole numbers, so that
    both orders give the same bits as long as these are below 2^24 (in float32).

    Parameters
    ----------
    queries, keys, values
        ``(..., N, d)``.
    order
        ``"linear"``: ``Q (K^T V)``; ``"quadratic"``: ``(Q K^T) V``, by blocks of rows; ``"auto"``: the former where ``N > d``.
    n_rows
        Rows of a block of the quadratic order, of which ``n_rows x N`` numbers are held at a time.

    Returns
    -------
    ``(..., N, d)``.
    """
    if order == "linear" or (order == "auto" and queries.shape[-2] > queries.shape[-1]):
        return queries @ (keys.mT @ values)
    return torch.cat([rows @ keys.mT @ values for rows in queries.split(n_rows, dim=-2)], dim=-2)


class SpikingSelfAttention(nn.Module):
    """Multi-head self-attention between spikes.

    Each of query, key and value is ``neuron(BN(W x))``, 0 or 1. A head of width d makes of them

    ===============  ====================================================  ====================================
    form             y                                                     source
    ===============  ====================================================  ====================================
    ``"ssa"``        ``neuron(scale Q K^T V)``                             Spikformer (Zhou et al., 2023)
    ``"mask"``       ``Q * neuron(sum_n K_n * V_n)``                       Spike-driven Transformer (Yao et al., 2023)
    ``"token"``      ``neuron(sum_c Q_c) * K``, a number for each row      QKFormer (Zhou et al., 2024)
    ``"channel"``    ``neuron(sum_n Q_n) * K``, a number for each column   QKFormer
    ===============  ====================================================  ====================================

    and a last layer mixes the heads. ``"ssa"`` costs O(N d^2), the others O(N d); nothing of size N x N is held.

    The defaults are ``SSA`` of SpikingJelly's tutorial, where all neurons have the threshold 1. In the published code of
    Spikformer, both Spike-driven Transformers and QKFormer it is 0.5 after attention.

    Others are ``"ssa"`` too, with the neurons and numbers below and, as their residuals are of membranes,
    ``output_spikes=False``.

    - Spike-driven Transformer V2 (Yao et al., 2024): these neurons, ``attention_threshold=0.5``, ``rep=True`` (there with
      a depthwise 3 x 3 convolution between the two maps, for which spots have no lattice).
    - Spike-driven Transformer V3 (Yao et al., 2025), its efficient attention: :class:`Multispike` as neuron,
      ``value_ratio=4``, ``scale=2 / sqrt(d)``.
    - QSD-Transformer (Qiu et al., 2025): :class:`Multispike`, ``rep=True``, ``scale=0.25``, with twice the range after
      attention.

    Parameters
    ----------
    n_features
        Width C, a multiple of `n_heads`.
    n_heads
        Number of heads.
    form
        See above.
    scale
        Of ``"ssa"``: keeps the sum near the threshold. Since sums over rows grow with N, a number serves sets of some
        hundred rows. None is for sets of any size: ``"ssa"`` puts ``BN(Q K^T V / N)`` in the place of the sum;
        ``"mask"`` and ``"channel"`` put half of what each channel has in units of the mean channel of its head,
        ``r / (2 max(mean r, 0.01))`` with the rate ``r = sum / N``, made for the threshold
        0.5; ``"token"``, which sums over no rows, stays.
    attention_threshold
        Threshold of the neurons after attention.
    joint_steps
        Time steps that are read together: keys, values and sums over rows are those of as many consecutive steps, so
        that a query reads from rows at other steps too. 1: each step by itself. Not of ``"token"``. Spatial-temporal
        attention of Lee et al., Spiking Transformer with spatial-temporal attention, 2025.
    value_ratio
        Of ``"ssa"``: width of all values in units of `n_features`.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape; called with 1 for the layers.
    output_spikes
        Whether neurons follow the last layer, as where residuals are sums of spikes.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    rep
        Whether the maps are :class:`RepLinear` in training.
    """

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        form: Form = "ssa",
        *,
        scale: float | None = 0.125,
        attention_threshold: float = 1.0,
        joint_steps: int = 1,
        value_ratio: int = 1,
        neuron: Callable[[float], nn.Module] = lif,
        output_spikes: bool = True,
        bits: Bits = None,
        rep: bool = False,
    ) -> None:
        super().__init__()
        if n_heads < 1 or n_features % n_heads:
            raise ValueError(f"`n_features` must be a multiple of `n_heads`, found {n_features} and {n_heads}.")
        if form not in get_args(Form):
            raise ValueError(f"`form` must be one of {list(get_args(Form))}, found {form!r}.")
        if value_ratio < 1 or (value_ratio > 1 and form != "ssa"):
            raise ValueError(f"`value_ratio` must be at least 1, and 1 unless `form='ssa'`, found {value_ratio}.")
        if not attention_threshold > 0:
            raise ValueError(f"`attention_threshold` must be above 0, found {attention_threshold}.")
        if joint_steps < 1 or (joint_steps > 1 and form == "token"):
            raise ValueError(f"`joint_steps` must be at least 1, and 1 with `form='token'`, found {joint_steps}.")
        self.n_heads, self.form, self.scale, self.joint_steps = n_heads, form, scale, joint_steps
        names = ("query", "key", "value") if form in ("ssa", "mask") else ("query", "key")
        n_values = value_ratio * n_features
        widths = {"query": n_features, "key": n_features, "value": n_values}
        self.layers = nn.ModuleDict(
            {name: SpikingLayer(n_features, widths[name], neuron, bits=bits, rep=rep) for name in names}
        )
        self.attention_norm = nn.BatchNorm1d(n_values) if form == "ssa" and scale is None else None
        self.attention_neuron = neuron(attention_threshold)
        self.project = SpikingLayer(n_values, n_features, neuron if output_spikes else None, bits=bits, rep=rep)

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """What each row reads from all rows of its set.

        Parameters
        ----------
        x
            ``(T, B, N, C)``: time steps, sets, rows of a set, features.
        segments
            Row numbers at which sets begin, and N at the end, int64 ``(n_sets + 1,)``: rows that lie one after the other
            but do not read from each other. By default all N rows are one set.

        Returns
        -------
        ``(T, B, N, C)``.
        """
        lengths = segment_lengths(segments, x.shape[2])
        heads = {name: self._heads(name, x).split(lengths, dim=-2) for name in self.layers}
        sets = [dict(zip(heads, one, strict=True)) for one in zip(*heads.values(), strict=True)]
        parts = [self._mixed(one, self._state(one), n) for one, n in zip(sets, lengths, strict=True)]
        return self._output(torch.cat(parts, dim=-2))

    def accumulate(self, x: Tensor) -> Tensor:
        """State of a block of rows, for inference in blocks.

        Parameters
        ----------
        x
            The block, ``(T, B, n_block, C)``.

        Returns
        -------
        ``K^T V`` for ``"ssa"``, ``(T, B, n_heads, d, value_ratio d)``; the sum over the rows for ``"mask"`` and
        ``"channel"``, ``(T, B, n_heads, 1, d)``; zero for ``"token"``, ``(T, B, n_heads, 1, 1)``. The state of a set is
        the sum of those of its blocks.
        """
        names = ("key", "value") if "value" in self.layers else ("query",)
        return self._state({name: self._heads(name, x) for name in names})

    def read(self, x: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """Outcome for a block of rows, given the state of their set (:meth:`accumulate`) and its number of rows.

        Parameters
        ----------
        x
            The block, ``(T, B, n_block, C)``.
        state
            Sum of the states of all blocks of the set.
        n_rows
            Rows of the set.

        Returns
        -------
        ``(T, B, n_block, C)``; in evaluation the rows of the whole pass.
        """
        names = {"token": ("query", "key"), "channel": ("key",)}.get(self.form, ("query",))
        return self._output(self._mixed({name: self._heads(name, x) for name in names}, state, n_rows))

    @torch.no_grad()
    def attention_weights(self, x: Tensor, rows: Tensor, segments: Tensor | None = None) -> Tensor:
        """How much chosen rows read from each row of their set, in evaluation.

        The forms are sums over rows j of what j has in common with row i: ``q_i . k_j`` for ``"ssa"``,
        ``q_i . (k_j * v_j)`` for ``"mask"``, ``k_i . q_j`` for ``"channel"``; with ``"token"`` a row reads from itself
        where its neuron fires. These are added up over time steps and heads, and divided by their sum over j.

        Parameters
        ----------
        x, segments
            As of :meth:`forward`.
        rows
            Which rows, int64 ``(n_query,)``.

        Returns
        -------
        ``(B, n_query, N)``: each row sums to 1, or to 0 where there is nothing in common; 0 for rows of other sets.
        """
        lengths = segment_lengths(segments, x.shape[2])
        with evaluating(self):
            heads = {name: self._heads(name, x) for name in self.layers}
            query, key = heads["query"], heads["key"]
            if self.form == "token":
                gate = self.attention_neuron(query.sum(-1)).sum((0, 2))  # (B, N)
                own = rows[:, None] == torch.arange(x.shape[2], device=x.device)
                return within(gate[:, rows, None] * own, rows, segment_of_rows(lengths, x.device))
        left, right = (key, query) if self.form == "channel" else (query, key)
        if self.form == "mask":
            right = key * heads["value"]
        right = self._over_steps(right)
        products = torch.einsum("tbhrd,tbhnd->brn", left[..., rows, :], right)
        return within(products, rows, segment_of_rows(lengths, x.device))

    def _state(self, heads: Mapping[str, Tensor]) -> Tensor:
        if self.form == "ssa":
            return self._over_steps(heads["key"].mT @ heads["value"])
        if self.form == "mask":
            return self._over_steps((heads["key"] * heads["value"]).sum(-2, keepdim=True))
        query = heads["query"]
        if self.form == "token":
            return query.new_zeros(*query.shape[:-2], 1, 1)
        return self._over_steps(query.sum(-2, keepdim=True))

    def _over_steps(self, x: Tensor) -> Tensor:
        """Sum over the steps that are read together, at each of them, ``(T, ...)``."""
        if self.joint_steps == 1:
            return x
        if len(x) % self.joint_steps:
            raise ValueError(f"`joint_steps`: {len(x)} time steps are no multiple of {self.joint_steps}.")
        return x.unflatten(0, (-1, self.joint_steps)).sum(1).repeat_interleave(self.joint_steps, dim=0)

    def _mixed(self, heads: Mapping[str, Tensor], state: Tensor, n_rows: int) -> Tensor:
        """What rows have read, ``(T, B, heads, N, d)``: sums for ``"ssa"``, spikes for the other forms."""
        n_read = max(n_rows, 1) * self.joint_steps
        if self.form == "ssa":
            return heads["query"] @ state * (1 / n_read if self.scale is None else self.scale)
        if self.form == "token":
            return self.attention_neuron(heads["query"].sum(-1, keepdim=True)) * heads["key"]
        if self.scale is None:
            rate = state / n_read
            state = rate / (2 * rate.mean(-1, keepdim=True).clamp(min=_LEAST_RATE))
        return self.attention_neuron(state) * heads["query" if self.form == "mask" else "key"]

    def _output(self, mixed: Tensor) -> Tensor:
        """``(T, B, heads, N, d)`` to ``(T, B, N, C)``."""
        joined = mixed.transpose(2, 3).flatten(3)
        if self.attention_norm is not None:
            joined = self.attention_norm(joined.flatten(0, 2)).view_as(joined)
        return self.project(self.attention_neuron(joined) if self.form == "ssa" else joined)

    def _heads(self, name: str, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to the spikes of a layer, ``(T, B, heads, N, d)``."""
        return self.layers[name](x).unflatten(-1, (self.n_heads, -1)).transpose(2, 3)
