"""Splitting counts into independent halves."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools._params import plain_params
from stomics_tools._validate import check_annotated, check_new_key, check_number
from stomics_tools.pp._matrix import read_counts


def thin_counts(
    adata: AnnData,
    fraction: float = 0.5,
    *,
    layer: str | None = None,
    seed: int = 0,
    key_added: str = "thinned",
    copy: bool = False,
) -> AnnData | None:
    """Split every count at random into two parts, such as one to fit on and one to judge by.

    Each molecule goes to the first part with probability `fraction`, by itself. The parts of Poisson counts are
    independent of each other given the rates.

    Parameters
    ----------
    adata
        Annotated data with whole counts.
    fraction
        Share of the molecules in the first part, between 0 and 1.
    layer
        Layer of the counts. Default: ``X``.
    seed
        Of the draw.
    key_added
        First part of the names of the layers.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are ``layers[f"{key_added}_train"]``, ``layers[f"{key_added}_test"]``
    (the first part and the rest, CSR of the type of the counts, to which they sum) and ``uns[key_added]["params"]``.

    Raises
    ------
    ValueError
        If `fraction` is not between 0 and 1, or for counts that are negative, not finite or not whole.
    """
    check_annotated(adata, mudata=False)
    check_new_key(key_added, argument="key_added")
    check_number(fraction, argument="fraction", low=0, high=1)
    counts, _ = read_counts(adata, layer, integer=True)
    first, rest = split_counts(counts, fraction, seed=seed)
    adata = adata.copy() if copy else adata
    adata.layers[f"{key_added}_train"] = first
    adata.layers[f"{key_added}_test"] = rest
    adata.uns[key_added] = {"params": plain_params({"fraction": fraction, "layer": layer, "seed": seed})}
    logg.info(f"split counts into `layers['{key_added}_train']` and `layers['{key_added}_test']`")
    return adata if copy else None


def split_counts(
    counts: sparse.csr_matrix, fraction: float, *, seed: int = 0
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Binomial draw from counts, and what is left of them.

    Parameters
    ----------
    counts
        Whole numbers ``(n_obs, n_features)``.
    fraction
        Probability of each single count to be drawn.
    seed
        Seed of the draw.

    Returns
    -------
    What was drawn and what is left, CSR of the shape and type of `counts`; they add up to `counts`.
    """
    values = counts.data
    drawn = np.random.default_rng(seed).binomial(values.astype(np.int64), fraction).astype(values.dtype)
    parts = []
    for data in (drawn, values - drawn):
        part = sparse.csr_matrix((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
        part.eliminate_zeros()
        parts.append(part)
    return parts[0], parts[1]
