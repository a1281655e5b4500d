"""The one place where a matrix of an AnnData is opened, whatever holds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import sparse

from stomics_tools import _validate


def open_matrix(raw: Any, *, argument: str, where: str) -> Any:
    """Return the values of a matrix, in memory: dense, or CSR where they are sparse.

    Taken are NumPy arrays, all sparse matrices and arrays of SciPy, DataFrames (nullable columns too), torch tensors,
    Dask arrays of dense or sparse chunks, arrays backed by an h5ad or zarr file, and what
    ``anndata.experimental.read_lazy`` gives. The last four are read into memory as a whole.

    Parameters
    ----------
    raw
        The matrix, ``(n_obs, n_features)``.
    argument, where
        The argument that named it, and where it lies: for messages.

    Returns
    -------
    An ``np.ndarray`` or ``scipy.sparse.csr_matrix``, which may share memory with `raw`: not to be written. float16 becomes float32, since sums overflow in
    it; bool becomes float32; other integers and floats stay as they are. Stored entries of a CSR matrix are summed up
    and sorted.

    Raises
    ------
    ValueError
        If there is nothing, no two dimensions, no number, or no matrix that is known here.
    """
    if raw is None:
        raise ValueError(f"`{argument}`: `{where}` is empty.")
    values = _in_memory(raw, argument, where)
    if values.dtype == object and not sparse.issparse(values):
        values = _numbers(values, argument, where)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "iufb":
        raise ValueError(
            f"`{argument}`: `{where}` must be a numeric array with two dimensions that holds values, "
            f"found shape {values.shape} and dtype {values.dtype}."
        )
    if values.dtype.kind == "b" or values.dtype == np.float16:
        values = values.astype(np.float32)
    elif values.dtype.itemsize > 8:  # long double, which neither SciPy nor torch takes
        values = values.astype(np.float64)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return _canonical(values) if sparse.issparse(values) else values


def dense_matrix(raw: Any, *, argument: str, where: str, own: bool = True) -> np.ndarray:
    """Return any matrix that :func:`open_matrix` takes as a dense float32 array.

    It is an array of its own. Without `own` it may be `raw` itself, which must then not be written.

    Raises ``ValueError`` as :func:`open_matrix` does. Values too large for float32 become infinite.
    """
    return to_dense(open_matrix(raw, argument=argument, where=where), own=own)


@np.errstate(over="ignore")
def to_dense(values: Any, *, own: bool = True) -> np.ndarray:
    """Return what :func:`open_matrix` gave as a dense float32 array, see :func:`dense_matrix`."""
    if sparse.issparse(values):
        values = values.toarray()  # (n_obs, n_features), as models take it
        own = False
    return np.array(values, dtype=np.float32, order="C", copy=True if own else None)


def expression_matrix(adata: AnnData, layer: str | None) -> tuple[Any, str]:
    """Return ``X`` or a layer as :func:`open_matrix` does, and its name in messages.

    Raises ``KeyError`` if there is no such layer, ``ValueError`` if it cannot be opened.
    """
    if layer is None:
        if adata.X is None:
            raise ValueError("`layer`: `adata.X` is empty. Name the layer that holds the expression.")
        return open_matrix(adata.X, argument="layer", where="adata.X"), "adata.X"
    keys = [key for key in adata.layers if key is not None]  # anndata 0.13 lists X as None
    _validate.check_key(layer, keys, argument="layer", where="adata.layers")
    where = f"adata.layers[{layer!r}]"
    return open_matrix(adata.layers[layer], argument="layer", where=where), where


def first_row(adata: AnnData, rows: np.ndarray) -> str:
    """The first of the masked rows, in words."""
    row = int(np.flatnonzero(rows)[0])
    return f"row {row}, {adata.obs_names[row]!r}"


def _in_memory(raw: Any, argument: str, where: str) -> Any:
    """A NumPy array, or a sparse matrix of SciPy."""
    if hasattr(raw, "to_memory"):  # sparse or a table, backed by a file
        raw = raw.to_memory()
    if hasattr(raw, "compute"):  # lazy
        raw = raw.compute()
    if isinstance(raw, pd.DataFrame):
        text = [name for name, kind in raw.dtypes.items() if not (is_numeric_dtype(kind) or is_bool_dtype(kind))]
        if text:
            raise ValueError(f"`{argument}`: columns {text[:5]} of `{where}` hold no numbers. Drop them.")
        return raw.to_numpy(dtype=np.float64, na_value=np.nan)
    if hasattr(raw, "detach"):  # a tensor
        raw = raw.detach().cpu().numpy()
    if isinstance(raw, np.ma.MaskedArray):
        return np.ma.filled(raw.astype(np.result_type(raw.dtype, np.float32)), np.nan)
    if isinstance(raw, np.ndarray):
        return np.asarray(raw)
    if sparse.issparse(raw):
        return raw
    if hasattr(raw, "shape") and hasattr(raw, "dtype") and hasattr(raw, "__getitem__"):
        return np.asarray(raw[...])  # dense and backed by a file
    raise ValueError(
        f"`{argument}`: `{where}` is a {type(raw).__name__}, which is not known here. Store a NumPy array, "
        "a sparse matrix of SciPy or a DataFrame there."
    )


def _numbers(values: np.ndarray, argument: str, where: str) -> np.ndarray:
    """Numbers of an array of Python objects, NaN where one is missing."""
    try:
        return np.where(pd.isna(values), np.nan, values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}`: `{where}` holds Python objects that are no numbers ({error}). Store an array of numbers."
        ) from error


def _canonical(values: Any) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(values)
    if not matrix.has_canonical_format:
        matrix = matrix.copy() if matrix is values or np.shares_memory(matrix.data, values.data) else matrix
        matrix.sum_duplicates()
    return matrix
