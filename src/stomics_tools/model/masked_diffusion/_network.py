"""The transformer over the cells of a slice."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stomics_tools.model.masked_diffusion._settings import DiffusionSettings
from stomics_tools.nn import GatedAttention, MixtureOfExperts, RouterLosses, TimeEmbedding


class Cells(NamedTuple):
    """What the transformer sees of sets of cells; all ``(b, n, ...)``.

    ``position`` and ``expression``: noised values ``(..., d)``, ``(..., L)``; ``time`` ``(..., 2)`` of each, 0 where it
    is known; ``prior_position`` and ``prior_expression``: what is expected of them without other cells; ``position_sd`` ``(..., d)``:
    how surely; ``sd`` ``(..., L)``: how surely the expression is known before noise, which tells what genes were given; ``around``
    ``(..., 3L)``: means of neighbours; ``flags`` ``(..., 3)``: whether genes, position and neighbours are given;
    ``earlier`` ``(..., d + L)``: clean values found a step before; ``real`` ``(b, n)``: False for padding.
    """

    position: Tensor
    expression: Tensor
    time: Tensor
    prior_position: Tensor
    position_sd: Tensor
    prior_expression: Tensor
    sd: Tensor
    around: Tensor
    flags: Tensor
    earlier: Tensor | None
    real: Tensor | None


class Found(NamedTuple):
    """Outputs ``(b, n, d)`` and ``(b, n, L)``, tokens ``(b, n, width)`` before them, and losses of the routers."""

    position: Tensor
    expression: Tensor
    tokens: Tensor
    router: RouterLosses


class DiffusionTransformer(nn.Module):
    """A set of cells to the clean position and expression of each (Peebles & Xie 2023, with a time of each cell).

    Attention is exact, over all real cells of a set. Nothing depends on the order of the cells. Every block is
    modulated by the two times of its cell; the modulation and the outputs begin at zero, so that blocks begin as the
    identity and outputs as zero.

    Parameters
    ----------
    settings
        Widths.
    n_dims, n_latent
        Of positions and latent expression.
    """

    def __init__(self, settings: DiffusionSettings, n_dims: int, n_latent: int) -> None:
        super().__init__()
        s, width = settings, settings.width
        self.n_frequencies = s.n_frequencies
        n_numbers = n_dims * (4 + 4 * s.n_frequencies) + 6 * n_latent + 3
        self.numbers = nn.Sequential(nn.Linear(n_numbers, width), nn.SiLU(), nn.Linear(width, width))
        self.earlier = _zero(nn.Linear(n_dims + n_latent, width)) if s.self_conditioning else None
        self.position_time, self.expression_time = TimeEmbedding(width), TimeEmbedding(width)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.n_layers))
        self.last_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last_modulation = _zero(nn.Linear(width, 2 * width))
        self.position = _zero(nn.Linear(width, n_dims))
        self.expression = _zero(nn.Linear(width, n_latent))

    def forward(self, cells: Cells) -> Found:
        """See :class:`Cells`."""
        numbers = torch.cat(
            [
                cells.position,
                cells.prior_position,
                cells.position - cells.prior_position,
                cells.position_sd,
                self._waves(cells.position),
                self._waves(cells.prior_position),
                cells.expression,
                cells.prior_expression,
                cells.sd,
                cells.around,
                cells.flags,
            ],
            dim=-1,
        )
        x = self.numbers(numbers)
        if self.earlier is not None and cells.earlier is not None:
            x = x + self.earlier(cells.earlier)
        # Few times occur in a set: they are embedded once each.
        times, which = torch.unique(cells.time.flatten(0, -2), dim=0, return_inverse=True)
        time = nn.functional.silu(self.position_time(times[:, 0]) + self.expression_time(times[:, 1]))
        which = which.view(cells.time.shape[:-1])
        balance, z = x.new_zeros(()), x.new_zeros(())
        for block in self.blocks:
            x, router = block(x, time, which, cells.real)
            balance, z = balance + router.balance / len(self.blocks), z + router.z / len(self.blocks)
        shift, scale = self.last_modulation(time)[which].chunk(2, dim=-1)
        x = self.last_norm(x) * (1 + scale) + shift
        return Found(self.position(x), self.expression(x), x, RouterLosses(balance, z))

    def _waves(self, position: Tensor) -> Tensor:
        """Sines and cosines of positions, the longest wave twice as long as a slice."""
        frequency = 2.0 ** torch.arange(self.n_frequencies, device=position.device) * (math.pi / 4)
        angle = (position[..., None] * frequency).flatten(-2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Block(nn.Module):
    """Attention, then a perceptron or a mixture of experts, each modulated by time (AdaLN-zero)."""

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        s, width = settings, settings.width
        self.modulation = _zero(nn.Linear(width, 6 * width))
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = GatedAttention(
            width, s.n_heads, gate=s.gate_type if s.use_gated_attention else None, qk_norm=s.qk_norm
        )
        self.experts: MixtureOfExperts | None = None
        if s.use_moe:
            self.experts = MixtureOfExperts(
                width, s.n_hidden, n_experts=s.num_experts, top_k=s.moe_top_k, expert_width=s.expert_width
            )
        else:
            self.perceptron = nn.Sequential(nn.Linear(width, s.n_hidden), nn.GELU(), nn.Linear(s.n_hidden, width))
        self.dropout = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, time: Tensor, which: Tensor, real: Tensor | None) -> tuple[Tensor, RouterLosses]:
        """Tokens ``(b, n, width)``, times ``(k, width)``, and which of these each token has ``(b, n)``."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(time)[which].chunk(6, dim=-1)
        read = self.attention(self.norms[0](x) * (1 + scale_1) + shift_1, key_padding_mask=real)
        x = x + gate_1 * self.dropout(read)
        inner = self.norms[1](x) * (1 + scale_2) + shift_2
        if self.experts is None:
            told, router = self.perceptron(inner), RouterLosses(x.new_zeros(()), x.new_zeros(()))
        else:
            told, router = self.experts(inner, mask=real)
        return x + gate_2 * self.dropout(told), router


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
