"""The spots of a slice as plain arrays, and where in an object they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from stomics_tools.data._origin import Origin


@dataclass(frozen=True)
class SpotsSpec:
    """Where in an object the data of a model lie: what ``setup_anndata`` and ``setup_mudata`` record.

    Parameters
    ----------
    modalities
        Name of each modality to its ``obsm`` key, layer, or ``"X"`` (of the modality of that name in a MuData).
    spatial_key
        ``obsm`` key of the coordinates.
    batch_key
        ``obs`` column of slices or patients, if there are several.
    spatial_graph_key
        ``obsp`` key of a ready spatial graph.
    feature_graph_keys
        Modality to the ``obsp`` key of its ready feature graph.
    features
        Modality to the names of the columns to be read, in this order, where these are not all.
    totals
        Modality to the total that the counts of every spot are scaled to before ``log1p``, where it holds counts.
    total_genes
        Modality to the genes that the totals of spots are over, each with its share of all counts in the data of setup.
        Default: all that are there.
    total_key
        ``obs`` column of the totals of spots, instead of sums over genes.
    """

    modalities: Mapping[str, str]
    spatial_key: str
    batch_key: str | None = None
    spatial_graph_key: str | None = None
    feature_graph_keys: Mapping[str, str] | None = None
    features: Mapping[str, Sequence[str]] | None = None
    totals: Mapping[str, float] | None = None
    total_genes: Mapping[str, Mapping[str, float]] | None = None
    total_key: str | None = None


@dataclass(frozen=True)
class Modality:
    """One modality of all spots.

    ``values`` float32 ``(n_obs, n_features)``, zero in the rows where ``present`` (bool ``(n_obs,)``) is false;
    ``names`` of the features where they have any; ``whole`` where the values of the object are whole and none is
    negative, as counts are; ``counts`` where they were taken as counts, so that ``values`` are their logarithms;
    ``origin`` says how an array of ``obsm`` was made, and ``log_total`` base and total of log-normalised counts;
    ``argument`` and ``place`` name the array in messages.
    """

    values: np.ndarray
    present: np.ndarray
    names: tuple[str, ...] | None
    whole: bool = False
    counts: bool = False
    origin: Origin | None = None
    log_total: list[float] | None = None
    argument: str = "modalities"
    place: str = ""

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Spots:
    """The spots of one object as arrays, rows in the object's order.

    ``coordinates`` float64 ``(n_obs, 2 or 3)``; ``batch`` int64 codes ``(n_obs,)`` into ``batch_names``;
    ``spatial_graph`` and ``feature_graphs`` are ready CSR graphs where the user named some.
    """

    modalities: dict[str, Modality]
    coordinates: np.ndarray
    batch: np.ndarray
    batch_names: list[str]
    spatial_graph: sparse.csr_matrix | None
    feature_graphs: dict[str, sparse.csr_matrix]

    @property
    def n_obs(self) -> int:
        """Number of spots."""
        return len(self.coordinates)

    def sizes(self) -> dict[str, Any]:
        """Number of spots of each slice, and of those that have each modality, in the order of ``batch_names``.

        ``first_absent`` is the first row without a modality, by name, where there is any.
        """
        n = len(self.batch_names)
        measured = {name: np.bincount(self.batch[m.present], minlength=n) for name, m in self.modalities.items()}
        return {
            "all": np.bincount(self.batch, minlength=n).tolist(),
            "measured": {name: counts.tolist() for name, counts in measured.items()},
            "first_absent": {n: int(m.present.argmin()) for n, m in self.modalities.items() if not m.present.all()},
        }

    def fingerprint(self) -> str:
        """Hash of all that a model sees: two objects with the same one hold the same data."""
        digest = hashlib.sha256()
        for name, modality in sorted(self.modalities.items()):
            digest.update(repr((name, modality.values.shape, modality.names)).encode())
            digest.update(np.ascontiguousarray(modality.values).data)
            digest.update(modality.present.tobytes())
        digest.update(self.coordinates.tobytes())
        digest.update(self.batch.tobytes())
        for graph in (self.spatial_graph, *(graph for _, graph in sorted(self.feature_graphs.items()))):
            if graph is not None:
                digest.update(graph.indices.tobytes() + graph.indptr.tobytes() + graph.data.tobytes())
        return digest.hexdigest()

    def state(self) -> dict[str, Any]:
        """What another object must share with this one, in plain values and arrays."""
        return {
            "modalities": {
                name: {
                    "n_features": m.n_features,
                    "feature_names": None if m.names is None else list(m.names),
                    "whole": m.whole,
                    "counts": m.counts,
                    "log_total": m.log_total,
                    "origin": None if m.origin is None else m.origin.state(),
                }
                for name, m in self.modalities.items()
            },
            "batches": list(self.batch_names),
            "sizes": self.sizes(),
        }
