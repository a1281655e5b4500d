from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    """Draw without a screen, and leave no figure behind."""
    with mpl.rc_context():
        plt.switch_backend("Agg")
        yield
        plt.close("all")


@pytest.fixture
def slices() -> AnnData:
    """Two slices of 20 and 30 spots on square lattices of spacing 2 and 10, with three domains."""
    small = 2.0 * np.stack(np.unravel_index(np.arange(20), (4, 5)), axis=1)
    large = 10.0 * np.stack(np.unravel_index(np.arange(30), (5, 6)), axis=1)
    adata = AnnData(np.ones((50, 3), dtype=np.float32))
    adata.obsm["spatial"] = np.vstack([small, large])
    adata.obs["spatial_domain"] = np.array(["a", "b", "c"])[np.arange(50) % 3]
    adata.obs["spatial_domain"] = adata.obs["spatial_domain"].astype("category")
    adata.obs["slice"] = ["one"] * 20 + ["two"] * 30
    adata.obs["depth"] = np.arange(50.0)
    return adata
