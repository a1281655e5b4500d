"""From counts of open chromatin to latent semantic components."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from stomics_tools import _keys
from stomics_tools._params import plain_params
from stomics_tools._validate import check_integer
from stomics_tools.pp._matrix import cap_components, read_counts


def atac(
    adata: AnnData,
    *,
    layer: str | None = None,
    n_comps: int = 50,
    seed: int = 0,
    key_added: str = _keys.LSI,
    copy: bool = False,
) -> AnnData | None:
    """Latent semantic indexing of ATAC or other epigenome counts: TF-IDF, SVD, the first component dropped.

    The first component follows the depth of the spots. Counts and layers are left as they are.

    Parameters
    ----------
    adata
        Annotated data with counts of peaks or bins.
    layer
        Layer of the counts. Default: ``X``.
    n_comps
        Number of components that are kept; fewer if there are fewer spots or peaks.
    seed
        Of the randomised SVD.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are ``obsm[key_added]`` (components, float32 ``(n_obs, n_comps)``) and
    ``uns[key_added]["params"]``.

    Raises
    ------
    ValueError
        For negative or infinite counts, or if there are fewer than 2 spots or peaks.
    """
    check_integer(n_comps, argument="n_comps")
    counts, _ = read_counts(adata, layer)

    start = logg.info("computing components of chromatin")
    n_comps = cap_components(n_comps, adata.shape)
    components = latent_semantics(tf_idf(counts), n_comps, seed=seed)
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = components.astype(np.float32)
    adata.uns[key_added] = {
        "params": plain_params({"recipe": "atac", "layer": layer, "n_comps": n_comps, "seed": seed})
    }
    logg.info("    finished", time=start, deep=f"added\n    `obsm[{key_added!r}]`, `uns[{key_added!r}]`")
    return adata if copy else None


def tf_idf(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """``log1p(1e4 w)`` of counts ``(n_obs, n_features)``, `w` being TF x IDF with a sum of 1 in each row.

    IDF is the number of rows over the sum of the column. Rows and columns without counts stay all zero.
    """
    x = sparse.csr_matrix(counts, dtype=np.float64)
    column_sums = np.asarray(x.sum(axis=0)).ravel()
    # The row sums of TF cancel in the normalisation that follows.
    weighted = x @ sparse.diags(_over(x.shape[0], column_sums), format="csr")
    row_sums = np.asarray(weighted.sum(axis=1)).ravel()
    weighted.data *= np.repeat(_over(1e4, row_sums), np.diff(weighted.indptr))
    return weighted.log1p()


def latent_semantics(x: sparse.csr_matrix, n_comps: int, *, seed: int) -> np.ndarray:
    """Left singular vectors 2 to ``n_comps + 1`` of a non-negative `x`, ``(n_obs, n_comps)``.

    Each row was standardised over all ``n_comps + 1`` before; a row without counts is all zero.
    """
    u = randomized_svd(x, n_comps + 1, random_state=seed)[0]
    u -= u.mean(axis=1, keepdims=True)
    # The row of an empty spot is zero up to rounding, which standardising would blow up.
    present = np.asarray(x.sum(axis=1)) > 0
    return np.divide(u, u.std(axis=1, ddof=1, keepdims=True), out=np.zeros_like(u), where=present)[:, 1:]


def _over(numerator: float, sums: np.ndarray) -> np.ndarray:
    return np.divide(numerator, sums, out=np.zeros_like(sums), where=sums > 0)
