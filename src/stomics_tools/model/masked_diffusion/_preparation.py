"""Cells of an object to slices in the units of the networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from stomics_tools.data import Cells
from stomics_tools.model.masked_diffusion._latent import GeneLatent
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._poses import common_frame
from stomics_tools.model.masked_diffusion._slices import Slice, nearest

_MOST = 8.0  # standard deviations
N_FOLDS = 5


def normalized(cells: Cells, state: dict[str, Any]) -> np.ndarray:
    """Expression in the units of training, float32 ``(n_obs, n_genes)``, NaN where it was not measured.

    Counts become log(1 + counts) after every cell is scaled to the mean total, in training, of the genes that were
    measured in its slice; other values stay as they are.
    """
    if state["mean_counts"] is None:
        return cells.expression
    measured = ~np.isnan(cells.expression)
    wanted = measured @ np.asarray(state["mean_counts"])
    total = np.nansum(cells.expression, axis=1, dtype=np.float64)
    scale = np.divide(wanted, total, out=np.zeros_like(wanted), where=total > 0)
    return np.log1p(cells.expression * scale[:, None]).astype(np.float32)


def standardized(module: MaskedDiffusionModule, expression: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised genes ``(n, n_genes)``, zero where not measured, and whether any were in each cell ``(n,)``."""
    values = torch.as_tensor(expression)
    z = ((values - module.gene_mean.cpu()) / module.gene_sd.cpu()).clamp(-_MOST, _MOST)
    return z.nan_to_num(0.0), ~values.isnan().all(1)


def unit_of(position: np.ndarray) -> float:
    """Root mean square of centred coordinates."""
    return float(np.sqrt(np.square(position).mean()))


def training_slices(module: MaskedDiffusionModule, cells: Cells, state: dict[str, Any], seed: int) -> list[Slice]:
    """Slices of an object to train on; what `module` keeps of genes, latent and units is fitted to them."""
    assert cells.coordinates is not None
    expression = normalized(cells, state)
    sd = np.nanstd(expression, axis=0)
    module.gene_mean.copy_(torch.as_tensor(np.nanmean(expression, axis=0)))
    module.gene_sd.copy_(torch.as_tensor(np.where(sd > 0, sd, 1.0)))
    genes, _ = standardized(module, expression)
    module.latent.fit(genes.numpy())
    fold = torch.as_tensor(np.random.default_rng(seed).integers(N_FOLDS, size=cells.n_obs))
    rows = cells.rows()
    centred = [cells.coordinates[own] - cells.coordinates[own].mean(axis=0) for own in rows]
    units = [unit_of(own) for own in centred]
    module.unit.fill_(float(np.mean(units)))
    scaled = [own / unit for own, unit in zip(centred, units, strict=True)]
    measured = [torch.as_tensor(~np.isnan(expression[own]).all(axis=0)).float() for own in rows]
    latent = [latent_of(module.latent, genes[own], panel) for own, panel in zip(rows, measured, strict=True)]
    poses = common_frame([x.numpy() for x in latent], scaled)
    return [
        Slice(
            genes[own],
            panel,
            x,
            torch.as_tensor(position @ pose, dtype=torch.float32),
            nearest(position, 4 * module.settings.n_neighbors),
            fold[own],
        )
        for own, panel, x, position, pose in zip(rows, measured, latent, scaled, poses, strict=True)
    ]


def latent_of(latent: GeneLatent, genes: torch.Tensor, panel: torch.Tensor) -> torch.Tensor:
    """Latent expression ``(n, L)`` of cells of one slice: exact where all genes were measured, else expected."""
    return latent.encode(genes) if panel.all() else latent.given(genes[None], panel[None])[0][0]
