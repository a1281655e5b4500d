"""Vectors to codes and back by a fixed grid of levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stomics_tools.nn.codes import Quantized, check_width, soft, straight_through


class FSQ(nn.Module):
    """Finite scalar quantization: each number of a vector goes to one of a few levels, without a table to learn.

    The levels of a number split a standard normal into cells of equal probability, ``floor(L Phi(z))``; the value of a
    level is the mean of the normal within its cell, ``L (phi(a) - phi(b))`` between the limits a and b. Whitened
    normal input hence uses all codes alike. The loss is zero.

    Parameters
    ----------
    levels
        Number of levels of each dimension, at least 2. A code is a mixed-radix number of level indices, the last
        dimension the fastest.

    Source: Mentzer et al., Finite scalar quantization, 2024, there with equal steps under a bounded activation.
    """

    _values: Tensor
    _n_levels: Tensor
    _strides: Tensor

    def __init__(self, levels: Sequence[int] = (8, 8, 8, 8)) -> None:
        super().__init__()
        self.levels = tuple(levels)
        if not self.levels or any(isinstance(n, bool) or not isinstance(n, int) or n < 2 for n in self.levels):
            raise ValueError(f"`levels` must be integers of at least 2, one or more, found {levels!r}.")
        self.dim, self.n_codes = len(self.levels), math.prod(self.levels)
        # Beyond its levels a dimension is infinitely far: such an index gives no finite value and has no probability.
        values = torch.full((self.dim, max(self.levels)), torch.inf)
        for row, n in zip(values, self.levels, strict=True):
            limits = torch.special.ndtri(torch.arange(n + 1, dtype=torch.float64) / n)
            density = torch.exp(-limits.square() / 2) / math.sqrt(2 * math.pi)
            row[:n] = n * (density[:-1] - density[1:])
        strides = [math.prod(self.levels[i + 1 :]) for i in range(self.dim)]
        self.register_buffer("_values", values, persistent=False)
        self.register_buffer("_n_levels", torch.tensor(self.levels), persistent=False)
        self.register_buffer("_strides", torch.tensor(strides), persistent=False)

    @classmethod
    def for_vocabulary(cls, n_codes: int) -> FSQ:
        """A quantizer of `n_codes` codes in as few dimensions as 8 levels allow, their levels as even as can be.

        Raises ``ValueError`` if `n_codes` is not a power of two of at least 2.
        """
        bits = max(int(n_codes), 2).bit_length() - 1
        if n_codes != 2**bits:
            near = f"{2**bits} or {2 ** (bits + 1)}" if n_codes > 2 else "2"
            raise ValueError(f"`n_codes` must be a power of two of at least 2, found {n_codes}. Take {near}.")
        dim = -(-bits // 3)
        return cls([2 ** (bits // dim + (i < bits % dim)) for i in range(dim)])

    def forward(self, z: Tensor) -> Quantized:
        """Values and codes of `z` ``(..., dim)``."""
        check_width(z, self.dim)
        exact = z.detach().to(torch.promote_types(z.dtype, torch.float32))
        indices = (torch.special.ndtr(exact) * self._n_levels).long()
        indices = torch.minimum(indices.clamp_(min=0), self._n_levels - 1)
        return Quantized(straight_through(z, self._of_levels(indices)), self.join(indices), z.new_zeros(()))

    def _of_levels(self, indices: Tensor) -> Tensor:
        return self._values[torch.arange(self.dim, device=indices.device), indices]

    def split(self, codes: Tensor) -> Tensor:
        """Level indices int64 ``(..., dim)`` of codes ``(...)``."""
        return codes.unsqueeze(-1) // self._strides % self._n_levels

    def join(self, indices: Tensor) -> Tensor:
        """Codes int64 ``(...)`` of level indices ``(..., dim)``."""
        return (indices * self._strides).sum(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Values ``(..., dim)`` of codes ``(...)``."""
        return self._of_levels(self.split(codes))

    def codebook(self) -> Tensor:
        """Values ``(n_codes, dim)`` of all codes."""
        return self.lookup(torch.arange(self.n_codes, device=self._strides.device))

    def soft_levels(self, indices: Tensor, temperature: float) -> Tensor:
        """Probabilities ``(..., dim, max(levels))`` of the levels around `indices` ``(..., dim)``; zero past the last.

        Their product over the dimensions is :meth:`soft_targets`.
        """
        return soft((self._of_levels(indices).unsqueeze(-1) - self._values).square(), indices, temperature)

    def soft_targets(self, codes: Tensor, temperature: float) -> Tensor:
        """Probabilities ``(..., n_codes)`` proportional to ``exp(-|e_v - e_code|^2 / temperature)``; one-hot at 0."""
        joint, *others = self.soft_levels(self.split(codes), temperature).unbind(-2)
        joint = joint[..., : self.levels[0]]
        for n, level in zip(self.levels[1:], others, strict=True):
            joint = (joint.unsqueeze(-1) * level[..., :n].unsqueeze(-2)).flatten(-2)
        return joint

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"levels={self.levels}"
