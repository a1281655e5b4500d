"""PRAGASpike in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_new_key
from stomics_tools.model import PRAGASpike


def praga_spike(
    adata: AnnData | MuData,
    modalities: Mapping[str, str],
    *,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    preset: str | None = None,
    data_type: str = "10x",
    n_latent: int | None = None,
    max_epochs: int | None = None,
    seed: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    key_added: str = "praga_spike",
    copy: bool = False,
    **model_kwargs: Any,
) -> AnnData | MuData | None:
    """Set up, train and apply :class:`~stomics_tools.model.PRAGASpike`.

    Parameters
    ----------
    adata
        AnnData or MuData of one or several slices.
    modalities
        Name of each modality to its ``obsm`` key, layer, or ``"X"``.
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of slices or patients.
    preset
        ``"praga"`` for the published model, see :class:`~stomics_tools.model.PRAGASpike`.
    data_type
        Technology whose published settings that preset takes.
    n_latent
        Dimensions of the latent representation.
    max_epochs
        Steps of the optimiser.
    seed
        Of weights and training, by default that of ``scvi.settings`` or 0.
    train_kwargs
        Further arguments of :meth:`~stomics_tools.model.PRAGASpike.train`.
    key_added
        Name of the results.
    copy
        Return a copy instead of writing to `adata`.
    model_kwargs
        Further arguments of :class:`~stomics_tools.model.PRAGASpike`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.obsm["X_<key_added>"]``
        Latent representation, float32 ``(n_obs, n_latent)``.
    ``adata.obsp["<key_added>_<modality>_connectivities"]``
        Learned graph of each modality, CSR float32 ``(n_obs, n_obs)``.
    ``adata.uns["<key_added>"]["params"]``
        Settings, seed and versions.
    """
    check_new_key(key_added, argument="key_added")
    check_annotated(adata)
    data = adata.copy() if copy else adata
    start = logg.info("computing PRAGASpike")
    setup = PRAGASpike.setup_mudata if isinstance(data, MuData) else PRAGASpike.setup_anndata
    setup(data, modalities, spatial_key=spatial_key, batch_key=batch_key)
    model = PRAGASpike(data, preset=preset, data_type=data_type, n_latent=n_latent, **model_kwargs)
    model.train(max_epochs, seed=seed, key_added=key_added, **(train_kwargs or {}))
    logg.info("    finished", time=start, deep=f"added\n    {_keys.latent(key_added)!r}, latent representation (.obsm)")
    return data if copy else None
