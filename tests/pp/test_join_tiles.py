from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse
from scipy.spatial.distance import cdist

from stomics_tools import pp


@pytest.fixture
def centres() -> np.ndarray:
    """Tiles of 10 x 10 side by side."""
    x, y = np.meshgrid(np.arange(12), np.arange(9))
    return np.stack([x.ravel(), y.ravel()], axis=1) * 10.0 + 5.0


@pytest.fixture
def features(centres) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(len(centres), 6))


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    adata = AnnData(np.ones((40, 3), dtype=np.float32))
    adata.obsm["spatial"] = rng.uniform([0, 0], [120, 90], size=(40, 2))
    adata.obs["section"] = pd.Categorical(np.where(np.arange(40) % 3, "s1", "s0"), categories=["s0", "s1", "unused"])
    return adata


def lazyslide_table(centres: np.ndarray, features: np.ndarray) -> AnnData:
    """As ``wsi.fetch.features_anndata`` gives it: corners, and tiles that were read at half the resolution."""
    table = AnnData(features, obsm={"spatial": centres - 5.0})
    table.uns["tile_spec"] = {"height": 5, "width": 5, "stride_height": 5, "stride_width": 5, "base_downsample": 2.0}
    return table


def test_nearest(adata, centres, features):
    pp.join_tile_features(adata, (centres, features))
    nearest = cdist(adata.obsm["spatial"], centres).argmin(axis=1)
    found = adata.obsm["X_image"]
    np.testing.assert_array_equal(found.to_numpy(), features[nearest].astype(np.float32))
    assert (found.dtypes == np.float32).all()
    assert found.columns.tolist() == [f"feature{j}" for j in range(6)]
    assert found.index.equals(adata.obs_names)
    params = adata.uns["X_image"]["params"]
    assert (params["how"], params["pitch"], params["radius"]) == ("nearest", [10.0], [10.0])
    assert "encoder" not in params


