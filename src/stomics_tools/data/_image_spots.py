"""Spots with image features and expression as plain arrays, and where in an AnnData they lie."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from stomics_tools.data._covariates import Covariate
from stomics_tools.data._log_counts import are_counts, log_total


@dataclass(frozen=True)
class ImageSpec:
    """Where in an AnnData the data of a model of expression from images lie: what ``setup_anndata`` records.

    Parameters
    ----------
    features_key
        ``obsm`` key of the image features, an array or DataFrame; ``"X"`` for those of a feature table.
    layer
        Layer of the expression. Default: ``X``.
    spatial_key
        ``obsm`` key of the coordinates, if they are used.
    patient_key
        ``obs`` column of the patients, if there are several.
    section_key
        ``obs`` column of the sections. Default: patients.
    covariate_keys
        ``obs`` columns of further conditions: numbers are continuous, the rest categorical.
    counts
        Whether the expression is counts; None decides by the values.
    """

    features_key: str
    layer: str | None = None
    spatial_key: str | None = None
    patient_key: str | None = None
    section_key: str | None = None
    covariate_keys: tuple[str, ...] = ()
    counts: bool | None = None


@dataclass(frozen=True)
class ImageSpots:
    """The spots of one object as arrays, rows in the object's order.

    ``features`` float32 ``(n_obs, n_features)``, their ``feature_names`` and ``encoder`` where known; ``expression``
    float32 ``(n_obs, n_genes)``, NaN where a gene was not measured, ``None`` when read for prediction; ``gene_names``
    those of setup; ``coordinates`` float64 ``(n_obs, 2 or 3)`` if used; ``patient`` int64 codes ``(n_obs,)`` into
    ``patient_names``, ``None`` if not known; ``section`` likewise, which are the patients or else one; ``covariates``
    float32 ``(n_obs, n_covariates)``, encoded as ``encodings`` say; ``counts`` where the expression is taken as counts.
    """

    features: np.ndarray
    feature_names: tuple[str, ...] | None
    encoder: str | None
    expression: np.ndarray | None
    gene_names: tuple[str, ...]
    coordinates: np.ndarray | None
    patient: np.ndarray | None
    patient_names: tuple[str, ...]
    section: np.ndarray
    section_names: tuple[str, ...]
    covariates: np.ndarray
    encodings: tuple[Covariate, ...]
    counts: bool = False

    @property
    def n_obs(self) -> int:
        """Number of spots."""
        return len(self.features)

    @property
    def n_features(self) -> int:
        """Number of image features."""
        return int(self.features.shape[1])

    def fingerprint(self) -> str:
        """Hash of all that a model sees: two objects with the same one hold the same data."""
        digest = hashlib.sha256()
        digest.update(repr((self.feature_names, self.encoder, self.gene_names, self.encodings)).encode())
        for name in ("features", "expression", "coordinates", "patient", "section", "covariates"):
            values = getattr(self, name)
            digest.update(repr((name, None if values is None else values.shape)).encode())
            if values is not None:
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def state(self) -> dict[str, Any]:
        """What another object must share with this one, and its patients and sections, in plain values."""
        return {
            "n_features": self.n_features,
            "feature_names": None if self.feature_names is None else list(self.feature_names),
            "encoder": self.encoder,
            "gene_names": list(self.gene_names),
            "counts": self.counts,
            "whole": self.expression is not None and are_counts(self.expression),
            "log_total": None if self.counts or self.expression is None else log_total(self.expression),
            "covariates": [encoding.state() for encoding in self.encodings],
            "n_dims": None if self.coordinates is None else int(self.coordinates.shape[1]),
            "patients": list(self.patient_names),
            "sections": list(self.section_names),
        }
