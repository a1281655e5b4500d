"""Stage 2: the transformer that predicts all codes of a scale from those of the coarser ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]


class NextScaleTransformer(nn.Module):
    """Logits of the codes of every scale, given a condition and the coarser scales.

    The input at a scale is what the coarser codes tell, pooled to that scale, so that all tokens of a scale are
    predicted in one pass; attention is full inside a scale and causal across scales (Tian et al. 2024). The condition
    enters as the token before the first scale and as the scale, shift and gate of every block (adaptive layer
    normalisation, Peebles & Xie 2023).

    Parameters
    ----------
    sizes
        Tokens of each scale.
    n_field
        Width of the field that codes stand for.
    n_outputs
        Logits of a token.
    width, n_heads, n_layers, n_hidden
        Dimensions of the transformer.
    dropout
        In the perceptrons; without it in attention, torch takes the kernels that never hold all weights.
    """

    levels: Tensor

    def __init__(
        self,
        sizes: tuple[int, ...],
        n_field: int,
        n_outputs: int,
        *,
        width: int,
        n_heads: int,
        n_layers: int,
        n_hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        levels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.register_buffer("levels", levels, persistent=False)
        self.embed = nn.Linear(n_field, width)
        self.position = nn.Parameter(0.02 * torch.randn(sum(sizes), width))
        self.level = nn.Parameter(0.02 * torch.randn(len(sizes), width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, n_heads, n_hidden, dropout, depth=n_layers) for _ in range(n_layers)
        )
        modulate = nn.Linear(width, 2 * width)
        self.modulate = nn.Sequential(nn.SiLU(), modulate)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.head = nn.Linear(width, n_outputs)
        nn.init.normal_(self.head.weight, std=0.02 * width**-0.5)
        nn.init.zeros_(self.head.bias)
        nn.init.zeros_(modulate.weight)
        nn.init.zeros_(modulate.bias)

    def forward(self, condition: Tensor, pooled: Tensor) -> Tensor:
        """Logits ``(b, n_tokens, n_outputs)`` of all scales at once, for training.

        Parameters
        ----------
        condition
            ``(b, width)``.
        pooled
            ``(b, n_tokens - n_first, n_field)``: for every token beyond the first scale, what the coarser scales tell.
        """
        mask = self.levels[:, None] >= self.levels[None, :]
        x = torch.cat([condition[:, None].expand(-1, self.sizes[0], -1), self.embed(pooled)], dim=1)
        x = x + self.position + self.level[self.levels]
        for block in self.blocks:
            x, _ = block(x, condition, mask=mask)
        return self._logits(x, condition)

    def step(
        self, condition: Tensor, pooled: Tensor | None, scale: int, cache: list[KeysValues]
    ) -> tuple[Tensor, list[KeysValues]]:
        """Logits ``(b, n_groups, n_outputs)`` of one scale, and the keys and values of all tokens up to it.

        Parameters
        ----------
        condition
            ``(b, width)``.
        pooled
            ``(b, n_groups, n_field)``, see :meth:`forward`; None at the first scale.
        scale
            To be predicted.
        cache
            Keys and values of the coarser scales, by block; empty at the first scale.
        """
        first = sum(self.sizes[:scale])
        here = slice(first, first + self.sizes[scale])
        start = condition[:, None].expand(-1, self.sizes[scale], -1) if pooled is None else self.embed(pooled)
        x = start + self.position[here] + self.level[scale]
        grown = []
        for index, block in enumerate(self.blocks):
            x, keys_values = block(x, condition, past=cache[index] if cache else None)
            grown.append(keys_values)
        return self._logits(x, condition), grown

    def _logits(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulate(condition)[:, None].chunk(2, dim=-1)
        return self.head(self.norm(x) * (1 + scale) + shift)


class TransformerBlock(nn.Module):
    """Self-attention and perceptron, each modulated by the condition."""

    def __init__(self, width: int, n_heads: int, n_hidden: int, dropout: float, *, depth: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        narrow, modulate = nn.Linear(n_hidden, width), nn.Linear(width, 6 * width)
        self.perceptron = nn.Sequential(nn.Linear(width, n_hidden), nn.GELU(), nn.Dropout(dropout), narrow)
        self.modulate = nn.Sequential(nn.SiLU(), modulate)
        with torch.no_grad():
            # Gates begin at one half, and the outcome of a branch small: a deep stack begins near the identity.
            modulate.weight.mul_(0.02)
            modulate.bias.zero_()
            modulate.bias[: 2 * width] = 0.5
            self.project.weight.div_((2 * depth) ** 0.5)
            narrow.weight.div_((2 * depth) ** 0.5)

    def forward(
        self, x: Tensor, condition: Tensor, *, mask: Tensor | None = None, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Tokens ``(b, t, width)`` to the same, and their keys and values after those of the `past`.

        `mask` ``(t, t)`` is true where a token (row) attends to another (column); by default to all.
        """
        gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = self.modulate(condition)[:, None].chunk(6, dim=-1)
        tokens = self.norm_1(x) * (1 + scale_1) + shift_1
        queries, keys, values = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in self.queries_keys_values(tokens).chunk(3, dim=-1)
        )  # (b, heads, t, width / heads)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        attended = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        x = x + gate_1 * self.project(attended.transpose(1, 2).flatten(2))
        x = x + gate_2 * self.perceptron(self.norm_2(x) * (1 + scale_2) + shift_2)
        return x, (keys, values)
