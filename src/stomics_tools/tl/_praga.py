"""PRAGA and PRAGASpike in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_new_key
from stomics_tools.model import PRAGA, PRAGASpike
from stomics_tools.model._arguments import check_call


def praga(
    adata: AnnData | MuData,
    modalities: Mapping[str, str],
    *,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    data_type: str = "10x",
    n_latent: int | None = None,
    max_epochs: int | None = None,
    seed: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    key_added: str = _keys.PRAGA,
    copy: bool = False,
    **model_kwargs: Any,
) -> AnnData | MuData | None:
    """Set up, train and apply :class:`~stomics_tools.model.PRAGA`, the published model.

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
    data_type
        Technology whose published settings are taken: ``"10x"``, ``"spots"``, ``"stereo"``, ``"epigenome"`` or
        ``"simulation"``.
    n_latent, max_epochs
        Dimensions of the latent representation and steps of the optimiser; by default the published ones.
    seed
        Seed of weights and training, by default that of ``scvi.settings`` or 0.
    train_kwargs
        Further arguments of :meth:`~stomics_tools.model.PRAGA.train`.
    key_added
        Name of the results.
    copy
        Return a copy instead of writing to `adata`.
    model_kwargs
        Further arguments of :class:`~stomics_tools.model.PRAGA`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.obsm["X_<key_added>"]``
        Latent representation, float32 ``(n_obs, n_latent)``, rows of length one.
    ``adata.obsp["<key_added>_<modality>_connectivities"]``
        Learned graph of each modality, CSR float32 ``(n_obs, n_obs)``.
    ``adata.uns["<key_added>"]["params"]``
        Settings, seed and versions.
    """
    arguments = {"data_type": data_type, "n_latent": n_latent, **model_kwargs}
    places = {"spatial_key": spatial_key, "batch_key": batch_key}
    training = {"max_epochs": max_epochs, "seed": seed, **(train_kwargs or {})}
    return _run(PRAGA, adata, modalities, places, arguments, training, key_added, copy)


def praga_spike(
    adata: AnnData | MuData,
    modalities: Mapping[str, str],
    *,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    n_latent: int | None = None,
    max_epochs: int | None = None,
    seed: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    key_added: str = _keys.PRAGA_SPIKE,
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
    n_latent, max_epochs
        Dimensions of the latent representation and steps of the optimiser; by default those of the model.
    seed
        Seed of weights and training, by default that of ``scvi.settings`` or 0.
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
    arguments = {**model_kwargs, **({} if n_latent is None else {"n_latent": n_latent})}
    places = {"spatial_key": spatial_key, "batch_key": batch_key}
    training = {"seed": seed, **({} if max_epochs is None else {"max_epochs": max_epochs}), **(train_kwargs or {})}
    return _run(PRAGASpike, adata, modalities, places, arguments, training, key_added, copy)


def _run(
    cls: type[PRAGA] | type[PRAGASpike],
    adata: AnnData | MuData,
    modalities: Mapping[str, str],
    places: Mapping[str, Any],
    arguments: Mapping[str, Any],
    training: Mapping[str, Any],
    key_added: str,
    copy: bool,
) -> AnnData | MuData | None:
    """Setup, constructor and training of a model class with what each takes."""
    check_new_key(key_added, argument="key_added")
    check_annotated(adata)
    check_call(cls, "__init__", {"adata": adata, **arguments})
    check_call(cls, "train", training)
    data = adata.copy() if copy else adata
    start = logg.info(f"computing {cls.__name__}")
    setup = cls.setup_mudata if isinstance(data, MuData) else cls.setup_anndata
    setup(data, modalities, **places)
    model = cls(data, **arguments)
    model.train(key_added=key_added, **training)
    logg.info("    finished", time=start, deep=f"added\n    {_keys.latent(key_added)!r}, latent representation (.obsm)")
    return data if copy else None
