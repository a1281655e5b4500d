"""MaskedDiffusion in one call, and what a trained one says of an object, written into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from scanpy import logging as logg

from stomics_tools import _keys, _validate
from stomics_tools._params import plain_params
from stomics_tools.model import MaskedDiffusion
from stomics_tools.model._objects import own_data, write_expression

Layout = Literal["consensus", "draw"]


def masked_diffusion(
    adata: AnnData,
    layer: str | None = None,
    *,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    counts: bool | None = None,
    max_epochs: int | None = None,
    seed: int | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    key_added: str = "masked_diffusion",
    copy: bool = False,
    **model_kwargs: Any,
) -> AnnData | None:
    """Set up, train and apply :class:`~stomics_tools.model.MaskedDiffusion`.

    What is written is the embedding of the cells of training. To place other cells, or predict their expression, train
    a model of the class and hand it to :func:`reconstruct_positions` or :func:`impute_expression`.

    Parameters
    ----------
    adata
        Cells of one or more slices, with positions.
    layer
        Layer of the expression, counts or normalised. Default: ``X``.
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of the slices.
    counts
        Whether the expression is counts. Default: it is where all values are whole and not negative.
    max_epochs
        Passes over the data. Default: that of :meth:`~stomics_tools.model.MaskedDiffusion.train`.
    seed
        Of weights and training, by default that of ``scvi.settings`` or 0.
    train_kwargs
        Further arguments of :meth:`~stomics_tools.model.MaskedDiffusion.train`.
    key_added
        Name of the results.
    copy
        Return a copy instead of writing to `adata`.
    model_kwargs
        Arguments of :class:`~stomics_tools.model.MaskedDiffusion`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.obsm["X_<key_added>"]``
        Embedding of the cells among their neighbours, float32 ``(n_obs, width)``.
    ``adata.uns["<key_added>"]["params"]``
        Settings, seed and versions.
    """
    _validate.check_new_key(key_added, argument="key_added")
    _validate.check_annotated(adata, mudata=False)
    data = adata.copy() if copy else adata
    start = logg.info("computing MaskedDiffusion")
    MaskedDiffusion.setup_anndata(data, layer, spatial_key=spatial_key, batch_key=batch_key, counts=counts)
    model = MaskedDiffusion(data, **model_kwargs)
    epochs: dict[str, Any] = {} if max_epochs is None else {"max_epochs": max_epochs}
    model.train(seed=seed, key_added=key_added, **epochs, **(train_kwargs or {}))
    logg.info("    finished", time=start, deep=f"added\n    {_keys.latent(key_added)!r}, embedding (.obsm)")
    return data if copy else None


def reconstruct_positions(
    adata: AnnData,
    model: MaskedDiffusion,
    *,
    n_samples: int = 8,
    n_steps: int = 20,
    landmarks: np.ndarray | str | None = None,
    layout: Layout = "consensus",
    seed: int = 0,
    key_added: str = "spatial_predicted",
    copy: bool = False,
) -> AnnData | None:
    """Place cells by their expression.

    Parameters
    ----------
    adata
        Cells to be placed, of one or more slices. Coordinates are read of landmarks only.
    model
        Trained for it.
    n_samples
        Draws, whose scatter is the dispersion.
    n_steps
        Passes through the network a draw.
    landmarks
        Cells whose positions are known, a mask ``(n_obs,)`` or the name of a boolean ``obs`` column: at least 3 in a
        slice, in whose frame the others are placed. Without them, positions are centred, in that of training.
    layout
        ``"consensus"``: one layout for all draws there could be, with `landmarks` their mean; nearest the truth, and
        smaller than tissue. ``"draw"``: a draw at the default temperature, as spread out as tissue. See
        :meth:`~stomics_tools.model.MaskedDiffusion.consensus`.
    seed
        Same seed, same positions.
    key_added
        Name of the positions.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.obsm["<key_added>"]``
        Positions, float32 ``(n_obs, n_dims)``, in the unit of the coordinates of training.
    ``adata.obsm["spatial_dispersion"]``
        Root-mean-square distance of the draws of a cell from their mean, float32 ``(n_obs, 1)``, in the same unit;
        0 for landmarks. For another `key_added`, which may end in ``"_predicted"``, that ends in ``"_dispersion"``.
    ``adata.uns["<key_added>"]["params"]``
        Arguments and version.

    Raises
    ------
    KeyError, TypeError, ValueError
        If something that it takes is not there or cannot be used. `adata` is then as it was.
    """
    _validate.check_annotated(adata, mudata=False)
    _check_model(model)
    _validate.check_new_key(key_added, argument="key_added")
    _validate.check_option(layout, Layout.__args__, argument="layout")  # type: ignore[attr-defined]
    record = adata.uns.get(key_added)
    is_own = isinstance(record, Mapping) and "n_steps" in record.get("params", {})
    if key_added in adata.obsm and key_added == model.get_setup_arg("spatial_key") and not is_own:
        raise ValueError(
            f"`key_added`: `adata.obsm[{key_added!r}]` holds the coordinates that the model was set up with, which "
            "predicted ones would replace. Name another key."
        )
    data = adata.copy() if copy else adata
    start = logg.info("placing cells by MaskedDiffusion")
    found = model.consensus(data, n_samples=n_samples, n_steps=n_steps, landmarks=landmarks, seed=seed)
    position: Any = found.position
    if layout == "draw":
        position = model.sample(data, mode="expr_to_pos", n_steps=n_steps, landmarks=landmarks, seed=seed)
    dispersion = f"{key_added.removesuffix('_predicted')}_dispersion"
    own_data(data)
    data.obsm[key_added] = position
    data.obsm[dispersion] = found.dispersion[:, None].astype(np.float32)
    given = landmarks if landmarks is None or isinstance(landmarks, str) else int(np.sum(landmarks))
    arguments = {"n_samples": n_samples, "n_steps": n_steps, "landmarks": given, "layout": layout, "seed": seed}
    data.uns[key_added] = {"params": plain_params({"model": type(model).__name__, **arguments})}
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    {key_added!r}, positions (.obsm)\n    {dispersion!r}, how far draws of them scatter (.obsm)",
    )
    return data if copy else None


def impute_expression(
    adata: AnnData,
    model: MaskedDiffusion,
    *,
    hidden: np.ndarray | str | None = None,
    use_positions: bool = True,
    seed: int = 0,
    key_added: str = "imputed",
    copy: bool = False,
) -> AnnData | None:
    """Fill in genes that were not measured, and the expression of cells that have none.

    Parameters
    ----------
    adata
        Cells of one or more slices. Genes of training that it lacks, or that are NaN in a slice, are predicted.
    model
        Trained for it.
    hidden
        Cells whose expression is predicted whatever is stored, a mask ``(n_obs,)`` or the name of a boolean ``obs``
        column. Cells whose expression is NaN are predicted anyway.
    use_positions
        Whether positions are read; without them, cells are judged by their own genes.
    seed
        Same seed, same values.
    key_added
        Name of the result.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    A copy with the results if `copy`, else None. Sets the following fields:

    ``adata.layers["<key_added>"]``
        Expression, float32 ``(n_obs, n_genes)``: as measured, where it was, otherwise as expected. In the units of
        training: of counts, log(1 + counts scaled to the mean total of training). Where the genes of `adata` are not
        those of training in their order, an array ``(n_obs, n_genes)`` in ``adata.obsm``.
    ``adata.uns["<key_added>"]``
        ``"params"``: arguments and version; ``"gene_names"``, if the array is in ``obsm``: the genes of its columns.

    Raises
    ------
    KeyError, TypeError, ValueError
        If something that it takes is not there or cannot be used, or nothing is to be filled in. `adata` is then as it
        was.
    """
    _validate.check_annotated(adata, mudata=False)
    _check_model(model)
    _validate.check_new_key(key_added, argument="key_added")
    data = adata.copy() if copy else adata
    start = logg.info("predicting expression by MaskedDiffusion")
    values = model.impute(data, hidden=hidden, use_positions=use_positions, seed=seed)
    own_data(data)
    names = write_expression(data, {key_added: values}, model.gene_names)
    given = hidden if hidden is None or isinstance(hidden, str) else int(np.sum(hidden))
    arguments = {"hidden": given, "use_positions": use_positions, "seed": seed}
    data.uns[key_added] = {"params": plain_params({"model": type(model).__name__, **arguments}), **names}
    where = ".obsm" if names else ".layers"
    logg.info("    finished", time=start, deep=f"added\n    {key_added!r}, expected expression ({where})")
    return data if copy else None


def _check_model(model: Any) -> None:
    if not isinstance(model, MaskedDiffusion):
        raise TypeError(f"`model` must be a trained MaskedDiffusion, found {type(model).__name__}.")
