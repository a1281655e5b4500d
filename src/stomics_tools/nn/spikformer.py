"""Spiking transformer over the rows of a set, flat or in stages of fewer and fewer rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.relative_position import SpikingRelativePosition
from stomics_tools.nn.row_groups import group_mean
from stomics_tools.nn.spiking_layer import SpikingLayer, lif
from stomics_tools.nn.spiking_self_attention import Form
from stomics_tools.nn.spiking_transformer import Residual, SpikingTransformerBlock

_ATTENTION_THRESHOLD = 0.5  # of the published code


class SpikingRowPooling(nn.Module):
    """From rows to groups of rows, and from one width to another: ``BN(W mean(neuron(x)))`` over each group.

    Parameters
    ----------
    n_inputs, n_outputs
        Widths.
    residual
        ``"membrane"``: `x` is a membrane, and the outcome is one; ``"sew"``: `x` is spikes, no neurons before but after.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape.
    bits
        Bits of the weights, as of :class:`QuantLinear`.

    Source: the layer between two stages of SpikingResformer (Shi et al., 2024), there a convolution with stride 2.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        residual: Residual = "membrane",
        neuron: Callable[[float], nn.Module] = lif,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        between_spikes = residual == "sew"
        self.spikes = nn.Identity() if between_spikes else neuron(1.0)
        self.layer = SpikingLayer(n_inputs, n_outputs, neuron if between_spikes else None, bits=bits)

    def forward(self, x: Tensor, groups: Tensor) -> Tensor:
        """``(T, B, N, n_inputs)`` to ``(T, B, n_groups, n_outputs)``, given the group of each row, int64 ``(N,)``."""
        return self.layer(group_mean(self.spikes(x), groups))


class Spikformer(nn.Module):
    """Stages of :class:`SpikingTransformerBlock`, the rows pooled by groups between two stages.

    With one stage it is Spikformer (``residual="sew"``) or the Spike-driven Transformer (``"membrane"``). With several,
    each has fewer and wider rows than the one before it, and cheap attention comes first, as in QKFormer:
    ``"token"`` in all stages but the last, which has ``"ssa"``.

    Without positions nothing tells the rows of a set apart but their features: rows in another order give the outcome in
    that order.

    Parameters
    ----------
    n_features
        Width C of the rows of each stage, a multiple of `n_heads`; a number stands for one stage.
    n_blocks
        Blocks of each stage, as many numbers as there are stages.
    n_heads
        Heads of the attention.
    forms
        Attention of each stage, see :class:`SpikingSelfAttention`.
    n_dims
        Of the coordinates, if positions are told by :class:`SpikingRelativePosition`; None: they are not.
    scale
        See :class:`SpikingSelfAttention`; 0.125 in the source, whose sets are small.
    mlp_ratio, residual, neuron, bits
        See :class:`SpikingTransformerBlock`.

    Source: Spikformer (Zhou et al., 2023); stages after QKFormer (Zhou et al., 2024). There rows are the patches of an
    image, here spots; there stages halve the sides of the image, here groups are given.
    """

    def __init__(
        self,
        n_features: int | Sequence[int],
        n_blocks: int | Sequence[int] = 2,
        n_heads: int = 8,
        *,
        forms: Sequence[Form] | None = None,
        n_dims: int | None = None,
        mlp_ratio: float = 4.0,
        residual: Residual = "membrane",
        scale: float | None = None,
        neuron: Callable[[float], nn.Module] = lif,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        widths = [n_features] if isinstance(n_features, int) else list(n_features)
        depths = [n_blocks] if isinstance(n_blocks, int) else list(n_blocks)
        kinds: list[Form] = [*["token"] * (len(widths) - 1), "ssa"] if forms is None else list(forms)  # type: ignore[list-item]
        if not len(widths) == len(depths) == len(kinds):
            raise ValueError(
                f"`n_features`, `n_blocks` and `forms` must have one entry a stage, found {len(widths)}, {len(depths)} "
                f"and {len(kinds)}."
            )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    SpikingTransformerBlock(
                        width,
                        n_heads,
                        mlp_ratio,
                        residual=residual,
                        form=form,
                        scale=scale,
                        attention_threshold=_ATTENTION_THRESHOLD,
                        neuron=neuron,
                        bits=bits,
                    )
                    for _ in range(depth)
                )
            )
            for width, depth, form in zip(widths, depths, kinds, strict=True)
        )
        self.pooling = nn.ModuleList(
            SpikingRowPooling(n_in, n_out, residual=residual, neuron=neuron, bits=bits)
            for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.position: SpikingRelativePosition | None = None
        self.position_spikes: nn.Module = nn.Identity()
        if n_dims is not None:
            self.position = SpikingRelativePosition(widths[0], n_dims, neuron if residual == "sew" else None)
            self.position_spikes = neuron(1.0) if residual == "membrane" else nn.Identity()

    def forward(
        self,
        x: Tensor,
        groups: Sequence[Tensor] = (),
        *,
        neighbors: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """Outcome for the rows of the last stage.

        Parameters
        ----------
        x
            ``(T, B, N, C)``: time steps, sets, rows of a set, features; spikes where residuals are of spikes, else
            currents (:class:`SpikingEncoding` makes both).
        groups
            For every stage but the first, the group that each row of the stage before belongs to: whole numbers from
            0, int64 ``(n_rows,)``. ``y[:, :, groups]`` brings the outcome of groups back to rows.
        neighbors, offsets
            See :meth:`SpikingRelativePosition.forward`; needed with positions.

        Returns
        -------
        ``(T, B, n_groups, C)`` with the groups and the width of the last stage: whole numbers where residuals are of
        spikes, else membranes.
        """
        if len(groups) != len(self.pooling):
            raise ValueError(
                f"`groups` must have {len(self.pooling)} entries, one a step between stages, found {len(groups)}."
            )
        if self.position is not None:
            if neighbors is None or offsets is None:
                raise ValueError("`neighbors` and `offsets` are needed for positions (`n_dims`).")
            x = x + self.position(self.position_spikes(x), neighbors, offsets)
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.pooling[i - 1](x, groups[i - 1]))
        return x
