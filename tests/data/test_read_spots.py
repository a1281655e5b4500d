"""Spots are found by name, slices are checked one by one, and what cannot be meant is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools.data import SpotsSpec, read_spots

N = 40
SPEC = SpotsSpec({"rna": "X_pca", "protein": "X_protein"}, "spatial", "slice")


def _modality(seed: int, key: str, names: list[str]) -> AnnData:
    rng = np.random.default_rng(seed)
    adata = AnnData(np.ones((N, 2)), obs=pd.DataFrame(index=names), obsm={key: rng.normal(size=(N, 3))})
    adata.var_names = [f"{key}{i}" for i in range(2)]
    adata.obsm["spatial"] = np.stack([np.arange(N), np.arange(N) % 7], axis=1).astype(float)
    adata.obs["slice"] = np.where(np.arange(N) < N // 2, "a", "b")
    return adata


@pytest.fixture
def mdata() -> MuData:
    names = [f"spot{i}" for i in range(N)]
    return MuData({"rna": _modality(0, "X_pca", names), "protein": _modality(1, "X_protein", names)})


def _table(spots, name: str, obs_names: pd.Index) -> pd.DataFrame:
    return pd.DataFrame(spots.modalities[name].values, index=obs_names)


@pytest.mark.parametrize("how", ["permuted", "sorted in place", "filtered"])
def test_a_modality_that_changed_without_update_is_read_by_name(mdata: MuData, how: str) -> None:
    before = read_spots(mdata, SPEC)
    order = np.random.default_rng(0).permutation(N)
    if how == "permuted":
        mdata.mod["rna"] = mdata["rna"][order].copy()
    elif how == "sorted in place":
        mdata["rna"]._inplace_subset_obs(order)
    else:
        mdata.mod["rna"] = mdata["rna"][np.sort(order[:30])].copy()
    after = read_spots(mdata, SPEC)
    there = after.modalities["rna"].present
    assert there.sum() == (30 if how == "filtered" else N)
    np.testing.assert_array_equal(after.modalities["rna"].values[there], before.modalities["rna"].values[there])
    np.testing.assert_array_equal(after.coordinates, before.coordinates)
    np.testing.assert_array_equal(after.batch, before.batch)


def test_spots_that_the_mudata_does_not_know(mdata: MuData) -> None:
    mdata["rna"].obs_names = [f"other{i}" for i in range(N)]
    with pytest.raises(ValueError, match=r"Modality 'rna' changed.*40 of its spots.*'other0'.*mdata.update\(\)"):
        read_spots(mdata, SPEC)


def test_a_slice_whose_spots_lie_on_one_point(mdata: MuData) -> None:
    adata = mdata["rna"]
    adata.obsm["spatial"][N // 2 :] = 0
    spec = SpotsSpec({"rna": "X_pca"}, "spatial", "slice")
    with pytest.raises(ValueError, match=r"all 20 spots of slice 'b' in `adata.obsm\['spatial'\]` have the same"):
        read_spots(adata, spec)
    read_spots(adata[: N // 2].copy(), spec)  # the other one is fine


def test_names_of_spots_are_no_slices(mdata: MuData) -> None:
    adata = mdata["rna"]
    adata.obs["barcode"] = adata.obs_names
    with pytest.raises(ValueError, match=r"`adata.obs\['barcode'\]` has 40 values in 40 spots"):
        read_spots(adata, SpotsSpec({"rna": "X_pca"}, "spatial", "barcode"))
    adata.obs["barcode"] = [f"pair{i // 2}" for i in range(N - 2)] + ["x", "y"]
    with pytest.raises(ValueError, match="has 21 values in 40 spots"):
        read_spots(adata, SpotsSpec({"rna": "X_pca"}, "spatial", "barcode"))


@pytest.mark.parametrize("kind", ["objects", "nullable", "sparse", "float16", "dask"])
def test_coordinates_of_any_kind(mdata: MuData, kind: str) -> None:
    adata = mdata["rna"]
    spec = SpotsSpec({"rna": "X_pca"}, "spatial")
    plain = read_spots(adata, spec).coordinates
    if kind == "objects":
        adata.obsm["spatial"] = plain.astype(object)
    elif kind == "nullable":
        adata.obsm["spatial"] = pd.DataFrame(plain, index=adata.obs_names).astype("Int64")
    elif kind == "sparse":
        adata.obsm["spatial"] = sparse.csr_matrix(plain)
    elif kind == "float16":
        adata.obsm["spatial"] = plain.astype(np.float16)
    else:
        adata.obsm["spatial"] = pytest.importorskip("dask.array").from_array(plain, chunks=(7, 2))
    np.testing.assert_array_equal(read_spots(adata, spec).coordinates, plain)


def test_a_missing_coordinate_of_a_nullable_table(mdata: MuData) -> None:
    adata = mdata["rna"]
    table = pd.DataFrame(adata.obsm["spatial"], index=adata.obs_names).astype("Int64")
    table.iloc[3, 0] = pd.NA
    adata.obsm["spatial"] = table
    with pytest.raises(ValueError, match="1 rows with NaN or infinite coordinates"):
        read_spots(adata, SpotsSpec({"rna": "X_pca"}, "spatial"))


@pytest.mark.parametrize("named", [True, False])
def test_distances_are_no_weights(mdata: MuData, named: bool) -> None:
    adata = mdata["rna"]
    key = "how_far" if named else "spatial_distances"
    adata.obsp[key] = sparse.csr_matrix(np.abs(np.subtract.outer(np.arange(N), np.arange(N))) * 1.0)
    if named:
        adata.uns["spatial_neighbors"] = {"distances_key": key, "connectivities_key": "near"}
    told = f"`spatial_graph_key`: `adata.obsp\\['{key}'\\]` holds distances.*'{'near' if named else 'spatial_connectivities'}'"
    with pytest.raises(ValueError, match=told):
        read_spots(adata, SpotsSpec({"rna": "X_pca"}, "spatial", spatial_graph_key=key))
