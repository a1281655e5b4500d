from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given
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
