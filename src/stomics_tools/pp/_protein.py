"""From protein counts to principal components."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._validate import check_integer
from stomics_tools.pp._matrix import cap_components, principal_components, read_counts, write_components


def protein(
    adata: AnnData,
    *,
    layer: str | None = None,
    scale: bool = False,
    n_comps: int | None = None,
    seed: int = 0,
    key_added: str = _keys.PROTEIN,
    copy: bool = False,
) -> AnnData | None:
    """Principal components of protein counts: centred log ratio of each spot, scaling, PCA.

    Counts and layers are left as they are.

    Parameters
    ----------
    adata
        Annotated data with raw counts.
    layer
        Layer of the counts. Default: ``X``.
    scale
        Divide each protein by its standard deviation.
    n_comps
        Number of components; fewer if there are fewer spots or proteins. Default: one less than there are proteins, at
        most 50.
    seed
        Start of the PCA solver.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are ``obsm[key_added]`` (components, float32 ``(n_obs, n_comps)``),
    ``varm[key_added]`` (loadings) and ``uns[key_added]`` (``params``, ``variance``, ``variance_ratio``).

    Raises
    ------
    ValueError
        For negative or infinite counts, or if nothing varies.
    """
    if n_comps is not None:
        check_integer(n_comps, argument="n_comps")
    counts, _ = read_counts(adata, layer)

    start = logg.info("computing components of proteins")
    n_comps = cap_components(min(50, *(n - 1 for n in adata.shape)) if n_comps is None else n_comps, adata.shape)
    components = principal_components(centred_log_ratio(counts), n_comps, scale=scale, seed=seed)
    adata = adata.copy() if copy else adata
    params = {"recipe": "protein", "layer": layer, "scale": scale, "n_comps": n_comps, "seed": seed}
    write_components(adata, key_added, components, np.ones(adata.n_vars, dtype=bool), params)
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    `obsm[{key_added!r}]`, `varm[{key_added!r}]`, `uns[{key_added!r}]`",
    )
    return adata if copy else None


def centred_log_ratio(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """``log1p(x / g)`` of counts ``(n_obs, n_features)``, `g` being the geometric mean of ``1 + x`` in each row.

    This is the CLR transformation of Seurat, by cell. Zeros stay zeros, as does a row without counts.
    """
    x = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    geometric_mean = np.exp(np.asarray(x.log1p().mean(axis=1)).ravel())
    x.data /= np.repeat(geometric_mean, np.diff(x.indptr))
    return x.log1p()
