"""A fit of spatial components as ``uns`` holds it, also after a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._params import plain_params
from stomics_tools._spatial_components import SpatialComponents
from stomics_tools.data import Spots

_PER_COMPONENT = ("eigenvalues", "self_weights", "hop_weights", "noise", "variance", "gram", "target")


def record_of(fit: SpatialComponents, spots: Spots, params: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is needed to apply a fit to other data, as arrays and plain values.

    The arrays that users read are ``eigenvalues``, ``hop_weights``, ``self_weights``, and of each modality its ``loadings``.
    """
    state = spots.state()["modalities"]
    modalities = {
        name: {
            "encoder": fit.encoders[m],
            "loadings": np.ascontiguousarray(fit.decoders[m].T),
            "center": fit.centers[m],
            "scale": float(fit.scales[m]),
            "state": _stored(state[name]),
        }
        for m, name in enumerate(sorted(state))
    }
    return {
        "params": plain_params({"model": _keys.SPATIAL_COMPONENTS, **params}),
        "center_slices": bool(fit.center_slices),
        "modalities": modalities,
        **{name: getattr(fit, name) for name in _PER_COMPONENT},
    }


def fit_of(record: Mapping[str, Any], where: str) -> tuple[SpatialComponents, dict[str, Any]]:
    """The fit, and the :meth:`Spots.state` that other data must share, of a record at `where`.

    Raises ``ValueError`` if parts are missing or do not fit together.
    """
    try:
        parts = [record["modalities"][name] for name in sorted(record["modalities"])]
        fit = SpatialComponents(
            encoders=[np.asarray(part["encoder"], dtype=np.float32) for part in parts],
            decoders=[np.ascontiguousarray(np.asarray(part["loadings"], dtype=np.float32).T) for part in parts],
            centers=[np.asarray(part["center"], dtype=np.float64) for part in parts],
            scales=np.array([float(part["scale"]) for part in parts]),
            center_slices=bool(record["center_slices"]),
            **{name: np.asarray(record[name], dtype=np.float64) for name in _PER_COMPONENT},
        )
        state = {name: _state(record["modalities"][name]["state"]) for name in sorted(record["modalities"])}
        _check(fit)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"`reference`: {where} holds no spatial components that can be read ({error!r}).") from error
    return fit, {"modalities": state}


def _check(fit: SpatialComponents) -> None:
    width, n_modalities = fit.n_components, len(fit.encoders)
    shapes = [(e.shape[1], d.shape[0], len(c) - len(e)) for e, d, c in zip(fit.encoders, fit.decoders, fit.centers)]  # noqa: B905
    n_predictors = n_modalities * fit.hop_weights.shape[1]
    if (
        not n_modalities
        or any(shape != (width, width, 0) for shape in shapes)
        or fit.hop_weights.shape[::2] != (n_modalities, width)
        or fit.gram.shape != (n_predictors, n_predictors, width)
        or fit.target.shape != (n_predictors, width)
        or any(getattr(fit, name).shape != (width,) for name in ("self_weights", "noise", "variance"))
    ):
        raise ValueError("arrays of different size")


def _stored(value: Any) -> Any:
    """Plain values as h5ad, h5mu and zarr files can hold them: without None, text as arrays of objects."""
    if isinstance(value, Mapping):
        return {name: _stored(v) for name, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return np.array(value, dtype=object if value and isinstance(value[0], str) else np.float64)
    return value


def _state(stored: Mapping[str, Any]) -> dict[str, Any]:
    """State of a modality from what :func:`_stored` made of it."""
    names, total, origin = (stored.get(name) for name in ("feature_names", "log_total", "origin"))
    return {
        "n_features": int(stored["n_features"]),
        "feature_names": None if names is None else [str(name) for name in names],
        "whole": bool(stored["whole"]),
        "counts": bool(stored["counts"]),
        "log_total": None if total is None else np.asarray(total, dtype=np.float64).tolist(),
        "origin": None
        if origin is None
        else {
            "key": str(origin["key"]),
            "marks": {name: np.asarray(mark).tolist() for name, mark in dict(origin.get("marks", {})).items()},
            "recipe": origin.get("recipe"),
            "source": None if origin.get("source") is None else str(origin["source"]),
        },
    }


def find_record(reference: Any, key: str) -> tuple[Mapping[str, Any], str]:
    """The record that a `reference` stands for, and its place in messages.

    Raises
    ------
    KeyError
        If an object holds none.
    TypeError
        If it is neither an object nor a record.
    ValueError
        If an object holds several, none of them under `key`.
    """
    if isinstance(reference, AnnData | MuData):
        found = [name for name, entry in reference.uns.items() if _is_record(entry)]
        if key not in found and len(found) != 1:
            if not found:
                raise KeyError(
                    "`reference`: no entry of its `uns` was written by `tl.spatial_components` "
                    f"(keys: {list(reference.uns)}). Run it on the reference first."
                )
            raise ValueError(f"`reference`: its `uns` holds several fits, {found}. Give one, as `reference.uns[...]`.")
        name = key if key in found else found[0]
        return reference.uns[name], f"`reference.uns[{name!r}]`"
    if not isinstance(reference, Mapping):
        raise TypeError(
            "`reference` must be an AnnData or MuData with spatial components, or its entry of `uns`, "
            f"found {type(reference).__name__}."
        )
    if not _is_record(reference):
        raise ValueError(
            f"`reference`: this mapping (keys: {list(reference)[:10]}) is no entry of `uns` that `tl.spatial_components` "
            "wrote. Give `old.uns['spatial_components']`."
        )
    return reference, "the entry of `uns`"


def _is_record(entry: Any) -> bool:
    params = entry.get("params") if isinstance(entry, Mapping) else None
    return isinstance(params, Mapping) and params.get("model") == _keys.SPATIAL_COMPONENTS
