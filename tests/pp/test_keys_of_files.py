"""Names of results become keys of files: every function refuses those that files cannot hold, before it begins."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

import stomics_tools as st

FUNCTIONS = {
    "rna": lambda a, key: st.pp.rna(a, key_added=key),
    "protein": lambda a, key: st.pp.protein(a, key_added=key),
    "atac": lambda a, key: st.pp.atac(a, key_added=key),
    "rna by a reference": lambda a, key: st.pp.rna(a, reference=a, key_added=key),
    "smooth": lambda a, key: st.pp.smooth(a, "X_any", key_added=key),
    "thin_counts": lambda a, key: st.pp.thin_counts(a, key_added=key),
    "patch_features": lambda a, key: st.pp.patch_features(a, np.zeros((40, 40, 3), np.uint8), key_added=key),
    "join_tile_features": lambda a, key: st.pp.join_tile_features(a, a, key_added=key),
    "spatial_domains": lambda a, key: st.tl.spatial_domains(a, 2, use_rep="X_any", key_added=key),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=list(FUNCTIONS))
@pytest.mark.parametrize("key", ["RNA/GEX", "", "__x"])
def test_keys_that_files_cannot_hold(function, key):
    x = np.random.default_rng(0).poisson(3, size=(30, 12))
    adata = AnnData(x, obsm={"X_any": x.astype(float), "spatial": np.random.default_rng(1).uniform(size=(30, 2))})
    with pytest.raises(ValueError, match="`key_added`: .* It becomes a key of files"):
        function(adata, key)
    assert set(adata.obsm) == {"X_any", "spatial"}
    assert not adata.uns
