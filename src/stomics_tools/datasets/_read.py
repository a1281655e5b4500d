"""One function that opens whatever file a slice is kept in."""

from __future__ import annotations

import logging
from pathlib import Path

import anndata as ad
import mudata as md
import zarr
from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given, plain_strings
from stomics_tools._paths import standing, user_path
from stomics_tools.data._feature_types import control_features

logger = logging.getLogger("stomics_tools")

_SUFFIXES = (".h5ad", ".h5mu", ".zarr")


def read_slice(path: str | Path) -> AnnData | MuData:
    """Read a slice from a file.

    Parameters
    ----------
    path
        A file ending in ``.h5ad`` or ``.h5mu``, or a folder ending in ``.zarr`` that holds either object. ``~`` stands
        for the folder of the user.

    Returns
    -------
    The object in memory, which every writer of this version of anndata can write again. Control features are kept,
    and a warning says so: :func:`~stomics_tools.pp.drop_controls` leaves them out.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If the suffix is another one, or the file cannot be read as what its suffix says. Of output of the vendors, the
        message names the reader.
    """
    data = read_file(path)
    controls = control_features(data)
    if controls:
        logger.warning("'%s' holds control features: %s. `pp.drop_controls` leaves them out.", path, controls)
    return data


def read_file(path: str | Path) -> AnnData | MuData:
    """What :func:`read_slice` does, without a word on control features."""
    path = standing(user_path(path))  # where a command was stopped while it replaced a folder, the old one
    if path.suffix not in _SUFFIXES:
        raise ValueError(
            f"`path`: the suffix of '{path}' is none of {list(_SUFFIXES)}, found {path.suffix!r}.{reader_hint(path)}"
        )
    if not path.exists():
        raise FileNotFoundError(f"`path`: no such file '{path}'.")
    try:
        with columns_as_given():
            data = _read(path)
            plain_strings(data)
            return data
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


_VENDORS = {
    "Xenium": ("cell_feature_matrix.h5", "cell_feature_matrix", "experiment.xenium", "cells.parquet", "cells.csv.gz"),
    "Visium HD": ("binned_outputs", "square_002um", "square_008um", "square_016um"),
    "Visium": ("spatial", "filtered_feature_bc_matrix.h5", "raw_feature_bc_matrix.h5", "filtered_feature_bc_matrix"),
    "Cell Ranger": ("matrix.mtx", "matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"),
    "MERSCOPE": ("cell_by_gene.csv", "cell_metadata.csv"),
    "CosMx": ("exprMat_file.csv", "metadata_file.csv", "fov_positions_file.csv"),
}
_READERS = {
    "Xenium": "`spatialdata_io.xenium(folder)`, then `stomics_tools.datasets.from_spatialdata`",
    "Visium HD": "`spatialdata_io.visium_hd(folder)`, then `stomics_tools.datasets.from_spatialdata`",
    "Visium": "`squidpy.read.visium(folder)`",
    "Cell Ranger": "`scanpy.read_10x_mtx(folder, gex_only=False)`",
    "MERSCOPE": "`squidpy.read.vizgen(...)` or `spatialdata_io.merscope(folder)`",
    "CosMx": "`squidpy.read.nanostring(...)` or `spatialdata_io.cosmx(folder)`",
}
_BY_SUFFIX = {
    ".h5": "`scanpy.read_10x_h5(path, gex_only=False)`, for output of 10x Genomics",
    ".loom": "`anndata.io.read_loom(path)`",
    ".csv": "`pandas.read_csv(path)`, then `anndata.AnnData(table)`",
    ".tsv": "`pandas.read_csv(path, sep='\\t')`, then `anndata.AnnData(table)`",
    ".txt": "`pandas.read_csv(path, sep='\\t')`, then `anndata.AnnData(table)`",
    ".mtx": "`scanpy.read_10x_mtx(folder, gex_only=False)`",
    ".gef": "`stereo.io.read_gef` of stereopy, which writes an AnnData by `stereo.io.stereo_to_anndata`",
    ".gem": "`stereo.io.read_gem` of stereopy, which writes an AnnData by `stereo.io.stereo_to_anndata`",
    ".rds": "`SeuratObject` in R, and a converter such as `anndataR`",
}


def reader_hint(path: Path) -> str:
    """Which reader opens what lies at a path that no reader of ours takes, as a sentence; "" if that is not known."""
    if path.is_dir():
        inside = {entry.name for entry in path.iterdir()}
        if "outs" in inside:
            path = path / "outs"
            inside = {entry.name for entry in path.iterdir()}
        for vendor, signs in _VENDORS.items():
            if any(name in inside or any(own.endswith(f"_{name}") for own in inside) for name in signs):
                return (
                    f" '{path}' looks like output of {vendor}: read it by {_READERS[vendor]}, and write an h5ad file."
                )
        return (
            " It is a folder: name a file in it. Output of vendors is read by `squidpy.read` or `spatialdata_io`, whose "
            "objects can be written as an h5ad file."
        )
    suffix = Path(path.stem).suffix + path.suffix if path.suffix == ".gz" else path.suffix
    reader = _BY_SUFFIX.get(suffix.lower().removesuffix(".gz"))
    return "" if reader is None else f" Such a file is read by {reader}; write the object as an h5ad file."
