"""The spots of an evaluation, and the two parts of a fold as models get them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stomics_tools._validate import check_number, check_obs_names
from stomics_tools.data import expression_matrix, normalize_expression, total_counts
from stomics_tools.data._expression import Normalization, counts_with_gaps
from stomics_tools.data._lookup import representation


@dataclass(frozen=True)
class SpotCounts:
    """Spots with enough counts, in the order of the AnnData."""

    obs: pd.DataFrame
    genes: pd.Index
    counts: sparse.csr_matrix
    """``(n_obs, n_all_genes)``; stored NaN: not measured."""
    total: np.ndarray
    """``(n_obs,)`` over all genes."""
    obsm: dict[str, np.ndarray]

    def part(self, rows: np.ndarray, columns: np.ndarray, normalization: Normalization) -> AnnData:
        """Spots `rows` with the expression of the genes `columns` in X, float32, and counts in a layer."""
        counts = self.counts[rows][:, columns]
        expression = normalize_expression(counts, self.total[rows], normalization)
        return self._adata(rows, columns, expression.toarray(), counts.toarray().astype(np.float32))

    def without_truth(self, rows: np.ndarray, columns: np.ndarray) -> AnnData:
        """The same of spots to predict, with zeros in place of the expression and of the counts."""
        zeros = np.zeros((len(rows), len(columns)), dtype=np.float32)
        return self._adata(rows, columns, zeros, zeros.copy())

    def _adata(self, rows: np.ndarray, columns: np.ndarray, expression: np.ndarray, counts: np.ndarray) -> AnnData:
        obs = self.obs.iloc[rows].copy()
        for name in obs.select_dtypes("category"):
            obs[name] = obs[name].cat.remove_unused_categories()
        return AnnData(
            expression,
            obs=obs,
            var=pd.DataFrame(index=self.genes[columns]),
            obsm={key: values[rows] for key, values in self.obsm.items()},
            layers={"counts": counts},
        )


def read_spot_counts(
    adata: AnnData, *, features_key: str, spatial_key: str, layer: str | None, min_counts: float
) -> SpotCounts:
    """Spots with at least `min_counts` counts.

    Raises ``KeyError`` for missing keys, ``ValueError`` for counts that are none, features that are not finite, names
    that repeat, and where no spot has enough counts.
    """
    check_obs_names(adata.obs_names)
    features = representation(adata, features_key, argument="features_key")
    counts = _counts(adata, layer)
    total = total_counts(counts)
    check_number(min_counts, argument="min_counts", low=0)
    kept = np.flatnonzero((total >= min_counts) & (total > 0))
    if not len(kept):
        raise ValueError(f"`min_counts`: no spot has {min_counts:g} counts, the most are {total.max(initial=0):g}.")
    obsm = {features_key: features[kept].astype(np.float32)}
    if spatial_key in adata.obsm:
        obsm[spatial_key] = np.asarray(adata.obsm[spatial_key])[kept]
    return SpotCounts(adata.obs.iloc[kept].copy(), adata.var_names, counts[kept], total[kept], obsm)


def _counts(adata: AnnData, layer: str | None) -> sparse.csr_matrix:
    values, where = expression_matrix(adata, layer)
    return counts_with_gaps(values, argument="layer", where=where)
