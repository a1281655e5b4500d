"""One function that opens whatever file a slice is kept in."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import mudata as md
import zarr
from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given

_SUFFIXES = (".h5ad", ".h5mu", ".zarr")


def read_slice(path: str | Path) -> AnnData | MuData:
    """Read a slice from a file.

    Parameters
    ----------
    path
        A file ending in ``.h5ad`` or ``.h5mu``, or a folder ending in ``.zarr`` that holds either object.

    Returns
    -------
    The object in memory.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If the suffix is another one, or the file cannot be read as what its suffix says.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"`path`: the suffix of '{path}' is none of {list(_SUFFIXES)}, found {path.suffix!r}.")
    if not path.exists():
        raise FileNotFoundError(f"`path`: no such file '{path}'.")
    try:
        with columns_as_given():
            return _read(path)
    # What a damaged file raises depends on where the damage is.
    except Exception as error:
        raise ValueError(
            f"`path`: '{path}' cannot be read as a {path.suffix} file; it may be truncated or of another format. "
            f"({type(error).__name__}: {error})"
        ) from error


def _read(path: Path) -> AnnData | MuData:
    if path.suffix == ".h5ad":
        return ad.read_h5ad(path)
    if path.suffix == ".h5mu":
        mdata = md.read_h5mu(path)
        if not mdata.mod:
            raise ValueError("it holds no modality")
        return mdata
    attrs = zarr.open_group(str(path), mode="r").attrs
    if "spatialdata_attrs" in attrs:
        raise ValueError(
            "it holds a SpatialData: `spatialdata.read_zarr` reads it, `datasets.from_spatialdata` its table"
        )
    if attrs.get("encoding-type") == "MuData":
        return md.read_zarr(path)
    return ad.read_zarr(path)
