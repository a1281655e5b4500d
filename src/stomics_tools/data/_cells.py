"""Cells of slices, with expression and positions, as plain arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData

from stomics_tools import _validate
from stomics_tools.data._log_counts import are_counts, log_total
from stomics_tools.data._matrix import dense_matrix, expression_matrix

_FEWEST = 10


@dataclass(frozen=True)
class CellsSpec:
    """Where in an AnnData the data of a model of cells and positions lie: what ``setup_anndata`` records.

    Parameters
    ----------
    layer
        Layer of the expression. Default: ``X``.
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of the slices, if there are several.
    counts
        Whether the expression is counts; None decides by the values.
    """

    layer: str | None = None
    spatial_key: str = "spatial"
    batch_key: str | None = None
    counts: bool | None = None


@dataclass(frozen=True)
class Cells:
    """The cells of one object as arrays, rows in the object's order.

    ``expression`` float32 ``(n_obs, n_genes)``, NaN where a gene was not measured; ``coordinates`` float64
    ``(n_obs, 2 or 3)``, or None; ``batch`` int64 codes ``(n_obs,)`` into ``batch_names``; ``counts``
    where the expression is taken as counts.
    """

    expression: np.ndarray
    gene_names: list[str]
    coordinates: np.ndarray | None
    batch: np.ndarray
    batch_names: list[str]
    counts: bool

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.expression)

    def rows(self) -> list[np.ndarray]:
        """Rows of each slice."""
        return [np.flatnonzero(self.batch == number) for number in range(len(self.batch_names))]

    def state(self) -> dict[str, Any]:
        """What another object must share with this one, and what its expression is scaled by, in plain values."""
        assert self.coordinates is not None
        return {
            "gene_names": list(self.gene_names),
            "n_dims": int(self.coordinates.shape[1]),
            "batches": list(self.batch_names),
            "counts": self.counts,
            "whole": are_counts(self.expression),
            "log_total": None if self.counts else log_total(self.expression),
            "mean_counts": np.nanmean(self.expression, axis=0, dtype=np.float64).tolist() if self.counts else None,
        }

    def fingerprint(self) -> str:
        """Hash of all that a model sees: two objects with the same one hold the same data."""
        digest = hashlib.sha256(repr((self.gene_names, self.batch_names)).encode())
        for array in (self.expression, self.coordinates, self.batch):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def read_cells(
    adata: AnnData,
    spec: CellsSpec,
    *,
    training: bool = True,
    coordinates: bool | np.ndarray = True,
    genes: Sequence[str] | None = None,
) -> Cells:
    """Read and check the cells of `adata`; nothing is written to it.

    Parameters
    ----------
    adata
        The object.
    spec
        Where things are.
    training
        Whether to train on it: every gene is then measured in some slice, every slice has ten cells, and every cell
        expression. Otherwise a row that is NaN is a cell without expression.
    coordinates
        Whether coordinates are read: of all cells, or of those of a mask ``(n_obs,)``; those of others are zero then.
    genes
        Genes of training: those that `adata` lacks are not measured, further ones are left out.

    Raises
    ------
    KeyError
        If a key of `spec` is not there (the message lists those that are).
    TypeError
        If `adata` is no AnnData.
    ValueError
        If what lies there cannot be used; the message names the key, what was found, and what to do.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"Expected AnnData, found {type(adata).__name__}.")
    _validate.check_obs_names(adata.obs_names)
    if adata.n_obs < 2:
        raise ValueError(f"`adata` holds {adata.n_obs} cells; positions are relative, so at least 2 are needed.")
    batch, names = np.zeros(adata.n_obs, dtype=np.int64), ["0"]
    if spec.batch_key is not None:
        _validate.check_key(spec.batch_key, adata.obs, argument="batch_key", where="adata.obs")
        where = f"adata.obs[{spec.batch_key!r}]"
        batch, names = _validate.check_slices(adata.obs[spec.batch_key], argument="batch_key", where=where)
    expression, gene_names = _read_expression(adata, spec, genes)
    _check_measured(expression, gene_names, batch, names, training)
    found = None
    if coordinates is not False:
        read = np.broadcast_to(coordinates, adata.n_obs)
        found = _read_coordinates(adata, spec, read)
        for number, name in enumerate(names):
            own = found[read & (batch == number)]
            if len(own) > 1 and (own == own[0]).all():
                raise ValueError(
                    f"`spatial_key`: all {len(own)} cells of slice {name!r} in `adata.obsm[{spec.spatial_key!r}]` have "
                    f"the same coordinates {own[0].tolist()}. Store the positions of the cells there, or drop the slice."
                )
    if training:
        sizes = np.bincount(batch)
        if sizes.min() < _FEWEST:
            raise ValueError(
                f"`batch_key`: slice {names[int(sizes.argmin())]!r} has {sizes.min()} cells, training needs {_FEWEST} "
                "in each. Drop it."
            )
    counts = are_counts(expression) if spec.counts is None else spec.counts
    return Cells(expression, gene_names, found, batch, names, counts)


