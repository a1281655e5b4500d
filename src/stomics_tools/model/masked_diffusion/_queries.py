"""What an object gives a trained MaskedDiffusion to go on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from stomics_tools import _validate
from stomics_tools._by_name import align_rows
from stomics_tools.data import Cells, check_same_unit, read_cells
from stomics_tools.data._log_counts import check_same_total, log_total
from stomics_tools.model.masked_diffusion._drawing import Given
from stomics_tools.model.masked_diffusion._poses import pose_of
from stomics_tools.model.masked_diffusion._preparation import latent_of, normalized, standardized, unit_of
from stomics_tools.model.masked_diffusion._settings import Mode
from stomics_tools.model.masked_diffusion._slices import nearest
from stomics_tools.model.masked_diffusion._training import MaskedDiffusionTraining

_FEWEST_GENES = 10
_USUAL_SHARE = 0.5


class _Frame(NamedTuple):
    """How the coordinates of a slice lie to those of the networks: ``(xy - centre) / unit @ pose``."""

    centre: np.ndarray
    unit: float
    pose: np.ndarray

    def enter(self, position: np.ndarray) -> np.ndarray:
        return (position - self.centre) / self.unit @ self.pose

    def leave(self, position: np.ndarray) -> np.ndarray:
        return position @ self.pose.T * self.unit + self.centre


class MaskedDiffusionQueries(MaskedDiffusionTraining):
    """Objects as queries of :class:`~stomics_tools.model.MaskedDiffusion`."""

    def _check_mode(self, mode: str) -> None:
        self._require_trained()
        _validate.check_option(mode, Mode.__args__, argument="mode")  # type: ignore[attr-defined]
        trained = self._settings.training_mode
        if trained not in ("joint", mode):
            raise ValueError(
                f"`mode`: {mode!r} was not trained: this model has `training_mode={trained!r}`. "
                "Train one with `training_mode='joint'`, which serves all modes."
            )

    def _read(self, adata: AnnData | None, *, coordinates: bool | np.ndarray) -> Cells:
        data, genes = self._data(adata), self._state["gene_names"]
        cells = read_cells(data, self._spec, training=False, coordinates=coordinates, genes=genes)
        where = "adata.X" if self._spec.layer is None else f"adata.layers[{self._spec.layer!r}]"
        counts, whole = self._state["counts"], self._state["whole"]
        check_same_unit(cells.expression, counts=counts, whole=whole, argument="layer", where=where)
        if not counts:
            check_same_total(log_total(cells.expression), self._state.get("log_total"), where=where)
        if data is not self.adata:  # the panels of the object of setup are those of training
            self._check_panel(cells)
        n_dims = self._state["n_dims"]
        if cells.coordinates is not None and cells.coordinates.shape[1] != n_dims:
            raise ValueError(
                f"`spatial_key`: the model was trained in {n_dims} dimensions, "
                f"`adata.obsm[{self._spec.spatial_key!r}]` has {cells.coordinates.shape[1]}."
            )
        return cells

    def _check_panel(self, cells: Cells) -> None:
        """Refuse slices of a handful of the genes of training, and warn where there are fewer than half, by number or counts.

        Slices without any expression are not meant: nothing is read of them.
        """
        n_genes, counts = len(cells.gene_names), self._state["mean_counts"]
        least = min(_FEWEST_GENES, -(-n_genes // 2))
        for rows, name in zip(cells.rows(), cells.batch_names, strict=True):
            measured = ~np.isnan(cells.expression[rows]).all(axis=0)
            n_measured = int(measured.sum())
            if n_measured in (0, n_genes):
                continue
            what = f"slice {name!r} has {n_measured} of the {n_genes} genes of training"
            share = 1.0 if counts is None else float(np.dot(measured, counts) / np.sum(counts))
            if counts is not None:
                what += f", which carried {share:.0%} of its counts"
            if n_measured < least:
                raise ValueError(
                    f"`adata.var_names`: {what}. At least {least} are needed to tell anything of a cell. "
                    "Are the names of the same kind, and is the panel that of training?"
                )
            if n_measured < n_genes / 2 or share < _USUAL_SHARE:
                scaled = "" if counts is None else " and cells are scaled to the mean total of these genes"
                warnings.warn(
                    f"`adata.var_names`: {what}. Results rest on these alone{scaled}: they will differ from those of all "
                    "genes.",
                    UserWarning,
                    stacklevel=2,
                )

    def _mask(self, adata: AnnData | None, mask: np.ndarray | str | None, argument: str) -> np.ndarray | None:
        """A mask of cells: a column of ``obs``, a Series, whose rows are found by name, or an array."""
        if mask is None:
            return None
        data = self._data(adata)
        if isinstance(mask, str):
            _validate.check_key(mask, data.obs, argument=argument, where="adata.obs")
            mask = data.obs[mask]
        names = pd.Series(False, index=data.obs_names)
        found = np.asarray(align_rows({"adata": names, argument: mask})[1])
        if found.shape != (data.n_obs,) or found.dtype != bool:
            raise ValueError(
                f"`{argument}` must be boolean of shape ({data.n_obs},), found {found.dtype} of shape {found.shape}."
            )
        return found

    def _given(
        self, cells: Cells, placed: np.ndarray, hidden: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Given, _Frame]]:
        """Rows of each slice, what is given of its cells, and how it lies."""
        genes, told = standardized(self.module, normalized(cells, self._state))
        told &= torch.as_tensor(~hidden)
        device = self.device
        for rows in cells.rows():
            index = torch.as_tensor(rows)
            own_told, own_placed = told[index], torch.as_tensor(placed[rows])
            measured = ~np.isnan(cells.expression[rows[own_told.numpy()]]).all(axis=0)
            panel = torch.as_tensor(measured if own_told.any() else np.ones(genes.shape[1], dtype=bool)).float()
            own = genes[index] * own_told[:, None]
            latent = latent_of(self.module.latent, own.to(device), panel.to(device)).cpu()
            shown = own_told & bool(panel.all())
            frame = self._frame(cells, rows, own, panel, own_told, own_placed)
            position = torch.zeros(len(rows), self._state["n_dims"])
            near = None
            if own_placed.any():
                assert cells.coordinates is not None
                position[own_placed] = torch.as_tensor(
                    frame.enter(cells.coordinates[rows[own_placed.numpy()]]), dtype=torch.float32
                )
                if own_placed.all():
                    near = nearest(cells.coordinates[rows], 4 * self._settings.n_neighbors)
            yield rows, Given(own, panel, own_told, latent, shown, position, own_placed, near), frame

    def _frame(
        self,
        cells: Cells,
        rows: np.ndarray,
        genes: torch.Tensor,
        panel: torch.Tensor,
        told: torch.Tensor,
        placed: torch.Tensor,
    ) -> _Frame:
        """Centre and size of the cells whose positions are known, turned to what their genes say."""
        n_dims = self._state["n_dims"]
        if not placed.any():
            return _Frame(np.zeros(n_dims), float(self.module.unit), np.eye(n_dims))
        assert cells.coordinates is not None
        known = cells.coordinates[rows[placed.numpy()]]
        centre = known.mean(axis=0)
        unit = unit_of(known - centre) or float(self.module.unit)  # a slice of one cell has no size
        pose, both = np.eye(n_dims), placed & told
        if both.any():
            probability = self.module.probabilities(genes[both].to(self.device), panel.to(self.device))
            expected = (probability @ self.module.places.position).cpu().numpy()
            own = (cells.coordinates[rows[both.numpy()]] - centre) / unit
            pose = pose_of(own - own.mean(axis=0), expected - expected.mean(axis=0))
        return _Frame(centre, unit, pose)

    def _decoded(self, latent: torch.Tensor) -> np.ndarray:
        """Latent expression ``(n, L)`` as genes ``(n, n_genes)`` in the units of training."""
        genes = self.module.latent.decode(latent.to(self.device))
        return (genes * self.module.gene_sd + self.module.gene_mean).cpu().numpy()
