from __future__ import annotations

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given
from stomics_tools.cli._files import write_output
from stomics_tools.datasets import read_slice, simulate_multiomics


@pytest.fixture(scope="module")
def mdata() -> MuData:
    return simulate_multiomics(60, 3, modalities={"a": "protein", "b": "protein"})


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_anndata(mdata: MuData, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"slice{suffix}"
    mdata["a"].write_h5ad(path) if suffix == ".h5ad" else mdata["a"].write_zarr(path)
    back = read_slice(path)
    assert isinstance(back, AnnData)
    np.testing.assert_array_equal(back.X.toarray(), mdata["a"].X.toarray())


@pytest.mark.parametrize("suffix", [".h5mu", ".zarr"])
def test_mudata(mdata: MuData, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"slice{suffix}"
    with columns_as_given():
        mdata.write_h5mu(path) if suffix == ".h5mu" else mdata.write_zarr(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        back = read_slice(str(path))
    assert isinstance(back, MuData)
    assert list(back.obs) == ["domain", "slice"]
    assert list(back.mod) == ["a", "b"]
    np.testing.assert_array_equal(back["b"].X.toarray(), mdata["b"].X.toarray())


@pytest.mark.parametrize("name", ["slice.csv", "slice", "slice.h5ad.gz"])
def test_other_suffix(name: str) -> None:
    with pytest.raises(ValueError, match=r"`path`.*none of \['.h5ad', '.h5mu', '.zarr'\]"):
        read_slice(name)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`path`: no such file .*absent\.h5ad"):
        read_slice(tmp_path / "absent.h5ad")


@pytest.mark.parametrize("suffix", [".h5ad", ".h5mu"])
@pytest.mark.parametrize("keep", [0, 40, 2000])
def test_truncated_file(mdata: MuData, tmp_path: Path, suffix: str, keep: int) -> None:
    path = tmp_path / f"slice{suffix}"
    with columns_as_given():
        mdata["a"].write_h5ad(path) if suffix == ".h5ad" else mdata.write_h5mu(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"slice\{suffix}' cannot be read as a \{suffix} file; it may be truncated"):
        read_slice(path)


def test_file_of_another_kind(mdata: MuData, tmp_path: Path) -> None:
    path = tmp_path / "slice.h5mu"
    mdata["a"].write_h5ad(path)
    with pytest.raises(ValueError, match="cannot be read as a .h5mu file"):
        read_slice(path)


def test_folder_that_is_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "slice.zarr").mkdir()
    with pytest.raises(ValueError, match="cannot be read as a .zarr file"):
        read_slice(tmp_path / "slice.zarr")


def as_written_by_anndata_0_13(data: AnnData | MuData) -> None:
    """Give names pandas' own strings, as anndata 0.13 does with pandas 3."""
    for adata in data.mod.values() if isinstance(data, MuData) else [data]:
        adata.obs_names = adata.obs_names.astype("string")
        adata.var_names = adata.var_names.astype("string")
        adata.obs["barcode"] = pd.array([f"b{i}" for i in range(adata.n_obs)], dtype="string")
        adata.obs["kind"] = pd.Categorical(pd.array(["x", "y"] * (adata.n_obs // 2), dtype="string"))
        adata.obsm["table"] = pd.DataFrame({"note": adata.obs["barcode"]}, index=adata.obs_names)
        adata.raw = adata.copy()


@pytest.mark.parametrize("suffix", [".h5ad", ".h5mu", ".zarr"])
def test_files_of_newer_versions_can_be_written_again(mdata: MuData, tmp_path: Path, suffix: str) -> None:
    data = mdata["a"].copy() if suffix == ".h5ad" else mdata.copy()
    as_written_by_anndata_0_13(data)
    path, again = tmp_path / f"slice{suffix}", tmp_path / f"again{suffix}"
    if suffix == ".h5ad":
        with anndata.settings.override(allow_write_nullable_strings=True):
            data.write_h5ad(path)
    else:
        with columns_as_given(), anndata.settings.override(allow_write_nullable_strings=True):
            data.write_h5mu(path) if suffix == ".h5mu" else data.write_zarr(path)
    back = read_slice(path)
    with columns_as_given():
        write = {".h5ad": "write_h5ad", ".h5mu": "write_h5mu", ".zarr": "write_zarr"}[suffix]
        getattr(back, write)(again)
    found = read_slice(again)
    assert found.obs_names.tolist() == mdata.obs_names.tolist()
    own = found if isinstance(found, AnnData) else found["a"]
    assert own.obs["barcode"].tolist() == [f"b{i}" for i in range(own.n_obs)]
    assert own.var_names.tolist() == mdata["a"].var_names.tolist()


@pytest.mark.parametrize("suffix", [".h5ad", ".h5mu", ".zarr"])
def test_the_command_writes_objects_with_strings_of_pandas(mdata: MuData, tmp_path: Path, suffix: str) -> None:
    data = mdata["a"].copy() if suffix == ".h5ad" else mdata.copy()
    as_written_by_anndata_0_13(data)
    write_output(data, tmp_path / f"slice{suffix}")
    assert read_slice(tmp_path / f"slice{suffix}").obs_names.tolist() == mdata.obs_names.tolist()


def test_control_features_are_said(mdata: MuData, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adata = mdata["a"].copy()
    adata.var_names = ["Blank-1", "NegPrb2", *adata.var_names[2:]]
    adata.write_h5ad(tmp_path / "slice.h5ad")
    assert read_slice(tmp_path / "slice.h5ad").n_vars == adata.n_vars
    assert "holds control features: 1 'blank codeword', 1 'negative control probe'" in caplog.text


def test_the_folder_of_the_user(mdata: MuData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    mdata["a"].write_h5ad(tmp_path / "slice.h5ad")
    assert read_slice("~/slice.h5ad").n_obs == mdata["a"].n_obs


@pytest.mark.parametrize(
    ("files", "reader"),
    [
        (["outs/spatial/tissue_positions.csv", "outs/filtered_feature_bc_matrix.h5"], "`squidpy.read.visium"),
        (["spatial/tissue_positions_list.csv"], "`squidpy.read.visium"),
        (["square_008um/spatial/a.parquet"], "`spatialdata_io.visium_hd"),
        (["cells.parquet", "cell_feature_matrix.h5"], "`spatialdata_io.xenium"),
        (["lung_exprMat_file.csv", "lung_metadata_file.csv"], "`squidpy.read.nanostring"),
        (["cell_by_gene.csv", "cell_metadata.csv"], "`squidpy.read.vizgen"),
        (["matrix.mtx.gz", "features.tsv.gz"], "`scanpy.read_10x_mtx"),
        (["notes.txt"], "name a file in it"),
    ],
)
def test_readers_of_vendors_are_named(tmp_path: Path, files: list[str], reader: str) -> None:
    for name in files:
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(ValueError, match=reader):
        read_slice(tmp_path / "folder")


@pytest.mark.parametrize(("name", "reader"), [("a.h5", "scanpy.read_10x_h5"), ("a.csv.gz", "pandas.read_csv")])
def test_readers_of_other_files_are_named(tmp_path: Path, name: str, reader: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=reader):
        read_slice(tmp_path / name)