def _read_coordinates(adata: AnnData, spec: CellsSpec, read: np.ndarray) -> np.ndarray:
    _validate.check_key(spec.spatial_key, adata.obsm, argument="spatial_key", where="adata.obsm")
    values = np.array(_validate.plain_numbers(adata.obsm[spec.spatial_key]))  # a copy
    if values.ndim == 2 and values.dtype.kind in "iuf":
        values[~read] = 0  # whatever is there is not read, NaN where a position is not known
    where = f"adata.obsm[{spec.spatial_key!r}]"
    return _validate.check_coordinates(values, argument="spatial_key", where=where)


def _read_expression(adata: AnnData, spec: CellsSpec, genes: Sequence[str] | None) -> tuple[np.ndarray, list[str]]:
    own_names = adata.var_names.astype(str)
    if not own_names.is_unique:
        raise ValueError("`adata.var_names` are not unique. Call `adata.var_names_make_unique()` first.")
    raw, where = expression_matrix(adata, spec.layer)
    values = dense_matrix(raw, argument="layer", where=where)
    if np.isinf(values).any():
        raise ValueError(f"`layer`: `{where}` holds {int(np.isinf(values).sum())} infinite values. Remove them first.")
    if genes is None:
        return values, own_names.tolist()
    at = own_names.get_indexer(list(genes))
    if (at < 0).all():
        raise ValueError(
            f"`adata.var_names` hold none of the {len(genes)} genes of training ({list(genes)[:3]}, ...); "
            f"found {own_names[:3].tolist()}. Are the names of the same kind?"
        )
    return np.where(at >= 0, values[:, at], np.float32(np.nan)), list(genes)


def _check_measured(
    expression: np.ndarray, genes: list[str], batch: np.ndarray, names: list[str], training: bool
) -> None:
    missing = np.isnan(expression)
    if not missing.any():
        return
    empty = missing.all(axis=1)
    if training and empty.any():
        raise ValueError(
            f"`layer`: {int(empty.sum())} cells have no expression (all NaN; first: row {int(np.flatnonzero(empty)[0])}). "
            "Drop them."
        )
    for number, name in enumerate(names):
        own = missing[(batch == number) & ~empty]
        partly = own.any(axis=0) & ~own.all(axis=0)
        if partly.any():
            gene = genes[int(np.flatnonzero(partly)[0])]
            raise ValueError(
                f"`layer`: {int(partly.sum())} genes of slice {name!r} are NaN in some of its cells only (first: "
                f"{gene!r}). A gene that was not measured in a slice is NaN in all its cells."
            )
    if training and missing.all(axis=0).any():
        gene = genes[int(np.flatnonzero(missing.all(axis=0))[0])]
        raise ValueError(f"`layer`: gene {gene!r} was measured in no cell. Leave it out.")
