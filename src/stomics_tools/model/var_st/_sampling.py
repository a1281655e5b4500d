"""Draws from the model: scale by scale, with the keys and values of the coarser scales kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stomics_tools import _validate
from stomics_tools.model.var_st._codes import draw
from stomics_tools.model.var_st._module import VarSTModule
from stomics_tools.model.var_st._transformer import KeysValues


class Sampling(NamedTuple):
    """How codes are drawn.

    Parameters
    ----------
    temperature
        Divides the logits; 0 takes the likeliest code.
    top_k
        Only so many of the likeliest codes.
    top_p
        Only the likeliest codes that together have this probability.
    guidance
        How far logits move on from those without a condition, rising linearly to this value over the scales
        (classifier-free guidance, Ho & Salimans 2022).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 0.0

    def checked(self) -> Sampling:
        """Itself, if it can be used."""
        _validate.check_number(self.temperature, argument="temperature", low=0)
        if self.top_k is not None:
            _validate.check_integer(self.top_k, argument="top_k")
        if self.top_p is not None:
            _validate.check_number(self.top_p, argument="top_p", low=0, high=1, open_low=True)
        _validate.check_number(self.guidance, argument="guidance", low=0)
        for name in ("top_k", "top_p"):
            if self.temperature == 0 and getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}={getattr(self, name)!r}` has no effect unless `temperature` is above 0: the likeliest code is "
                    "taken. Leave it out."
                )
        return self


class Drawn(NamedTuple):
    """``codes`` int64 ``(b, n_tokens)``, the ``field`` ``(b, s, n_field)`` that they stand for, and the passes taken."""

    codes: Tensor
    field: Tensor
    n_passes: int


@torch.no_grad()
def draw_codes(networks: VarSTModule, condition: Tensor, how: Sampling, generator: torch.Generator) -> Drawn:
    """Draw the codes of every spot: one pass of the transformer a scale.

    Parameters
    ----------
    condition
        ``(b, n_condition)``.
    how
        Temperature and the like.
    generator
        On the device of `condition`.
    """
    stage1, transformer = networks.stage1, networks.transformer
    n_scales = len(stage1.scales.sizes)
    both = condition
    if how.guidance:
        both = torch.cat([condition, networks.no_condition.expand_as(condition)])
    cache: list[KeysValues] = []
    known, codes = condition.new_zeros(()), []
    pooled: Tensor | None = None
    for scale in range(n_scales):
        inputs = pooled if pooled is None or not how.guidance else pooled.repeat(2, 1, 1)
        logits, cache = transformer.step(both, inputs, scale, cache)
        if how.guidance:
            given, free = logits.chunk(2)
            rise = scale / (n_scales - 1) if n_scales > 1 else 1.0
            logits = given + how.guidance * rise * (given - free)
        drawn = draw(
            logits,
            stage1.quantizer,
            factorized=networks.settings.factorized,
            temperature=how.temperature,
            top_k=how.top_k,
            top_p=how.top_p,
            generator=generator,
        )
        codes.append(drawn)
        known = known + stage1.lookup(drawn, scale)
        if scale + 1 < n_scales:
            pooled = stage1.scales.down(known, scale + 1)
    return Drawn(torch.cat(codes, dim=1), known, n_scales)
