"""What features are: RNA, protein, chromatin, or controls of the chemistry, which are no biology."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given

Kind = Literal["rna", "protein", "atac"]

TYPES_COLUMN = "feature_types"
"""Column of ``var`` in which 10x Genomics' software, and readers of its files, tell what a feature is."""

# Whole names, in lower case, with single spaces for whatever stands between words.
_TYPES: dict[Kind, frozenset[str]] = {
    "rna": frozenset(
        {
            *("rna", "mrna", "gex", "gene", "genes", "gene expression", "rna expression", "mrna expression"),
            *("transcript", "transcripts", "transcriptome", "transcriptomics", "spatial transcriptomics"),
            *("endogenous", "expression", "protein coding", "protein coding gene", "lncrna", "mirna", "gene counts"),
        }
    ),
    "protein": frozenset(
        {
            *("protein", "proteins", "proteome", "proteomics", "protein expression", "protein abundance"),
            *("antibody", "antibodies", "antibody capture", "antibody derived tag", "antibody derived tags"),
            *("adt", "adts", "cite", "cite seq", "surface protein", "surface proteins", "immunofluorescence"),
        }
    ),
    "atac": frozenset(
        {
            *("atac", "atac seq", "peak", "peaks", "chromatin", "chromatin accessibility", "accessibility"),
            *("epigenome", "epigenomics", "histone", "histone modification", "cut and tag", "cut tag", "cutandtag"),
        }
    ),
}
_HISTONE_MARK = re.compile(r"h[1-4]a?k\d+(me[1-3]|ac|ub)\d?")
_WORDS: dict[Kind, frozenset[str]] = {
    "rna": frozenset({"rna", "mrna", "gex", "transcripts", "transcriptome"}),
    "protein": frozenset({"protein", "proteins", "adt", "antibody", "antibodies"}),
    "atac": frozenset({"atac", "peaks", "chromatin", "histone"}),
}
"""Words by which a name that a user chose for a modality tells its kind, if all of them tell the same."""

_CONTROL_TYPES = frozenset(
    {
        *("blank", "blanks", "blank codeword", "unassigned codeword", "deprecated codeword", "deprecated"),
        *("negative", "negative probe", "negprobe", "negprb", "antisense", "antisense probe"),
        *("systemcontrol", "falsecode", "false code", "spike in", "ercc"),
    }
)
_NUMBER = r"(?:[ _.-]*\d+)?"
_CONTROL_NAMES: dict[str, str] = {
    "negative control codeword": r"neg(?:ative)?[ _.-]*(?:control|ctrl)[ _.-]*codeword.*",
    "negative control probe": (
        rf"neg(?:ative)?[ _.-]*(?:control|ctrl)(?:[ _.-]*probe.*|{_NUMBER})"
        rf"|neg(?:ative)?[ _.-]*(?:probe|prb)(?:[ _.-].*|\d+)?|negative{_NUMBER}|negadd{_NUMBER}"
    ),
    "unassigned codeword": r"unassigned[ _.-]*codeword.*",
    "deprecated codeword": r"deprecated[ _.-]*codeword.*|deprecated_.+",
    "blank codeword": r"blank[ _.-]*(?:codeword[ _.-]*)?\d+",
    "genomic control": r"(?:intergenic[ _.-]*region|genomic[ _.-]*control).*",
    "antisense": r"antisense[ _.-].+",
    "system control": rf"system[ _.-]*control{_NUMBER}",
    "false code": rf"false[ _.-]*code{_NUMBER}",
    "spike-in": r"ercc-\d{5}",
}
"""Names that vendors give to controls. No symbol of a gene matches: NEGR1, CTRL, BLNK, ERCC1 and blanks are genes."""
_CONTROL_NAME = re.compile(
    "|".join(f"(?P<c{i}>{pattern})" for i, pattern in enumerate(_CONTROL_NAMES.values())), re.IGNORECASE
)
_REPEAT = re.compile(r"-\d{1,2}$")  # of `var_names_make_unique`


@dataclass(frozen=True)
class FeatureKinds:
    """What each feature is.

    ``types`` are the names of the vendor, "" where there are none; ``kinds`` are ``"rna"``, ``"protein"``, ``"atac"``
    or "" where that is not known; ``controls`` is the sort of control, "" for what is none. All ``(n_vars,)``.
    """

    types: np.ndarray
    kinds: np.ndarray
    controls: np.ndarray

    @property
    def is_control(self) -> np.ndarray:
        """Mask ``(n_vars,)``."""
        return self.controls != ""

    @property
    def found(self) -> list[Kind]:
        """The known kinds of features that are no controls, in the order of their first feature."""
        there = pd.unique(pd.Series(self.kinds[~self.is_control]))
        return [kind for kind in there if kind]

    @property
    def unknown(self) -> np.ndarray:
        """Mask ``(n_vars,)`` of the features with a type that is none that is known."""
        return (self.types != "") & (self.kinds == "") & ~self.is_control

    def types_of(self, rows: np.ndarray) -> list[str]:
        """The names of the types of some features."""
        return [name or "without a type" for name in pd.unique(pd.Series(self.types[rows]))]


