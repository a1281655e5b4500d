"""All attentions between spikes over the rows of slices, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from stomics_tools.nn.dual_spike_attention import DualSpikeAttention
from stomics_tools.nn.multispike import Multispike
from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.segments import segment_lengths
from stomics_tools.nn.spiking_layer import lif
from stomics_tools.nn.spiking_self_attention import SpikingSelfAttention
from stomics_tools.nn.spiking_transformer import Residual, SpikingMLP

RowForm = Literal["ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa"]
_SETTINGS: dict[str, dict[str, Any]] = {
    "ssa": {},
    "sdt1": {"form": "mask", "attention_threshold": 0.5},
    "sdt2": {"attention_threshold": 0.5, "rep": True},
    "sdt3": {"value_ratio": 4},
    "qk_token": {"form": "token", "attention_threshold": 0.5},
    "qk_channel": {"form": "channel", "attention_threshold": 0.5},
}
_N_STEPS = 4
_N_GROUPS = 64


class SpikingRowAttention(nn.Module):
    """Attention between the rows (spots, cells) of each segment (slice), in one of the forms of spiking transformers.

    Queries Q, keys K and values V are ``neuron(BN(W s))`` of spikes s; a head has the width d, a segment n rows.

    ================  =============================================  ==========================================
    form              a head, before the last layer mixes heads      source, and what differs in it
    ================  =============================================  ==========================================
    ``"ssa"``         ``neuron(BN(Q K^T V / n))``                    Spikformer (Zhou et al., 2023):
                                                                     ``Q K^T V / 8``
    ``"sdt1"``        ``Q * neuron(rel(sum_n K_n * V_n))``           Spike-driven Transformer (Yao et al.,
                                                                     2023): the sum itself
    ``"sdt2"``        ``neuron(BN(Q K^T V / n))``, maps are          Spike-driven Transformer V2 (Yao et al.,
                      :class:`RepLinear`, threshold 0.5              2024): 3 x 3 convolutions in the maps
    ``"sdt3"``        ``neuron(BN(Q K^T V / n))``, V four times as   Spike-driven Transformer V3 (Yao et al.,
                      wide, neurons are :class:`Multispike`          2025): ``2 Q K^T V / sqrt(d)``
    ``"qk_token"``    ``neuron(sum_c Q_c) * K``                      QKFormer (Zhou et al., 2024)
    ``"qk_channel"``  ``neuron(rel(sum_n Q_n)) * K``                 QKFormer: the sum itself
    ``"dssa"``        ``neuron(neuron(s Y1^T) Y2)``, Y1 and Y2       SpikingResformer (Shi et al., 2024):
                      of groups of rows, both products scaled        groups are patches of an image
    ================  =============================================  ==========================================

    The published forms are for some hundred patches; their sums over n rows would let every neuron fire in a slice. Here
    they are divided by n and normalised, or put in units of the mean channel of the head (``rel``, see
    :class:`SpikingSelfAttention`, ``scale=None``), so that what comes out does not depend on how often the same rows
    are there. Products of all rows with all rows are never made: the cost is O(n d^2) a head for ``"ssa"``, ``"sdt2"``
    and ``"sdt3"``, O(n d) for ``"sdt1"`` and QKFormer, O(n d n_groups) for ``"dssa"``.

    Parameters
    ----------
    n_features
        Width C of the rows, a multiple of `n_heads`.
    n_heads
        Number of heads.
    form
        See above.
    n_steps
        Time steps T that the neurons make of a membrane: 4 by default, and 1 with :class:`Multispike`, which has no
        state.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape: leaky integrate-and-fire by default,
        :class:`Multispike` of 5 levels for ``"sdt3"``.
    joint_steps
        Time steps that are read together, a divisor of `n_steps`; 1: each by itself. Not of ``"qk_token"`` and
        ``"dssa"``. See :class:`SpikingSelfAttention`.
    n_groups
        Of ``"dssa"``: groups of each segment, of rows that lie one after the other; 64 by default. With the rows along a
        space-filling curve a group is a compact piece of tissue.
    output_spikes
        Whether neurons follow the last layer, as where residuals are sums of spikes.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    """

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        form: RowForm = "ssa",
        *,
        n_steps: int | None = None,
        neuron: Callable[[float], nn.Module] | None = None,
        joint_steps: int = 1,
        n_groups: int | None = None,
        output_spikes: bool = False,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if form not in get_args(RowForm):
            raise ValueError(f"`form` must be one of {list(get_args(RowForm))}, found {form!r}.")
        if n_groups is not None and form != "dssa":
            raise ValueError(f"`n_groups` is for `form='dssa'`, found `form={form!r}`.")
        self.form = form
        neuron = neuron or default_neuron(form)
        self.spike = neuron(1.0)
        stateless = isinstance(self.spike, Multispike)
        self.n_steps = n_steps if n_steps is not None else 1 if stateless else _N_STEPS
        if self.n_steps < 1:
            raise ValueError(f"`n_steps` must be at least 1, found {n_steps}.")
        if stateless and self.n_steps > 1:
            raise ValueError(f"`n_steps`: `Multispike` has no state, all steps would be the same, found {n_steps}.")
        if joint_steps < 1 or self.n_steps % joint_steps or (joint_steps > 1 and form in ("qk_token", "dssa")):
            raise ValueError(
                f"`joint_steps` must divide the {self.n_steps} time steps, and be 1 with `form='qk_token'` and 'dssa', "
                f"found {joint_steps} and {form!r}."
            )
        shared: dict[str, Any] = {"neuron": neuron, "output_spikes": output_spikes, "bits": bits}
        self.inner: SpikingSelfAttention | DualSpikeAttention
        if form == "dssa":
            self.inner = DualSpikeAttention(n_features, n_heads, n_groups=n_groups or _N_GROUPS, **shared)
        else:
            self.inner = SpikingSelfAttention(
                n_features, n_heads, scale=None, joint_steps=joint_steps, **_SETTINGS[form], **shared
            )

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """What each row reads from the rows of its segment.

        Parameters
        ----------
        x
            A membrane ``(n, C)``, which the neurons get as their current at each step; or spikes ``(T, B, n, C)``.
        segments
            Row pointers ``(n_segments + 1,)`` from 0 to n, integer: rows of different segments do not see each other.
            None: one segment.

        Returns
        -------
        The shape of `x`: of a membrane the mean over the time steps, to be added to it.
        """
        return self._out(x, self.inner(self._in(x), segments=segments))

    def accumulate(self, x: Tensor, first: int = 0, n_rows: int | None = None) -> Tensor:
        """State of a block of rows, for inference in blocks.

        Parameters
        ----------
        x
            The block, as of :meth:`forward`.
        first
            Place of its first row in its segment; matters to ``"dssa"`` alone.
        n_rows
            Rows of the segment; needed by ``"dssa"``.

        Returns
        -------
        A tensor of a size that does not depend on the number of rows; the state of a segment is the sum of those of its
        blocks.
        """
        if isinstance(self.inner, SpikingSelfAttention):
            return self.inner.accumulate(self._in(x))
        if n_rows is None:
            raise ValueError("`n_rows`, the rows of the segment, is needed for `form='dssa'`.")
        return self.inner.accumulate(self._in(x), first, n_rows)

    def read(self, x: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """Outcome for a block of rows.

        Parameters
        ----------
        x
            The block, as of :meth:`forward`.
        state
            Sum of the states of all blocks of the segment (:meth:`accumulate`).
        n_rows
            Rows of the segment.

        Returns
        -------
        The shape of `x`; in evaluation the rows of the whole pass.
        """
        return self._out(x, self.inner.read(self._in(x), state, n_rows))

    @torch.no_grad()
    def in_blocks(self, x: Tensor, segments: Tensor | None = None, block_size: int = 8192) -> Tensor:
        """:meth:`forward` in evaluation over blocks of at most `block_size` rows, which bounds the memory.

        Raises
        ------
        RuntimeError
            In training mode, where normalisations are those of a block.
        """
        if self.training:
            raise RuntimeError("Blocks of rows are for evaluation: call `eval()` first.")
        axis, done = (0 if x.dim() == 2 else 2), []
        for first, last in _bounds(segment_lengths(segments, x.shape[axis])):
            places = range(first, last, block_size)
            blocks = [x.narrow(axis, i, min(block_size, last - i)) for i in places]
            states = [self.accumulate(b, i - first, last - first) for b, i in zip(blocks, places, strict=True)]
            if states:
                state = torch.stack(states).sum(0)
                done += [self.read(block, state, last - first) for block in blocks]
        return torch.cat(done, axis) if done else torch.zeros_like(x)

    @torch.no_grad()
    def attention_weights(self, x: Tensor, rows: Tensor, segments: Tensor | None = None) -> Tensor:
        """How much chosen rows read from each row of their segment, in evaluation; see the class of the form.

        Parameters
        ----------
        x, segments
            As of :meth:`forward`.
        rows
            Which rows, int64 ``(n_query,)``.

        Returns
        -------
        ``(n_query, n)`` of a membrane, ``(B, n_query, n)`` of spikes: each row sums to 1, or to 0 where nothing is
        read; 0 for rows of other segments.
        """
        found = self.inner.attention_weights(self._in(x), rows, segments)
        return found[0] if x.dim() == 2 else found

    def _in(self, x: Tensor) -> Tensor:
        return self.spike(x.expand(self.n_steps, *x.shape)).unsqueeze(1) if x.dim() == 2 else x

    def _out(self, x: Tensor, y: Tensor) -> Tensor:
        return y.mean((0, 1)) if x.dim() == 2 else y


class SpikingRowBlock(nn.Module):
    """A block of a spiking transformer over the rows of slices: :class:`SpikingRowAttention`, then a perceptron.

    - ``residual="membrane"``: ``x + attention(neuron(x))``, then ``x + mlp(neuron(x))``: `x` is a membrane, what is added
      currents; all maps read spikes (membrane shortcut, Spike-driven Transformer, Yao et al., 2023).
    - ``residual="sew"``: ``x + attention(x)``, then ``x + mlp(x)``: `x` and what is added are spikes, the sums whole
      numbers (spike-element-wise addition, SEW ResNet, Fang et al., 2021, and Spikformer, Zhou et al., 2023).

    Parameters
    ----------
    n_features, n_heads, form, neuron, n_groups, bits
        See :class:`SpikingRowAttention`.
    residual
        See above.
    mlp_ratio
        Width of the perceptron in units of `n_features`.
    """

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        form: RowForm = "ssa",
        *,
        residual: Residual = "membrane",
        mlp_ratio: float = 2.0,
        neuron: Callable[[float], nn.Module] | None = None,
        n_groups: int | None = None,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if residual not in get_args(Residual):
            raise ValueError(f"`residual` must be one of {list(get_args(Residual))}, found {residual!r}.")
        sew = residual == "sew"
        neuron = neuron or default_neuron(form)
        self.attention = SpikingRowAttention(
            n_features, n_heads, form, neuron=neuron, n_groups=n_groups, output_spikes=sew, bits=bits
        )
        self.spikes = nn.ModuleList(nn.Identity() if sew else neuron(1.0) for _ in range(2))
        self.mlp = SpikingMLP(n_features, round(mlp_ratio * n_features), neuron=neuron, output_spikes=sew, bits=bits)

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """``(T, B, n, C)`` to the same; `segments` as of :meth:`SpikingRowAttention.forward`."""
        x = x + self.attention(self.spikes[0](x), segments)
        return x + self.mlp(self.spikes[1](x))

    @torch.no_grad()
    def in_blocks(self, x: Tensor, segments: Tensor | None = None, block_size: int = 8192) -> Tensor:
        """:meth:`forward` in evaluation over blocks of rows, as :meth:`SpikingRowAttention.in_blocks`."""
        x = x + self.attention.in_blocks(self.spikes[0](x), segments, block_size)
        return x + torch.cat([self.mlp(self.spikes[1](block)) for block in x.split(block_size, dim=2)], dim=2)


def default_neuron(form: RowForm) -> Callable[[float], nn.Module]:
    """Threshold to neurons, as published: whole numbers in one pass for ``"sdt3"``, else leaky integrate-and-fire."""
    return (lambda v_threshold: Multispike()) if form == "sdt3" else lif


def _bounds(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """First row of each segment, and the row after its last."""
    first = 0
    for n in lengths:
        yield first, first + n
        first += n
