"""The table of scores that a command prints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools import metrics, tl


def domains_alone(adata: AnnData, key: str, n_domains: int, *, seed: int) -> pd.Series:
    """Domains of one modality from ``obsm[key]`` only, of the spots where it was measured; nothing is written."""
    values = np.asarray(adata.obsm[key])
    measured = np.isfinite(values).all(axis=1)
    part = AnnData(obs=adata.obs.loc[measured, []], obsm={key: values[measured]})
    tl.spatial_domains(part, n_domains, use_rep=key, seed=seed, key_added="found")
    return part.obs["found"]


def score_table(
    mdata: MuData,
    representations: Mapping[str, str],
    domain_key: str,
    labels: pd.Series | None,
    graph: sparse.csr_matrix,
    *,
    seed: int,
) -> str:
    """Scores of the domains in ``obs[domain_key]``, and above them those of each modality without the model.

    Agreement with `labels` if there are any; Moran's I and purity of the domains on `graph` ``(n_obs, n_obs)``.
    """
    n_domains = mdata.obs[domain_key].nunique()
    rows = {
        f"{name} alone": domains_alone(mdata.mod[name], key, n_domains, seed=seed).reindex(mdata.obs_names)
        for name, key in representations.items()
    }
    rows["PRAGASpike"] = mdata.obs[domain_key]
    table = pd.DataFrame(
        {title: metrics.score_domains(found, true=labels, graph=graph) for title, found in rows.items()}
    ).T
    # The V measure equals the normalised mutual information.
    return table.drop(columns=["n_domains", "v_measure"], errors="ignore").to_string(float_format="{:.3f}".format)
