"""Modalities of one slice joined into a MuData, the shared annotation held once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._compat import columns_as_given


def join(mods: dict[str, AnnData], obs: pd.DataFrame, coordinates: np.ndarray) -> MuData:
    """Join modalities; `obs` and `coordinates` ``(n_obs, d)`` annotate the union of their spots, in any order."""
    # mudata before 0.4 would copy the columns of every modality under prefixed names, with a warning.
    with columns_as_given():
        mdata = MuData(mods)
        rows = obs.index.get_indexer(mdata.obs_names)
        mdata.obs = obs.iloc[rows].copy()
        mdata.obsm[_keys.SPATIAL] = coordinates[rows]
    return mdata