def feature_kinds(var: pd.DataFrame) -> FeatureKinds:
    """Tell the kinds of features, by ``var["feature_types"]`` and by the names that vendors give to controls.

    Names are compared whole and regardless of case; no part of a word tells anything.
    """
    empty = np.full(len(var), "", dtype=object)
    if TYPES_COLUMN in var:
        column = var[TYPES_COLUMN].astype(object)
        types = np.asarray(column.where(column.notna(), "").map(lambda name: str(name).strip()), dtype=object)
    else:
        types = empty
    known = {name: (kind_of_type(name) or "", _control_type(name)) for name in set(types)}
    kinds = np.array([known[name][0] for name in types], dtype=object)
    by_type = [known[name][1] for name in types]
    controls = [own or _control_name(str(name)) for own, name in zip(by_type, var.index, strict=True)]
    return FeatureKinds(types, kinds, np.array(controls, dtype=object).reshape(len(var)))


def kind_of_type(name: str) -> Kind | None:
    """Kind of a feature type, by its whole name."""
    plain = _plain(name)
    for kind, names in _TYPES.items():
        if plain in names:
            return kind
    return "atac" if _HISTONE_MARK.fullmatch(plain) else None


def kind_of_modality(name: str) -> Kind | None:
    """Kind of a modality, by its whole name, or by whole words of it that tell one kind alone."""
    whole = kind_of_type(name)
    if whole is not None:
        return whole
    words = set(_plain(name).split())
    told = {kind for kind, known in _WORDS.items() if words & known}
    if any(_HISTONE_MARK.fullmatch(word) for word in words):
        told.add("atac")
    return next(iter(told)) if len(told) == 1 else None


def is_control_modality(name: str) -> bool:
    """Whether a modality is named as a type of controls."""
    return _control_type(name) != ""


def counted(names: Iterable[Any]) -> str:
    """``20 'Negative Control Probe', 7 'blank codeword'``."""
    table = pd.Series(list(names), dtype=object).value_counts(sort=False)
    return ", ".join(f"{number} {name!r}" for name, number in table.items())


def control_features(data: AnnData | MuData) -> str:
    """How many control features of which sort there are, "" if there are none."""
    if isinstance(data, AnnData):
        features = feature_kinds(data.var)
        return counted(features.controls[features.is_control])
    lines = []
    for name, adata in data.mod.items():
        what = f"{adata.n_vars} of the modality {name!r}" if is_control_modality(name) else control_features(adata)
        if what:
            lines.append(what if what.endswith(f"{name!r}") else f"{what} in {name!r}")
    return "; ".join(lines)


def without_controls(data: AnnData | MuData) -> tuple[AnnData | MuData, str]:
    """The data without control features, and which were left out ("" if there are none: then the data themselves).

    Raises ``ValueError`` if nothing is left.
    """
    what = control_features(data)
    if not what:
        return data, what
    if isinstance(data, AnnData):
        kept = ~feature_kinds(data.var).is_control
        if not kept.any():
            raise ValueError(f"All features are controls ({what}). There is nothing left.")
        return data[:, kept].copy(), what
    kept_of = {
        name: np.full(adata.n_vars, not is_control_modality(name)) & ~feature_kinds(adata.var).is_control
        for name, adata in data.mod.items()
    }
    mods = {name: data.mod[name][:, kept].copy() for name, kept in kept_of.items() if kept.any()}
    if not mods:
        raise ValueError(f"All modalities hold controls alone ({what}). There is nothing left.")
    with columns_as_given():
        result = MuData(mods)
        rows = data.obs_names.get_indexer(result.obs_names)
        result.obs = data.obs.iloc[rows].copy()
        for key, value in data.obsm.items():
            if key not in data.mod:  # whether a spot has the modality
                result.obsm[key] = value.iloc[rows] if isinstance(value, pd.DataFrame) else value[rows]
        for key, value in data.obsp.items():
            if key not in data.mod:
                result.obsp[key] = value[rows][:, rows]
        kept = np.concatenate(list(kept_of.values()))
        if data.var.shape[1] and len(data.var) == len(kept):
            result.var = data.var[kept].copy()
        result.uns = data.uns
    return result, what


def warn_of_kinds(var: pd.DataFrame, kind: Kind | None = None) -> None:
    """Warn if features that are taken together are of several kinds, of another one than `kind`, or controls."""
    features = feature_kinds(var)
    own = ~features.is_control
    there = counted(features.types[own & (features.kinds != "")])
    if len(features.found) > 1:
        _warn(
            f"`adata` holds features of several kinds ({there}), which are taken together. Take one kind: "
            f"`adata[:, adata.var[{TYPES_COLUMN!r}] == {features.types[own & (features.kinds != '')][0]!r}].copy()`."
        )
    elif kind is not None and features.found not in ([], [kind]):
        _warn(f"`adata` holds {there}, but is taken for {kind}.")
    if features.is_control.any() and own.any():
        _warn(
            f"`adata` holds control features ({counted(features.controls[~own])}), which are taken like the others. "
            "Leave them out: `st.pp.drop_controls(adata)`."
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)


def _plain(name: str) -> str:
    """Lower case, and single spaces for whatever stands between words."""
    return " ".join(re.findall(r"[^\W_]+", name.casefold()))


def _control_type(name: str) -> str:
    """The type itself if it is one of controls: a known name, or one with the word control."""
    plain = _plain(name)
    return name if plain in _CONTROL_TYPES or {"control", "controls"} & set(plain.split()) else ""


def _control_name(name: str) -> str:
    match = _CONTROL_NAME.fullmatch(name) or _CONTROL_NAME.fullmatch(_REPEAT.sub("", name))
    return "" if match is None else list(_CONTROL_NAMES)[int(str(match.lastgroup)[1:])]


KINDS: tuple[Kind, ...] = get_args(Kind)
