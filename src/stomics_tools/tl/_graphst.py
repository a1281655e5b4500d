"""GraphST in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anndata import AnnData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_new_key
from stomics_tools.model import GraphST


def graphst(
    adata: AnnData,
    layer: str | None = None,
    *,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    genes: str | Sequence[str] | None = None,
    n_top_genes: int | None = 3000,
    counts: bool | None = None,
    total_key: str | None = None,
    preset: str | None = None,
    n_latent: int | None = None,
    max_epochs: int | None = None,
    seed: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    key_added: str = "graphst",
    copy: bool = False,
    **model_kwargs: Any,
) -> AnnData | None:
    """Set up, train and apply :class:`~stomics_tools.model.GraphST`.

    Parameters
    ----------
    adata
        AnnData of one or several slices.
    layer
        Layer of the expression, ``X`` by default: counts, or values to be taken as they are.
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of slices or patients.
    genes
        Column of ``var``, or names; by default ``var["highly_variable"]`` where there is one.
    n_top_genes
        Else the most variable so many; None for all.
    counts
        True: the values are counts. False: they are taken as they are. By default whole, non-negative values are counts.
    total_key
        ``obs`` column of the total counts of each spot, where the object holds a part of the genes.
    preset
        ``"dense"`` or ``"sparse"`` for the published models, see :class:`~stomics_tools.model.GraphST`.
    n_latent
        Dimensions of the latent representation.
    max_epochs
        Steps of the optimiser, by default those of :meth:`~stomics_tools.model.GraphST.train`.
    seed
        Of weights and training, by default that of ``scvi.settings`` or 0.
    train_kwargs
        Further arguments of :meth:`~stomics_tools.model.GraphST.train`.
    key_added
        Name of the results.
    copy
        Return a copy instead of writing to `adata`.
    model_kwargs
        Further arguments of :class:`~stomics_tools.model.GraphST`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.obsm["X_<key_added>"]``
        Latent representation, float32 ``(n_obs, n_latent)``.
    ``adata.obsp["<key_added>_spatial_connectivities"]``
        Normalised spatial graph, CSR float32 ``(n_obs, n_obs)``.
    ``adata.uns["<key_added>"]["params"]``
        Settings, seed and versions.
    """
    check_new_key(key_added, argument="key_added")
    check_annotated(adata, mudata=False)
    data = adata.copy() if copy else adata
    start = logg.info("computing GraphST")
    setup = {
        "spatial_key": spatial_key,
        "batch_key": batch_key,
        "genes": genes,
        "n_top_genes": n_top_genes,
        "counts": counts,
        "total_key": total_key,
    }
    GraphST.setup_anndata(data, layer, **setup)  # type: ignore[arg-type]
    model = GraphST(data, preset=preset, n_latent=n_latent, **model_kwargs)
    model.train(max_epochs, seed=seed, key_added=key_added, **(train_kwargs or {}))
    logg.info("    finished", time=start, deep=f"added\n    {_keys.latent(key_added)!r}, latent representation (.obsm)")
    return data if copy else None
