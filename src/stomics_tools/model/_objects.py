"""What models do to the objects that users hand them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

logger = logging.getLogger("stomics_tools")


def own_data(data: AnnData | MuData) -> None:
    """Turn a view into an object of its own, in place, so that its parent is never written.

    Results then lie in `data` itself, the object that the user named.
    """
    if data.is_view:
        logger.warning("Received a view: it becomes a copy that holds the results; its parent stays as it is.")
        backed = isinstance(data, AnnData) and data.isbacked
        data._init_as_actual(data.to_memory() if backed else data.copy())


def write_expression(data: AnnData, values: Mapping[str, np.ndarray], genes: Sequence[str]) -> dict[str, Any]:
    """Write expression of `genes`, each array ``(n_obs, n_genes)`` by its key, and return what belongs in ``uns``.

    Arrays are layers where the genes of `data` are these, in this order. Otherwise they lie in ``obsm``, and
    ``gene_names`` in ``uns`` names their columns: as columns of a table, names with a slash could not be written, nor
    some thousands of names.
    """
    same = data.var_names.astype(str).tolist() == list(genes)
    for key, array in values.items():
        place, other = (data.layers, data.obsm) if same else (data.obsm, data.layers)
        if key in other:
            del other[key]  # of an earlier call, with other genes
        place[key] = np.asarray(array, dtype=np.float32)
    return {} if same else {"gene_names": np.array(genes, dtype=object)}
