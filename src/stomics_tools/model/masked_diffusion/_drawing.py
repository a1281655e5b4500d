"""Draws of what is not given of the cells of a slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._layout import expected_layout, with_mean
from stomics_tools.model.masked_diffusion._mixture import Mixture
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule, Prior
from stomics_tools.model.masked_diffusion._sampler import Denoiser, Sampler, sample_chain
from stomics_tools.model.masked_diffusion._slices import around
from stomics_tools.model.masked_diffusion._spread import spread

_POSITION, _EXPRESSION = "position", "expression"


@dataclass(frozen=True)
class Given:
    """What is given of the cells of one slice, in the units of the networks.

    ``genes`` ``(n, G)``, zero where not given; ``panel`` ``(G,)``: the genes given, 0 or 1; ``told`` ``(n,)``: the cells
    whose genes are given; ``latent`` ``(n, L)``: latent expression of these, as their genes tell it; ``shown`` ``(n,)``:
    where that is exact; ``position`` ``(n, d)`` and ``placed`` ``(n,)``: where it is given; ``near`` int64 ``(n, k)``:
    the nearest cells of each that is placed, or None.
    """

    genes: Tensor
    panel: Tensor
    told: Tensor
    latent: Tensor
    shown: Tensor
    position: Tensor
    placed: Tensor
    near: Tensor | None


@dataclass(frozen=True)
class How:
    """Steps and kind of the sampler, which of both are drawn, and how much more what is given counts than it would."""

    n_steps: int = 20
    sampler: Sampler = "dpm++"
    position: bool = True
    expression: bool = True
    guidance: float = 0.0


class Drawing:
    """Draws for the cells of one slice.

    Up to twice as many cells as a window of training are drawn together. Of larger slices half a window of cells, the
    anchors, is drawn first, and all others by half windows given the anchors: time and memory are linear in the number
    of cells, and sets are as large as in training.

    Parameters
    ----------
    module
        Trained, on the device where it is to run.
    given
        On the CPU.
    how
        Of the draws.
    """

    def __init__(self, module: MaskedDiffusionModule, given: Given, how: How) -> None:
        self._module, self._given, self._how = module.eval(), given, how
        self._device = module.unit.device
        n, n_latent = len(given.told), given.latent.shape[1]
        self._around = torch.zeros(n, 3 * n_latent)
        if given.near is not None:
            known = given.told & given.placed
            self._around = around(given.latent, given.near, known, module.settings.n_neighbors)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions ``(n, d)`` and latent expression ``(n, L)`` of all cells: as given, or drawn."""
        given = self._given
        n, window = len(given.told), self._module.settings.n_window
        if n <= 2 * window:
            return self._together(given, torch.arange(n), generator)
        order = torch.randperm(n, generator=generator)
        half = max(window // 2, 1)
        anchors, others = order[:half], order[half:]
        position, latent = given.position.clone(), given.latent.clone()
        position[anchors], latent[anchors] = self._together(given, anchors, generator)
        fixed = torch.zeros(n, dtype=torch.bool)
        fixed[anchors] = True
        known = replace(
            given,
            position=position,
            latent=latent,
            placed=given.placed | (fixed & self._how.position),
            shown=given.shown | (fixed & self._how.expression),
        )
        for rows in others.split(half):
            both = torch.cat([anchors, rows])
            found = self._together(known, both, generator)
            position[rows], latent[rows] = (part[len(anchors) :] for part in found)
        return position, latent

    def layout(self, generator: torch.Generator, temperature: float) -> Tensor:
        """A draw of positions ``(n, d)``.

        Below a `temperature` of 1 it lies around the layout expected, at its root times the distance of the draw from the
        positions expected, and all cells are then spread to the density of the tissue of training.
        """
        drawn = self.draw(generator)[0]
        if temperature == 1:
            return drawn
        near = self.expected_layout + temperature**0.5 * (drawn - self.expected_position)
        return spread(near, self._module.references.position.cpu(), generator)

    @cached_property
    def expected_position(self) -> Tensor:
        """Mean position ``(n, d)`` of each cell."""
        return self.expect(torch.Generator().manual_seed(0))[0]

    @cached_property
    def expected_layout(self) -> Tensor:
        """Positions ``(n, d)`` whose distances are those to be expected, see :func:`expected_layout`.

        Of places by the genes of each cell, such that the mean is the position expected.
        """
        mean, place = self.expected_position, self._module.places.position.cpu()
        probability = self._module.probabilities(
            self._given.genes.to(self._device), self._given.panel.to(self._device)
        ).cpu()
        return expected_layout(with_mean(probability, place, mean), place, torch.Generator().manual_seed(0))

    @torch.no_grad()
    def expect(self, generator: torch.Generator, n_draws: int = 4) -> tuple[Tensor, Tensor]:
        """Positions and latent expression expected of all cells, in one pass a draw of noise that tells nothing."""
        n, window = len(self._given.told), self._module.settings.n_window
        total = [torch.zeros_like(self._given.position), torch.zeros_like(self._given.latent)]
        for _ in range(n_draws):
            for rows in torch.randperm(n, generator=generator).split(window):
                denoise, start = self._chain(self._given, rows, generator)
                found = denoise(start, self._module.schedule.grid(1)[0])
                for sum_, name in zip(total, (_POSITION, _EXPRESSION), strict=True):
                    sum_[rows] += found[name][0].cpu() / n_draws
        return total[0], total[1]

    @torch.no_grad()
    def tokens(self, n_window: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows, and the last tokens ``(n, width)`` of their cells, with all that is given known without noise."""
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(self._given.told), generator=torch.Generator().manual_seed(0))
        for rows in order.split(n_window or self._module.settings.n_window):
            yield rows, self._tokens_of(rows, generator)

    def _tokens_of(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        noised, time, batch, priors = self._set(self._given, rows, generator)
        start = (noised[_POSITION], noised[_EXPRESSION])
        last = self._module.schedule.grid(1)[0]
        return self._module.denoise(start, time * last, batch, priors)[2].tokens[0].cpu()

    def _together(self, given: Given, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        denoise, start = self._chain(given, rows, generator)
        found = sample_chain(
            denoise,
            start,
            self._module.schedule,
            n_steps=self._how.n_steps,
            sampler=self._how.sampler,
            generator=generator,
        )
        return found[_POSITION][0].cpu(), found[_EXPRESSION][0].cpu()

    def _chain(self, given: Given, rows: Tensor, generator: torch.Generator) -> tuple[Denoiser, dict[str, Tensor]]:
        """A denoiser of a set of cells, and the noise that it begins with."""
        guidance, denoise, start = self._how.guidance, *self._denoiser(given, rows, generator)
        if guidance == 0:
            return denoise, start
        free, _ = self._denoiser(self._without_condition(given), rows, generator)
        drawn = _POSITION if self._how.position else _EXPRESSION

        def guided(values: dict[str, Tensor], time: float) -> dict[str, Tensor]:
            told, untold = denoise(values, time), free(values, time)
            return {**told, drawn: told[drawn] + guidance * (told[drawn] - untold[drawn])}

        return guided, start

    def _without_condition(self, given: Given) -> Given:
        """The same without expression, if positions are drawn, or without positions, if expression is."""
        nobody = torch.zeros_like(given.told)
        if self._how.position:
            return replace(given, genes=torch.zeros_like(given.genes), told=nobody, shown=nobody)
        return replace(given, placed=nobody)

    def _denoiser(self, given: Given, rows: Tensor, generator: torch.Generator) -> tuple[Denoiser, dict[str, Tensor]]:
        start, unknown, batch, priors = self._set(given, rows, generator)
        last = self._module.schedule.grid(1)[0]
        drawn = torch.tensor([self._how.position, self._how.expression], device=self._device)
        clean = {name: value.clone() for name, value in start.items()}
        earlier: tuple[Tensor, Tensor] | None = None

        def denoise(values: dict[str, Tensor], time: float) -> dict[str, Tensor]:
            nonlocal earlier
            # What is neither known nor drawn stays noise that tells nothing.
            times = unknown * torch.where(drawn, time, last)
            noised = {}
            for kind, name in enumerate((_POSITION, _EXPRESSION)):
                moving = (unknown[..., kind : kind + 1] > 0) & drawn[kind]
                noised[name] = torch.where(moving, values[name], clean[name])
            now = (noised[_POSITION], noised[_EXPRESSION])
            position, expression, _ = self._module.denoise(now, times, batch, priors, earlier)
            earlier = (position, expression)
            return {_POSITION: position, _EXPRESSION: expression}

        return denoise, start

    def _set(
        self, given: Given, rows: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor], tuple[Mixture, Prior]]:
        """Known values, or noise; 1 for what is not known ``(1, n, 2)``; what is given; and priors."""
        around = self._around[rows] * given.placed[rows, None]
        batch = {
            "genes": given.genes[rows],
            "told": given.told[rows],
            "placed": given.placed[rows],
            "around": around,
            "beside": around.abs().sum(-1) > 0,
            "real": torch.ones(len(rows), dtype=torch.bool),
            "panel": given.panel,
        }
        batch = {name: value[None].to(self._device) for name, value in batch.items()}
        expected = self._module.expression_prior(batch)
        priors = (self._module.position_prior(batch), expected)
        known = torch.stack([given.placed[rows], given.shown[rows]], dim=-1).to(self._device)
        start = {}
        for kind, (name, value) in enumerate(((_POSITION, given.position), (_EXPRESSION, given.latent))):
            own = value[rows].to(self._device)
            noise = torch.randn(own.shape, generator=generator).to(own)
            start[name] = torch.where(known[:, kind : kind + 1], own, noise)[None]
        return start, (~known).float()[None], batch, priors
