"""Reading and checking of spots with image features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData

from stomics_tools import _validate
from stomics_tools.data._covariates import Covariate, fit_covariate
from stomics_tools.data._image_features import read_features
from stomics_tools.data._image_spots import ImageSpec, ImageSpots
from stomics_tools.data._log_counts import are_counts
from stomics_tools.data._matrix import dense_matrix, expression_matrix, first_row
from stomics_tools.data._splits import check_nested

logger = logging.getLogger("stomics_tools")

_Groups = tuple[np.ndarray, tuple[str, ...]]


def read_image_spots(
    adata: AnnData, spec: ImageSpec, *, expression: bool, state: Mapping[str, Any] | None = None
) -> ImageSpots:
    """Read and check the spots of `adata`; nothing is written to it.

    Parameters
    ----------
    adata
        Annotated data, in memory or backed by a file.
    spec
        Where the data lie.
    expression
        Whether to read the expression. Without it, patients and sections may be absent, and features may lie in
        ``X`` if they have the width of setup and are not in ``obsm``, as in the feature tables of LazySlide.
    state
        Of the object of setup (:meth:`ImageSpots.state`), if this is another one: features, genes, coordinates and
        covariates must be those of setup, while a gene may be unmeasured in all spots.

    Returns
    -------
    The spots as arrays of their own.

    Raises
    ------
    KeyError
        If a key of `spec` is not there (the message lists those that are).
    TypeError
        If `adata` is no AnnData.
    ValueError
        If what lies there cannot be used: names that repeat; features that are not finite, at setup constant, or
        not those of setup; expression that is infinite, or genes and spots without any; coordinates that are not
        finite; missing patients, sections or covariates; a section of two patients; genes, dimensions or categories
        other than those of setup.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"Expected AnnData, found {type(adata).__name__}.")
    _validate.check_obs_names(adata.obs_names)
    if expression and spec.features_key == "X":
        raise ValueError(
            "`features_key`: features in `adata.X` leave no place for the expression, since layers have the columns "
            'of X. Move them: `adata.obsm["X_image"]` next to the expression in X or a layer. '
            '"X" is for feature tables to predict from.'
        )
    features, feature_names, encoder = read_features(adata, spec.features_key, expression, state)
    patient, section = _read_groups(adata, spec, required=expression)
    if state is None:
        encodings = tuple(fit_covariate(adata.obs, key) for key in spec.covariate_keys)
    else:
        encodings = tuple(Covariate.from_state(covariate) for covariate in state["covariates"])
    encoded = [np.empty((adata.n_obs, 0), dtype=np.float32), *(encoding.encode(adata.obs) for encoding in encodings)]
    gene_names = () if state is None else tuple(state["gene_names"])
    if expression:
        gene_names = _read_gene_names(adata, state)
    values = _read_expression(adata, spec.layer, at_setup=state is None) if expression else None
    counts = spec.counts
    if counts is None:
        counts = values is not None and are_counts(values)
    return ImageSpots(
        features=features,
        feature_names=feature_names,
        encoder=encoder,
        expression=values,
        gene_names=gene_names,
        coordinates=_read_coordinates(adata, spec.spatial_key, state),
        patient=None if patient is None else patient[0],
        patient_names=() if patient is None else patient[1],
        section=section[0],
        section_names=section[1],
        covariates=np.concatenate(encoded, axis=1),
        encodings=encodings,
        counts=counts,
    )


def _read_gene_names(adata: AnnData, state: Mapping[str, Any] | None) -> tuple[str, ...]:
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()[:3].tolist()
        raise ValueError(
            f"`adata.var_names` are not unique, found repeats of {repeated}. "
            "Call `adata.var_names_make_unique()` first."
        )
    names = tuple(adata.var_names.astype(str))
    if state is None or list(names) == list(state["gene_names"]):
        return names
    known = set(names)
    missing = [gene for gene in state["gene_names"] if gene not in known]
    if missing:
        raise ValueError(
            f"`adata.var_names`: {len(missing)} of the {len(state['gene_names'])} genes of setup are missing: "
            f"{missing[:5]}. Add them as columns of NaN, which stands for not measured."
        )
    extra = sorted(known - set(state["gene_names"]))
    what = f"has {len(extra)} genes besides those of setup: {extra[:5]}" if extra else "has them in another order"
    raise ValueError(f"`adata.var_names` {what}. Take `adata[:, model.gene_names]`.")


def _read_expression(adata: AnnData, layer: str | None, *, at_setup: bool) -> np.ndarray:
    raw, where = expression_matrix(adata, layer)
    values = dense_matrix(raw, argument="layer", where=where)
    n_infinite = int(np.isinf(values).sum())
    if n_infinite:
        raise ValueError(
            f"`layer`: `{where}` holds {n_infinite} infinite values. "
            "Replace them; NaN stands for a gene that was not measured in a spot."
        )
    missing = np.isnan(values)
    genes = adata.var_names[missing.all(axis=0)].tolist() if at_setup else []
    if genes:
        raise ValueError(
            f"`layer`: {len(genes)} genes of `{where}` were measured in no spot: {genes[:5]}. Leave them out."
        )
    spots = missing.all(axis=1)
    if spots.any():
        raise ValueError(
            f"`layer`: in {int(spots.sum())} spots of `{where}` no gene was measured (first: {first_row(adata, spots)}). "
            "Drop these spots."
        )
    return values


def _read_coordinates(adata: AnnData, key: str | None, state: Mapping[str, Any] | None) -> np.ndarray | None:
    if key is None:
        return None
    where = f"adata.obsm[{key!r}]"
    _validate.check_key(key, adata.obsm, argument="spatial_key", where="adata.obsm")
    coordinates = _validate.check_coordinates(adata.obsm[key], argument="spatial_key", where=where)
    if state is not None and coordinates.shape[1] != state["n_dims"]:
        raise ValueError(
            f"`spatial_key`: the model was set up with {state['n_dims']} coordinates a spot, "
            f"found {coordinates.shape[1]} in `{where}`."
        )
    return coordinates


def _read_groups(adata: AnnData, spec: ImageSpec, *, required: bool) -> tuple[_Groups | None, _Groups]:
    """Patients, if known, and sections, which are the patients or one if they are not known."""
    patient = _read_column(adata, spec.patient_key, "patient_key", required=required)
    section = _read_column(adata, spec.section_key, "section_key", required=required)
    if patient is not None and section is not None:
        of_section, of_patient = (np.asarray(names, dtype=object)[codes] for codes, names in (section, patient))
        check_nested(of_section, of_patient, spec.section_key, spec.patient_key)
    return patient, section or patient or (np.broadcast_to(np.int64(0), adata.n_obs), ("0",))


def _read_column(adata: AnnData, key: str | None, argument: str, *, required: bool) -> _Groups | None:
    if key is None:
        return None
    if key not in adata.obs and not required:
        logger.info("`adata.obs` has no %r: spots are not told apart by it.", key)
        return None
    _validate.check_key(key, adata.obs, argument=argument, where="adata.obs")
    codes, names = _validate.check_categories(adata.obs[key], argument=argument, where=f"adata.obs[{key!r}]")
    return codes, tuple(names)
