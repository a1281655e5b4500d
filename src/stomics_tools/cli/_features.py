"""Which features of a slice a command works with: controls and unknown types are left out, and that is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools.data._feature_types import (
    KINDS,
    FeatureKinds,
    Kind,
    counted,
    feature_kinds,
    kind_of_modality,
    without_controls,
)

Report = Callable[[str], None]


def usable_features(
    data: AnnData | MuData, modality: str | None, *, keep_controls: bool, report: Report
) -> AnnData | MuData:
    """The data without control features, and without features whose type is not known.

    Parameters
    ----------
    data
        The slice.
    modality
        What an AnnData holds, as the user says: then features of no known type are taken for that, and those of
        another kind are left out, if there are any of this one.
    keep_controls
        Leave control features in.
    report
        Receives a line on what was left out.

    Raises
    ------
    ValueError
        If no feature is left, if no type is known, or if a modality of a MuData holds several kinds of features.
    """
    if not keep_controls:
        data, what = without_controls(data)
        if what:
            report(f"left out control features: {what} (`--keep-controls` keeps them)")
    if isinstance(data, MuData):
        for name, adata in data.mod.items():
            _check_one_kind(name, feature_kinds(adata.var))
        return data
    features = feature_kinds(data.var)
    if modality is not None:
        kind = kind_of_modality(modality)
        kept = features.kinds == kind
        if kind is None or not kept.any():
            return data
        what = "other features"
    elif features.found:
        kept = features.kinds != ""
        if keep_controls:
            kept |= features.is_control
        what = "features of types that are not known"
    elif features.unknown.any():
        raise ValueError(
            f"`modality`: the types of the features, {features.types_of(features.unknown)}, are none that is known. Say "
            f"by `--modality` what they are: {', '.join(KINDS)}."
        )
    else:
        return data
    if kept.all():
        return data
    report(f"left out {what}: {counted(name or 'no type' for name in features.types[~kept])} (see `--modality`)")
    return data[:, kept].copy()


def kinds_apart(data: AnnData, report: Report) -> dict[Kind, AnnData]:
    """An object of each known kind of features, if there are several, else none; types of one kind go together."""
    features = feature_kinds(data.var)
    if len(features.found) < 2:
        return {}
    parts: dict[Kind, AnnData] = {}
    for kind in features.found:
        rows = features.kinds == kind
        types = features.types_of(rows)
        if kind == ("rna" if "rna" in features.found else features.found[0]):
            rows |= features.is_control  # which are there only if they were to be kept
        if len(types) > 1:
            report(f"{kind}: the feature types {types} taken together")
        parts[kind] = data[:, rows].copy()
    return parts


def one_kind(data: AnnData, modality: str | None, report: Report) -> AnnData:
    """The features that a model of one modality takes: of an AnnData of several kinds the RNA, which is said."""
    parts = kinds_apart(data, report)
    if not parts:
        return data
    kind = kind_of_modality(modality) if modality is not None else "rna"
    if kind not in parts:
        raise ValueError(f"`modality`: the features are {list(parts)}, this model takes one kind. Name it.")
    others = [f"{adata.n_vars} of {name}" for name, adata in parts.items() if name != kind]
    report(f"{parts[kind].n_vars} features of {kind}; left out {', '.join(others)} (`--modality` takes another kind)")
    return parts[kind]


def check_measured(adata: AnnData, name: str, values: Any) -> None:
    """Raise ``ValueError`` if a modality has fewer than two features, or no value that is not zero."""
    start = f"Modality {name!r} cannot be prepared."
    if adata.n_vars < 2:
        raise ValueError(f"{start} It has {adata.n_vars} features, at least 2 are needed. {_leave_out(name)}")
    stored = values.data if sparse.issparse(values) else np.asarray(values)
    if not np.any(np.nan_to_num(stored)):
        raise ValueError(
            f"{start} All values of {adata.n_obs} spots x {adata.n_vars} features are zero: nothing was measured. "
            f"{_leave_out(name)}"
        )


def _leave_out(name: str) -> str:
    return f"Leave {name!r} out: name the others by `--modalities`, or another by `--modality`."


def _check_one_kind(name: str, features: FeatureKinds) -> None:
    found: Sequence[str] = features.found
    if len(found) > 1:
        raise ValueError(
            f"Modality {name!r} holds features of several kinds, {list(found)}. Make each a modality of its own, for "
            f"example by `mdata.mod['protein'] = mdata[{name!r}][:, mdata[{name!r}].var['feature_types'] == ...]`."
        )
