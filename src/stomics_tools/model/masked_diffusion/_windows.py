"""What is shown to the network in training: sets of cells, and what of them is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stomics_tools.model.masked_diffusion._latent import GeneLatent
from stomics_tools.model.masked_diffusion._schedule import Schedule
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings
from stomics_tools.model.masked_diffusion._slices import Slice, around

_TASKS = {"joint": (0.5, 0.4, 0.1), "expr_to_pos": (1.0, 0.0, 0.0), "pos_to_expr": (0.0, 1.0, 0.0)}


class Windows(Dataset):
    """Random sets of cells of a slice, drawn by torch's generator.

    Of each set either the expression is given and positions are asked for, or positions are given and the expression
    of some of the cells or of some of the genes, or nothing is given. With masking, a part of the genes is hidden from
    half of the sets, and a part of the positions is known in half of those that ask for positions.

    Parameters
    ----------
    slices
        The data.
    latent
        Fitted.
    settings, schedule
        Of the model.
    n_sets
        Sets of an epoch.
    """

    def __init__(
        self, slices: Sequence[Slice], latent: GeneLatent, settings: DiffusionSettings, schedule: Schedule, n_sets: int
    ) -> None:
        self._slices, self._latent, self._settings, self._schedule = slices, latent, settings, schedule
        self._n_sets = n_sets
        self._share = torch.tensor([float(s.n_obs) for s in slices])
        self._tasks = torch.tensor(_TASKS[settings.training_mode])

    def __len__(self) -> int:
        return self._n_sets

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One set, padded to the size of a window."""
        s = self._settings
        one = self._slices[int(torch.multinomial(self._share, 1))]
        rows = torch.randperm(one.n_obs)[: s.n_window]
        task = ("position", "expression", "joint")[int(torch.multinomial(self._tasks, 1))]
        time = self._schedule.draw(2)
        nobody, everybody = torch.zeros(one.n_obs, dtype=torch.bool), torch.ones(one.n_obs, dtype=torch.bool)
        panel, placed, told = one.measured, nobody, nobody
        if task == "position":
            panel, told = self._panel(one), everybody
            if s.enable_masking and _coin():
                placed = torch.rand(one.n_obs) < (1 - s.position_mask_ratio) * torch.rand(1)
            if _coin():
                time = torch.stack([time[0], self._schedule.clip(torch.ones(()))])
        elif task == "expression":
            placed = everybody
            if s.enable_masking and _coin():
                panel, told = self._panel(one, always=True), everybody
            else:
                told = torch.rand(one.n_obs) >= 0.05 + 0.95 * torch.rand(1)
        elif _coin():
            time = time[:1].expand(2)
        whole = bool((panel == one.measured).all())
        shown = told if whole else nobody  # whose latent value is known exactly
        latent = one.latent
        if not whole:
            latent = self._latent.given((one.genes * panel)[None], panel[None])[0][0]
        beside = torch.zeros(len(rows), 3 * latent.shape[1])
        if placed.all():  # as in drawing: few cells that are placed are no neighbours
            beside = around(latent, one.near[rows], told & placed, s.n_neighbors) * placed[rows, None]
        item = {
            "genes": one.genes[rows] * panel * told[rows, None],
            "panel": panel * told.any(),
            "latent": one.latent[rows],
            "position": one.position[rows],
            "around": beside,
            "beside": beside.abs().sum(-1) > 0,
            "fold": one.fold[rows],
            "told": told[rows],
            "shown": shown[rows],
            "placed": placed[rows],
            "time": time.expand(len(rows), 2),
            "real": torch.ones(len(rows), dtype=torch.bool),
        }
        missing = s.n_window - len(rows)
        return {k: v if k == "panel" or not missing else _padded(v, missing) for k, v in item.items()}

    def _panel(self, one: Slice, *, always: bool = False) -> Tensor:
        """Genes that are given: all measured, or without a part of them."""
        s = self._settings
        if not s.enable_masking or not (always or _coin()):
            return one.measured
        draw = torch.rand(len(one.measured))
        draw[(draw * one.measured).argmax()] = torch.inf  # one gene is given, however large the part
        return one.measured * (draw >= s.expression_mask_ratio * (0.5 + torch.rand(1)))


def _coin() -> bool:
    return bool(torch.rand(()) < 0.5)


def _padded(values: Tensor, n: int) -> Tensor:
    return torch.cat([values, values.new_zeros(n, *values.shape[1:])])
