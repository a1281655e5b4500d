"""Representations judged by what a linear classifier finds in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools import _keys, _validate
from stomics_tools.data._lookup import representation
from stomics_tools.data._read import find_column, read_coordinates
from stomics_tools.metrics import linear_probe


def evaluate_representation(
    adata: AnnData | MuData,
    label_key: str,
    *,
    use_rep: str | Sequence[str],
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    n_folds: int = 5,
    n_blocks: int = 20,
    margin: float = 3.0,
    seeds: int | Sequence[int] = 1,
) -> pd.DataFrame:
    """Predict labels from frozen representations, blocks of tissue held out; nothing is written.

    Parameters
    ----------
    adata
        Annotated data. Columns and coordinates that only the modalities of a MuData hold are found there.
    label_key
        ``obs`` column of the labels; spots without one are left out.
    use_rep
        ``obsm`` keys of the representations.
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of the slices.
    n_folds, n_blocks, margin
        See :func:`~stomics_tools.metrics.linear_probe`.
    seeds
        Of blocks and folds: the seeds, or how many.

    Returns
    -------
    One row a representation and seed: ``use_rep``, ``seed`` and the scores of
    :func:`~stomics_tools.metrics.linear_probe`.

    Raises
    ------
    KeyError
        If a key is not there; the message lists those that are.
    ValueError
        If what lies there cannot be used.
    """
    _validate.check_annotated(adata)
    keys = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    kind = "mdata" if isinstance(adata, MuData) else "adata"
    labels, _ = find_column(adata, label_key, kind, argument="label_key")
    batch, names = np.zeros(adata.n_obs, dtype=np.int64), ["0"]
    if batch_key is not None:
        column, where = find_column(adata, batch_key, kind)
        batch, names = _validate.check_slices(column, argument="batch_key", where=where)
    coordinates = read_coordinates(adata, spatial_key, kind, batch, names)
    values = {key: representation(adata, key) for key in keys}
    rows = []
    for key, z in values.items():
        for seed in _validate.check_seeds(seeds):
            scores = linear_probe(
                z,
                labels.astype(object).to_numpy(),
                coordinates,
                batch=batch,
                n_folds=n_folds,
                n_blocks=n_blocks,
                margin=margin,
                seed=seed,
            )
            rows.append({"use_rep": key, "seed": seed, **scores})
    return pd.DataFrame(rows)
