"""Recipes from counts to the representation that a model is trained on, kept so that new data are prepared alike."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from scipy import sparse

Kind = Literal["rna", "protein", "atac"]
KINDS: tuple[Kind, ...] = ("rna", "protein", "atac")

ENTRY = "recipe"
"""Where a recipe lies in ``uns[key]``."""

_FEW_FEATURES = 0.05  # share of the features that new data may lack, with a warning
_FEW_COUNTS = 0.05  # share of the counts that the genes missing from the totals may have had, with a warning
_NO_COUNTS = 0.01  # the same, without a warning: rare genes that a filter took out

_TEXT = ("features", "total_features")
_ARRAYS = {"loadings": np.float32, "center": np.float64, "scale": np.float64, "idf": np.float64, "total_shares": float}


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that a recipe learned from the counts it was fitted on.

    Parameters
    ----------
    kind
        ``"rna"``, ``"protein"`` or ``"atac"``.
    features
        Names of the features used, in the order of the arrays.
    loadings
        float32 ``(n_features, n_comps)``. For chromatin: right singular vectors over singular values, with the first
        component.
    whole
        Whether the recipe was fitted on whole counts.
    layer
        Layer of the counts; None for ``X``.
    center, scale
        Mean and divisor of each feature, ``(n_features,)``; not for chromatin.
    idf
        Inverse document frequency of each peak, ``(n_features,)``; chromatin only.
    target_sum
        Total of each spot after normalization; RNA only.
    total_features
        Names of all genes that totals are made of; RNA only.
    total_shares
        Share of all counts that each of them had, ``(n_total_features,)``; RNA only.
    """

    kind: Kind
    features: tuple[str, ...]
    loadings: np.ndarray
    whole: bool = True
    layer: str | None = None
    center: np.ndarray | None = None
    scale: np.ndarray | None = None
    idf: np.ndarray | None = None
    target_sum: float | None = None
    total_features: tuple[str, ...] | None = None
    total_shares: np.ndarray | None = None

    # ------------------------------------------------------------- keeping it

    def plain(self) -> dict[str, Any]:
        """The recipe as files of models hold it: arrays, lists and plain values; what is None is left out."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(v) if name in _TEXT else v for name, v in kept.items() if v is not None}

    def entry(self) -> dict[str, Any]:
        """The recipe as ``uns`` holds it: names of features are values, never keys."""
        return {name: np.array(v, dtype=object) if name in _TEXT else v for name, v in self.plain().items()}

    @classmethod
    def from_plain(cls, kept: Mapping[str, Any], *, argument: str, where: str) -> Recipe:
        """Read what :meth:`plain` gave, after a file as well.

        Raises ``ValueError`` if parts are missing or do not fit together.
        """
        try:
            fields = {name: kept[name] for name in cls.__dataclass_fields__ if name in kept}
            fields["kind"], fields["whole"] = str(fields["kind"]), bool(fields.get("whole", True))
            for name in _TEXT:
                if name in fields:
                    fields[name] = tuple(str(feature) for feature in fields[name])
            for name, dtype in _ARRAYS.items():
                if name in fields:
                    fields[name] = np.ascontiguousarray(fields[name], dtype=dtype)
            if "target_sum" in fields:
                fields["target_sum"] = float(fields["target_sum"])
            if fields.get("layer") is not None:
                fields["layer"] = str(fields["layer"])
            recipe = cls(**fields)
            recipe._check()
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"`{argument}`: `{where}` holds no recipe that can be read ({error!r}).") from error
        return recipe

    def _check(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}")
        needed = {
            "rna": ("center", "scale", "target_sum", "total_features", "total_shares"),
            "protein": ("center", "scale"),
            "atac": ("idf",),
        }
        missing = [name for name in needed[self.kind] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"without {missing}")
        lengths = {len(a) for a in (self.loadings, self.center, self.scale, self.idf) if a is not None}
        if lengths != {len(self.features)} or self.loadings.ndim != 2:
            raise ValueError("arrays of different length")
        if self.total_shares is not None and len(self.total_shares) != len(self.total_features or ()):
            raise ValueError("totals of different length")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides the coordinates."""
        digest = hashlib.sha256(repr((self.kind, self.features, self.total_features, self.target_sum)).encode())
        for name in _ARRAYS:
            if name != "total_shares" and getattr(self, name) is not None:
                digest.update(name.encode() + np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()

    def gives_the_same_as(self, other: Recipe) -> bool:
        """Whether both give the same coordinates, up to what differs between two machines that make the same fit."""
        names = ("kind", "features", "total_features")
        if any(getattr(self, name) != getattr(other, name) for name in names) or (
            self.loadings.shape != other.loadings.shape
        ):
            return False
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("target_sum", "center", "scale", "idf")]
        alike = all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs if a is not None and b is not None)
        return alike and np.abs(self.loadings - other.loadings).max() <= 1e-3 * np.abs(self.loadings).max()

    # --------------------------------------------------------------- using it

    @property
    def n_comps(self) -> int:
        """Number of components of the representation."""
        return self.loadings.shape[1] - (self.kind == "atac")

    def transform(self, counts: sparse.csr_matrix, names: Sequence[str], *, argument: str, where: str) -> np.ndarray:
        """Representation of counts, without any fit.

        Parameters
        ----------
        counts
            ``(n_obs, n)``, finite and not negative.
        names
            Of their columns, ``(n,)``.
        argument, where
            What messages call the counts.

        Returns
        -------
        float32 ``(n_obs, n_comps)``; the same row has the same coordinates in any company.

        Raises
        ------
        ValueError
            If names repeat, if more than a few features are missing, or if totals cannot be compared.

        Warns
        -----
        UserWarning
            If a few features are missing. They are taken at their mean.
        """
        index = pd.Index([str(name) for name in names])
        if not index.is_unique:
            raise ValueError(f"`{argument}`: feature names of `{where}` repeat, call `var_names_make_unique()` first.")
        at = index.get_indexer(pd.Index(self.features))
        there = at >= 0
        self._check_features(there, index, argument, where)
        x = columns(counts, at[there])
        if self.kind == "rna":
            totals = self._totals(counts, index, argument, where)
            x = log_normalise(x, totals, cast(float, self.target_sum))
        elif self.kind == "protein":
            x = centred_log_ratio(x)
        else:
            x = tf_idf(x, cast(np.ndarray, self.idf)[there])
        return self.project(x, there)

    def project(self, x: sparse.csr_matrix, there: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Representation of transformed values ``(n_obs, n_there)`` of the features that are there."""
        weights = self.loadings[there].astype(np.float64)
        if self.kind == "atac":
            return standardised_rows(np.asarray(x @ weights), x)[:, 1:].astype(np.float32)
        weights /= cast(np.ndarray, self.scale)[there][:, None]
        # A feature that is missing lies at its mean: it adds nothing.
        offset = (cast(np.ndarray, self.center)[there][:, None] * weights).sum(axis=0)
        return (np.asarray(x @ weights) - offset).astype(np.float32)

    def features_of(self, scores: np.ndarray, at: Sequence[int]) -> np.ndarray:
        """Transformed values of some features that components ``(n_obs, n_comps)`` stand for; not for chromatin.

        Returns float32 ``(n_obs, len(at))``: what is orthogonal to the components is at its mean.
        """
        center, scale = (cast(np.ndarray, x)[at] for x in (self.center, self.scale))
        return (scores @ (self.loadings[at].T * scale) + center).astype(np.float32)

    def _check_features(self, there: np.ndarray, found: pd.Index, argument: str, where: str) -> None:
        if there.all():
            return
        n_missing, n = int((~there).sum()), len(there)
        examples = [name for name, present in zip(self.features, there, strict=True) if not present][:3]
        what = f"`{argument}`: {n_missing} of the {n} features of the recipe are not in `{where}`, such as {examples}"
        if not there.any():
            raise ValueError(f"{what}; it holds {found[:3].tolist()} and others. Are features named alike in both?")
        if n_missing > max(_FEW_FEATURES * n, 1) or n_missing == n:
            raise ValueError(
                f"{what}. Prepare the new data before features are taken out, or fit the recipe on the features that "
                "both hold."
            )
        warnings.warn(f"{what}. They are taken at their mean.", UserWarning, stacklevel=5)

    def _totals(self, counts: sparse.csr_matrix, found: pd.Index, argument: str, where: str) -> np.ndarray:
        """Totals of spots over the genes that made the totals of the fit."""
        at = found.get_indexer(pd.Index(cast(tuple[str, ...], self.total_features)))
        missing = float(cast(np.ndarray, self.total_shares)[at < 0].sum())
        if missing > _NO_COUNTS:
            what = (
                f"`{argument}`: the totals of the recipe are over {len(at)} genes, of which {int((at < 0).sum())} with "
                f"{missing:.0%} of all counts are not in `{where}`. "
            )
            if missing > _FEW_COUNTS:
                raise ValueError(
                    what + "Totals of a part of the genes cannot be compared: prepare the new data with all genes and "
                    "subset them later, or fit the recipe on the genes that both hold."
                )
            warnings.warn(what + "Totals are scaled up by that share.", UserWarning, stacklevel=5)
        totals = np.asarray(columns(counts, at[at >= 0]).sum(axis=1, dtype=np.float64)).ravel()
        return totals / (1.0 - missing) if missing else totals


def columns(counts: sparse.csr_matrix, at: np.ndarray) -> sparse.csr_matrix:
    """Columns of a matrix in sorted order of storage, so that sums do not depend on how it was stored."""
    x = counts if np.array_equal(at, np.arange(counts.shape[1])) else counts[:, at]
    if not x.has_canonical_format:
        x = x.copy()
        x.sum_duplicates()
    return x


def log_normalise(counts: sparse.csr_matrix, totals: np.ndarray, target_sum: float) -> sparse.csr_matrix:
    """``log1p`` of counts ``(n_obs, n_genes)`` after division by the spots' `totals` ``(n_obs,)`` and times `target_sum`.

    A spot without counts stays all zero.
    """
    x = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    factors = target_sum / np.where(totals > 0, totals, 1.0)
    x.data *= np.repeat(factors, np.diff(x.indptr))
    return x.log1p()


def centred_log_ratio(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """``log1p(x / g)`` of counts ``(n_obs, n_features)``, `g` being the geometric mean of ``1 + x`` in each row.

    This is the CLR transformation of Seurat, by cell. Zeros stay zeros, as does a row without counts.
    """
    x = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    geometric_mean = np.exp(np.asarray(x.log1p().mean(axis=1)).ravel())
    x.data /= np.repeat(geometric_mean, np.diff(x.indptr))
    return x.log1p()


def inverse_document_frequency(counts: sparse.csr_matrix) -> np.ndarray:
    """Number of rows over the sum of each column of ``(n_obs, n_features)``; 0 for a column without counts."""
    sums = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    return _over(counts.shape[0], sums)


def tf_idf(counts: sparse.csr_matrix, idf: np.ndarray) -> sparse.csr_matrix:
    """``log1p(1e4 w)`` of counts ``(n_obs, n_features)``, `w` being TF x IDF with a sum of 1 in each row.

    Rows without counts and columns with an `idf` ``(n_features,)`` of 0 are all zero.
    """
    # The row sums of TF cancel in the normalisation that follows.
    weighted = sparse.csr_matrix(counts, dtype=np.float64) @ sparse.diags(idf, format="csr")
    row_sums = np.asarray(weighted.sum(axis=1)).ravel()
    weighted.data *= np.repeat(_over(1e4, row_sums), np.diff(weighted.indptr))
    return weighted.log1p()


def standardised_rows(u: np.ndarray, x: sparse.csr_matrix) -> np.ndarray:
    """Rows of `u` ``(n_obs, n)`` with mean 0 and standard deviation 1; zeros where the row of `x` is empty."""
    u = u - u.mean(axis=1, keepdims=True)
    # The row of an empty spot is zero up to rounding, which standardising would blow up.
    present = np.asarray(x.sum(axis=1)) > 0
    return np.divide(u, u.std(axis=1, ddof=1, keepdims=True), out=np.zeros_like(u), where=present)


def _over(numerator: float, sums: np.ndarray) -> np.ndarray:
    return np.divide(numerator, sums, out=np.zeros_like(sums), where=sums > 0)