@pytest.mark.parametrize("radius", [12.0, 25.0, 500.0])
def test_mean(adata, centres, features, radius):
    pp.join_tile_features(adata, (centres, features), how="mean", radius=radius)
    near = cdist(adata.obsm["spatial"], centres) <= radius
    expected = near @ features / near.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(adata.obsm["X_image"].to_numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", ["nearest", "mean"])
def test_a_tile_at_the_very_place_of_a_spot_counts(centres, features, how):
    adata = AnnData(np.ones((len(centres), 1), dtype=np.float32), obsm={"spatial": centres})
    pp.join_tile_features(adata, (centres, features), radius=1.0, how=how)
    np.testing.assert_array_equal(adata.obsm["X_image"].to_numpy(), features.astype(np.float32))


def test_table_of_lazyslide(adata, centres, features):
    table = lazyslide_table(centres, features)
    table.var_names = [f"uni_{j}" for j in range(6)]
    result = pp.join_tile_features(adata, table, encoder="uni", key_added="X_uni", copy=True)
    assert "X_uni" not in adata.obsm
    pp.join_tile_features(adata, (centres, pd.DataFrame(features, columns=table.var_names)), key_added="X_uni")
    pd.testing.assert_frame_equal(result.obsm["X_uni"], adata.obsm["X_uni"])
    assert result.obsm["X_uni"].columns.tolist() == [f"uni_{j}" for j in range(6)]
    assert result.uns["X_uni"]["params"]["encoder"] == "uni"
    no_spec = table.copy()
    del no_spec.uns["tile_spec"]
    shifted = pp.join_tile_features(adata, no_spec, radius=20.0, key_added="X_uni", copy=True)
    assert not shifted.obsm["X_uni"].equals(result.obsm["X_uni"])


@pytest.mark.parametrize("as_sparse", [False, True])
def test_centres_under_another_key_and_sparse_features(adata, centres, features, as_sparse):
    features = np.maximum(features, 0)
    tiles = AnnData(sparse.csr_matrix(features) if as_sparse else features, obsm={"centre": centres})
    pp.join_tile_features(adata, tiles, tile_spatial_key="centre", how="mean", radius=11.0)
    near = cdist(adata.obsm["spatial"], centres) <= 11
    expected = near @ features / near.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(adata.obsm["X_image"].to_numpy(), expected, rtol=1e-4, atol=1e-6)


def test_sections_have_tiles_of_their_own(adata, centres, features):
    tiles = {"s0": (centres, features), "s1": (2 * centres, -features), "other": (centres, features[:, :1])}
    pp.join_tile_features(adata, tiles, section_key="section", radius=20.0)
    for name, (places, values) in list(tiles.items())[:2]:
        rows = (adata.obs["section"] == name).to_numpy()
        nearest = cdist(adata.obsm["spatial"][rows], places).argmin(axis=1)
        np.testing.assert_array_equal(adata.obsm["X_image"].to_numpy()[rows], values[nearest].astype(np.float32))
    assert adata.uns["X_image"]["params"]["pitch"] == [10.0, 20.0]


def test_round_trip_and_views(adata, centres, features, tmp_path):
    view = adata[:10]
    pp.join_tile_features(view, (centres, features), encoder="uni")
    assert "X_image" not in adata.obsm
    view.write_h5ad(tmp_path / "x.h5ad")
    back = read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(back.obsm["X_image"], view.obsm["X_image"])
    assert back.uns["X_image"]["params"]["encoder"] == "uni"


def fails(adata: AnnData, error: type[Exception], message: str, *args: object, **kwargs: object) -> None:
    with pytest.raises(error, match=message):
        pp.join_tile_features(adata, *args, **kwargs)
    assert "X_image" not in adata.obsm
    assert "X_image" not in adata.uns


def test_spots_without_a_tile(adata, centres, features):
    adata.obsm["spatial"][:3] = [[500.0, 45.0], [600.0, 45.0], [155.0, 45.0]]
    fails(
        adata,
        ValueError,
        r"`tiles`: 3 of 40 spots have no tile within the radius 10: the nearest is 40 to 485 away, at a pitch of the "
        r"tiles of 10",
        (centres, features),
    )


def test_another_scale(adata, centres, features):
    adata.obsm["spatial"] *= 4
    fails(adata, ValueError, r"tiles x from 5 to 115, y from 5 to 85. If one is a multiple", (centres, features))


def test_bad_tiles(adata, centres, features):
    table = lazyslide_table(centres, features)
    del table.obsm["spatial"]
    fails(adata, KeyError, r"'spatial' not found in `tiles.obsm`.*features_anndata", table)
    fails(adata, ValueError, r"shape \(107, 6\) and 108 centres", (centres, features[1:]))
    fails(adata, ValueError, r"shape \(108,\) and 108 centres", (centres, features[:, 0]))
    fails(adata, TypeError, r"AnnData or a pair \(centres, features\), found ndarray", features)
    fails(adata, ValueError, "must have 2 columns", (np.c_[centres, centres[:, 0]], features))
    fails(adata, ValueError, "a single tile has no pitch", (centres[:1], features[:1]))
    features[4, 2] = np.nan
    fails(adata, ValueError, "features of tiles` holds 1 NaN", (centres, features))


def test_bad_sections(adata, centres, features):
    tiles = {"s0": (centres, features), "s1": (centres, features[:, :2])}
    fails(adata, ValueError, "name the column of sections as `section_key`", tiles)
    fails(adata, ValueError, r"mapping of the sections \['s0', 's1'\]", (centres, features), section_key="section")
    fails(adata, ValueError, r"`tiles\['s1'\]`: features differ.*2 beginning", tiles, section_key="section")
    fails(adata, KeyError, "key 's1' not found in `tiles`", {"s0": tiles["s0"]}, section_key="section")
    fails(adata, KeyError, "'slide' not found in `adata.obs`", tiles, section_key="slide")


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"how": "median"}, ValueError, "`how`: unknown option 'median'"),
        ({"radius": 0}, ValueError, "`radius` must be in"),
        ({"spatial_key": "xy"}, KeyError, "'xy' not found in `adata.obsm`"),
    ],
)
def test_bad_arguments(adata, centres, features, kwargs, error, message):
    fails(adata, error, message, (centres, features), **kwargs)
    adata.obs_names = ["spot"] * 40
    fails(adata, ValueError, "not unique", (centres, features))
