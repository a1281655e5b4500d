"""Modalities of one slice joined into a MuData, the shared annotation held once."""

from __future__ import annotations

import mudata as md
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools import _keys


def join(mods: dict[str, AnnData], obs: pd.DataFrame, coordinates: np.ndarray) -> MuData:
    """Join modalities; `obs` and `coordinates` ``(n_obs, d)`` annotate the union of their spots, in any order."""
    # mudata before 0.4 would copy the columns of every modality under prefixed names, with a warning.
    with md.set_options(pull_on_update=False):
        mdata = MuData(mods)
        rows = obs.index.get_indexer(mdata.obs_names)
        mdata.obs = obs.iloc[rows].copy()
        mdata.obsm[_keys.SPATIAL] = coordinates[rows]
    return mdata
