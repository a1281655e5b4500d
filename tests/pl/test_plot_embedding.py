from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from sklearn.metrics import silhouette_score

from stomics_tools import pl


@pytest.fixture
def adata() -> AnnData:
    """Three groups far from each other in five dimensions."""
    rng = np.random.default_rng(0)
    group = np.arange(90) % 3
    adata = AnnData(np.ones((90, 2), dtype=np.float32), obsm={"X_z": rng.normal(size=(90, 5)) + 20 * group[:, None]})
    adata.obs["spatial_domain"] = np.array(["a", "b", "c"])[group]
    adata.obs["spatial_domain"] = adata.obs["spatial_domain"].astype("category")
    adata.obs["depth"] = rng.uniform(size=90)
    return adata


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_groups_stay_together_and_nothing_is_written(adata: AnnData, method: str) -> None:
    before = adata.copy()
    ax = pl.embedding(adata, use_rep="X_z", method=method, show=False)
    spots = ax.collections[0]  # the others are of the legend
    assert spots.get_offsets().shape == (90, 2)
    assert silhouette_score(spots.get_offsets(), [to_hex(c) for c in spots.get_facecolors()]) > 0.5
    assert set(adata.obsm) == set(before.obsm)
    assert not adata.uns
    assert not adata.obsp
    assert ax.get_title() == "spatial_domain"


def test_colors_of_the_object_axes_and_figure(adata: AnnData) -> None:
    adata.uns["spatial_domain_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    _, ax = plt.subplots()
    figure = pl.embedding(adata, use_rep="X_z", title="latent", ax=ax, return_fig=True)
    assert figure is ax.get_figure()
    drawn = {to_hex(c) for c in ax.collections[0].get_facecolors()}
    assert drawn == {"#ff0000", "#00ff00", "#0000ff"}
    assert ax.get_title() == "latent"
    assert pl.embedding(adata, use_rep="X_z", color="depth", show=False) is not ax


def test_bad_input(adata: AnnData) -> None:
    with pytest.raises(KeyError, match="'X_y' not found in `adata.obsm`"):
        pl.embedding(adata, use_rep="X_y")
    with pytest.raises(KeyError, match="`color`"):
        pl.embedding(adata, use_rep="X_z", color="region")
    with pytest.raises(ValueError, match="`method`"):
        pl.embedding(adata, use_rep="X_z", method="pca")
    with pytest.raises(ValueError, match="`n_neighbors=90`"):
        pl.embedding(adata, use_rep="X_z", n_neighbors=90)
