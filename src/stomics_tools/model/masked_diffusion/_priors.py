"""What the networks expect of cells before any diffusion, fitted to the slices of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._slices import Slice, around

_VISITS = 80_000
_EPOCHS = (6, 60)  # at least, at most
_LR, _DECAY = 1e-3, 1.0  # there are few cells for so many weights: hence a decay this strong
_BATCH = 128
_MAX_CALIBRATED, _ROWS = 10_000, 4096
_HIDDEN = (0.3, 0.6)
_PENALTIES = (10.0, 100.0, 1e3, 1e4)


def fit_position_prior(module: MaskedDiffusionModule, slices: Sequence[Slice]) -> None:
    """Train the classifier of places, keep cells to be found again, and weigh what both say of cells new to them."""
    genes, position, fold = (torch.cat([getattr(s, name) for s in slices]) for name in ("genes", "position", "fold"))
    module.references.keep(torch.cat([s.latent for s in slices]) * module.latent.variance.sqrt(), position, fold)
    places, regression = module.places, module.regression.train()
    laid_on, others = torch.randperm(len(position)).tensor_split(2)
    places.spread_over(position[laid_on])
    optimizer = torch.optim.AdamW(regression.parameters(), weight_decay=_DECAY)
    epochs = min(max(_EPOCHS[0], -(-_VISITS // len(genes))), _EPOCHS[1])
    steps = epochs * -(-len(genes) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(genes)).split(_BATCH):
            target = places.target(position[rows])
            loss = regression.loss(
                genes[rows],
                target,
                torch.ones_like(target),
                fold[rows],
                mixup=module.settings.mixup,
                error=places.error,
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    regression.eval().requires_grad_(False)
    # Cells are nearer the places that were laid on them than new cells will be: the width is that of the others.
    of = torch.cat([torch.full((one.n_obs,), k) for k, one in enumerate(slices)])
    others = others[:_MAX_CALIBRATED]
    said, where = [], []
    for k, one in enumerate(slices):
        for rows in others[of[others] == k].split(_ROWS):
            said.append(module.said(genes[rows], one.measured, fold[rows]))
            where.append(position[rows])
    places.calibrate(torch.cat(said), torch.cat(where))


def fit_neighbor_prior(module: MaskedDiffusionModule, slices: Sequence[Slice]) -> None:
    """Regress the latent expression of hidden cells on means of neighbours that are not hidden.

    The mean of two ridge regressions: each component on all, and on itself alone, which holds better for another slice.
    """
    inputs, outputs = [], []
    for one in slices:
        for share in _HIDDEN:
            known = torch.rand(one.n_obs) >= share
            near = one.near[~known]
            inputs.append(around(one.latent, near, known, module.settings.n_neighbors))
            outputs.append(one.latent[~known])
    x, y = torch.cat(inputs).numpy(), torch.cat(outputs).numpy()
    n_latent = y.shape[1]
    every = _ridge(x, y)
    own = np.zeros_like(every)
    for k in range(n_latent):
        own[k::n_latent, [k]] = _ridge(x[:, k::n_latent], y[:, [k]])
    weight = (every + own) / 2
    module.around_weight.copy_(torch.as_tensor(weight))
    variance = np.square(y - x @ weight).mean(axis=0)
    module.around_variance.copy_(torch.as_tensor(variance).clamp(1e-3, 1))


def _ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights ``(n_inputs, n_outputs)``."""
    return np.atleast_2d(RidgeCV(_PENALTIES, fit_intercept=False).fit(x, y).coef_).T.copy()  # of one target a vector
