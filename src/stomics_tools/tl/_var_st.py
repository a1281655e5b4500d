"""VARST in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from anndata import AnnData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_new_key
from stomics_tools.model import VARST


def var_st(
    adata: AnnData,
    *,
    features_key: str = _keys.IMAGE,
    layer: str | None = None,
    spatial_key: str | None = _keys.SPATIAL,
    patient_key: str | None = None,
    section_key: str | None = None,
    covariate_keys: Sequence[str] | None = None,
    counts: bool | None = None,
    size: Literal["tiny", "small", "paper"] = "small",
    max_epochs: int | None = None,
    seed: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    key_added: str = "var_st",
    copy: bool = False,
    **model_kwargs: Any,
) -> AnnData | None:
    """Set up, train and apply :class:`~stomics_tools.model.VARST`.

    What is written are predictions for the spots of training. For others, train a model of the class and call its
    ``predict`` or ``write_results``.

    Parameters
    ----------
    adata
        Spots of one or more sections, with the genes to be predicted.
    features_key
        ``obsm`` key of the image features.
    layer
        Layer of the expression, counts or normalised. Default: ``X``.
    spatial_key
        ``obsm`` key of the coordinates; None if there are none.
    patient_key
        ``obs`` column of the patients.
    section_key
        ``obs`` column of the sections. Default: patients.
    covariate_keys
        ``obs`` columns of further conditions.
    counts
        Whether the expression is counts. Default: it is where all values are whole and not negative.
    size
        Dimensions of the model, see :class:`~stomics_tools.model.VARST`.
    max_epochs
        Epochs of each stage. Default: by the number of spots.
    seed
        Of weights and training, by default that of ``scvi.settings`` or 0.
    train_kwargs
        Further arguments of :meth:`~stomics_tools.model.VARST.train`.
    key_added
        Name of the results.
    copy
        Return a copy instead of writing to `adata`.
    model_kwargs
        Further arguments of :class:`~stomics_tools.model.VARST`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.layers["<key_added>"]``, ``adata.layers["<key_added>_lower"]``, ``adata.layers["<key_added>_upper"]``
        Expected expression and its 80 % interval, float32 ``(n_obs, n_genes)``.
    ``adata.obsm["X_<key_added>"]``
        Condition embedding, float32 ``(n_obs, n_condition)``.
    ``adata.obsm["<key_added>_tokens_<size>"]``
        Codes of the expression at each scale, int32.
    ``adata.uns["<key_added>"]``
        ``"params"``: settings, seed and versions; ``"codebook"``: how the codes are used, see
        :func:`~stomics_tools.pl.codebook_usage`.
    """
    check_new_key(key_added, argument="key_added")
    check_annotated(adata, mudata=False)
    data = adata.copy() if copy else adata
    start = logg.info("computing VARST")
    VARST.setup_anndata(
        data,
        features_key,
        layer=layer,
        spatial_key=spatial_key,
        patient_key=patient_key,
        section_key=section_key,
        covariate_keys=covariate_keys,
        counts=counts,
    )
    model = VARST(data, size=size, **model_kwargs)
    epochs: dict[str, Any] = {} if max_epochs is None else {"max_epochs": max_epochs}
    model.train(seed=seed, key_added=key_added, **epochs, **(train_kwargs or {}))
    logg.info("    finished", time=start, deep=f"added\n    {key_added!r}, expected expression (.layers)")
    return data if copy else None
