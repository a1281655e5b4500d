"""Every kind of matrix that an AnnData can hold is opened to the same values, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from stomics_tools.data import open_matrix
from stomics_tools.data._matrix import dense_matrix

VALUES = np.array([[0.0, 2.0, 0.0], [5.0, 0.0, 1.0], [0.0, 0.0, 7.0], [3.0, 3.0, 3.0]])


def _open(raw: Any) -> Any:
    return open_matrix(raw, argument="layer", where="adata.X")


def _dask(chunk: Any) -> Any:
    array = pytest.importorskip("dask.array")
    return array.from_array(VALUES, chunks=(2, 3)).map_blocks(chunk)


def _float16(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix.data = matrix.data.astype(np.float16)  # what a file can hold, SciPy computes nothing with
    return matrix


KINDS = {
    "dense": lambda: VALUES,
    "fortran": lambda: np.asfortranarray(VALUES),
    "integers": lambda: VALUES.astype(np.uint8),
    "big endian": lambda: VALUES.astype(">f8"),
    "objects": lambda: VALUES.astype(object),
    "matrix": lambda: np.matrix(VALUES),
    "csr": lambda: sparse.csr_matrix(VALUES),
    "csc": lambda: sparse.csc_matrix(VALUES),
    "coo": lambda: sparse.coo_matrix(VALUES),
    "csr array": lambda: sparse.csr_array(VALUES),
    "csc array": lambda: sparse.csc_array(VALUES),
    "float16": lambda: VALUES.astype(np.float16),
    "sparse float16": lambda: _float16(sparse.csr_matrix(VALUES)),
    "table": lambda: pd.DataFrame(VALUES),
    "nullable table": lambda: pd.DataFrame(VALUES).astype("Int64"),
    "nullable floats": lambda: pd.DataFrame(VALUES).astype("Float32"),
    "tensor": lambda: torch.as_tensor(VALUES),
    "dask": lambda: _dask(lambda block: block),
    "dask, sparse chunks": lambda: _dask(sparse.csr_matrix),
    "dask, csc chunks": lambda: _dask(sparse.csc_matrix),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_hold_the_same_values(kind: str) -> None:
    found = _open(KINDS[kind]())
    dense = found.toarray() if sparse.issparse(found) else found
    assert type(found) in (np.ndarray, sparse.csr_matrix)
    assert dense.dtype in (np.uint8, np.float32, np.float64)
    np.testing.assert_array_equal(dense, VALUES)
    again = dense_matrix(KINDS[kind](), argument="layer", where="adata.X")
    assert again.dtype == np.float32
    assert again.flags.c_contiguous
    np.testing.assert_array_equal(again, VALUES.astype(np.float32))


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix, sparse.csc_matrix])
def test_files(suffix: str, make: Any, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    getattr(AnnData(make(VALUES)), f"write_{suffix}")(path)
    if suffix == "h5ad":
        backed = ad.read_h5ad(path, backed="r")
        found = _open(backed.X)
        np.testing.assert_array_equal(found.toarray() if sparse.issparse(found) else found, VALUES)
    lazy = pytest.importorskip("anndata.experimental").read_lazy(path)
    found = _open(lazy.X)
    np.testing.assert_array_equal(found.toarray() if sparse.issparse(found) else found, VALUES)


def test_missing_numbers_become_nan() -> None:
    table = pd.DataFrame({"a": [1, None], "b": [2.5, 3.0]}).astype({"a": "Int64"})
    np.testing.assert_array_equal(_open(table), [[1, 2.5], [np.nan, 3]])
    np.testing.assert_array_equal(_open(np.array([[1, None], [2, 3]], dtype=object)), [[1, np.nan], [2, 3]])
    np.testing.assert_array_equal(_open(np.ma.masked_equal(np.array([[1, 2], [3, 4]]), 2)), [[1, np.nan], [3, 4]])


def test_float16_sums_do_not_overflow() -> None:
    """105,000 counts a spot: the sum of float16 is infinite."""
    raw = np.full((2, 150), 700, dtype=np.float16)
    assert np.isinf(raw.sum(axis=1)).all()
    np.testing.assert_array_equal(_open(raw).sum(axis=1), [105_000, 105_000])
    np.testing.assert_array_equal(_open(sparse.csr_matrix(raw.astype(np.float32))).sum(axis=1).A1, [105_000, 105_000])


def test_entries_stored_twice_are_summed_and_the_given_matrix_stays() -> None:
    raw = sparse.csr_matrix((np.ones(3), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    found = _open(raw)
    np.testing.assert_array_equal(found.toarray(), [[0, 2], [1, 0]])
    assert found.nnz == 2
    assert raw.nnz == 3


def test_nothing_is_written_into_the_given_array() -> None:
    for own in (True, False):
        raw = VALUES.astype(np.float32)
        values = dense_matrix(raw, argument="layer", where="adata.X", own=own)
        assert np.shares_memory(values, raw) is (not own)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "`layer`: `adata.X` is empty"),
        (np.ones(3), r"two dimensions.*shape \(3,\)"),
        (np.ones((2, 0)), r"shape \(2, 0\)"),
        (np.array([["a", "b"]]), "numeric array"),
        (np.array([["a", 1]], dtype=object), "Python objects that are no numbers"),
        (np.ones((2, 2), dtype=complex), "complex128"),
        (pd.DataFrame({"a": [1.0], "b": ["x"]}), r"columns \['b'\] of `adata.X` hold no numbers"),
        ([[1, 2], [3, 4]], "is a list, which is not known here"),
    ],
)
def test_what_cannot_be_opened(raw: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _open(raw)
