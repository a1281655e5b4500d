"""Slices in files: which may be written, how they are read and written, and which of their modalities is meant."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, write_elem
from mudata import MuData
from scipy import sparse

from stomics_tools._compat import columns_as_given, writing
from stomics_tools._paths import replacing
from stomics_tools._validate import check_key, check_new_key
from stomics_tools.cli._features import Report, one_kind, usable_features
from stomics_tools.datasets._read import read_file

if TYPE_CHECKING:
    from stomics_tools.model._base import SpatialModel


_LARGE_TABLE = 50
"""Columns of a table that are tried in a zarr folder, where each is a folder of its own and takes its time."""


@contextmanager
def named(argument: str) -> Iterator[None]:
    """Within this context, an error about a path names the option that it was given by."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        message = str(error).replace("`path`", f"`{argument}`").replace("`dir_path`", f"`{argument}`")
        raise type(error)(message) from error


def read_input(path: Path, *, argument: str = "input") -> AnnData | MuData:
    """Read a slice; the error names the argument that named the file."""
    with named(argument):
        return read_file(path)


def check_fits(data: AnnData | MuData, output: Path) -> None:
    """Raise ``ValueError`` if `data` has several modalities and `output` can hold but one."""
    if isinstance(data, MuData) and output.suffix == ".h5ad":
        raise ValueError(
            f"`output`: an h5ad file holds one modality, the data have {list(data.mod)}. "
            f"Write them to '{output.with_suffix('.h5mu')}' or '{output.with_suffix('.zarr')}'."
        )


def check_writable(data: AnnData | MuData, path: Path, *, argument: str = "output") -> None:
    """Raise ``ValueError`` or ``OSError`` unless `data` can be written to `path` and read again.

    All tables and names are written to a file beside `path` and read, with empty matrices in place of the large ones,
    so that this takes little time whatever the size of the data; the file is removed.
    """
    free, needed = shutil.disk_usage(path.parent).free, _size(data)
    if needed > free:
        raise OSError(
            f"`{argument}`: the data take about {needed / 2**30:.1f} GiB, in '{path.parent}' {free / 2**30:.1f} GiB are "
            "free. Make room, or choose another folder."
        )
    trial = path.with_name(f".{path.stem}.{os.getpid()}.trial{path.suffix}")
    parts = {"data": data, **(data.mod if isinstance(data, MuData) else {})}
    try:
        with writing(), _store(trial) as store:
            for name, part in parts.items():
                outline = _outline(part, slow=path.suffix == ".zarr")
                write_elem(store, name, outline)
                _check_keys(outline, read_elem(store[name]))
    except Exception as error:
        slashes = [key for key in _keys_of(data) if "/" in key]
        why = " ".join([str(error), *(f"{note}." for note in getattr(error, "__notes__", []))])
        if slashes:
            why = f"A slash stands for a folder there: rename the keys {slashes[:5]}."
        elif "header message is too large" in why:
            why += " A table of more than about 4,000 columns does not fit: store it as an array."
        raise ValueError(
            f"`{argument}`: the data cannot be written as a {path.suffix} file and read again. {why}"
        ) from error
    finally:
        if trial.is_dir():
            shutil.rmtree(trial)
        else:
            trial.unlink(missing_ok=True)


def write_output(data: AnnData | MuData, path: Path) -> None:
    """Write a slice whole or not at all, as what its suffix says; ``.zarr`` holds either kind of object."""
    with replacing(path) as part, writing():
        if path.suffix == ".zarr":
            data.write_zarr(part)
        elif isinstance(data, MuData):
            data.write_h5mu(part)
        else:
            data.write_h5ad(part)


@contextmanager
def model_kept(
    model: SpatialModel, output: Path | None, save_model: Path | None, *, overwrite: bool = False
) -> Iterator[None]:
    """Save a trained model, if it is to be saved, before anything of the block can fail.

    If it is not, and the block fails, it is saved beside the output all the same. The error says where it is.
    """
    if save_model is not None:
        model.save(save_model, overwrite=overwrite)
    try:
        yield
    except Exception as error:
        where = save_model
        if where is None and output is not None:
            where = unused(output.with_name(f"{output.stem}_model"))
            try:
                model.save(where)
            except Exception:  # noqa: BLE001 - the first error is the one to be told
                where = None
        if where is not None:
            error.add_note(f"The trained model is in '{where}': go on from it by `--load-model`.")
        raise


def written(output: Path, save_model: Path | None) -> str:
    """The names of what was written."""
    return str(output) if save_model is None else f"{output}, {save_model}"


def unused(path: Path) -> Path:
    """The path, or with a number the first at which nothing is."""
    names = (path if i == 0 else path.with_name(f"{path.stem}_{i}{path.suffix}") for i in count())
    return next(name for name in names if not name.exists())


def _size(data: AnnData | MuData) -> int:
    """Bytes of the values, about."""
    parts = data.mod.values() if isinstance(data, MuData) else [data]
    return sum(part.__sizeof__() for part in parts)


@contextmanager
def _store(path: Path) -> Iterator[Any]:
    """An empty file, or folder, of the format that the suffix says."""
    if path.suffix == ".zarr":
        yield zarr.open_group(str(path), mode="w", zarr_format=anndata.settings.zarr_write_format)
    else:
        with h5py.File(path, "w") as file:
            yield file


def _outline(data: AnnData | MuData, *, slow: bool) -> AnnData:
    """An object with all names and tables, and empty matrices; of large tables a part, if they are `slow`."""
    result = AnnData(obs=data.obs, var=data.var, uns=data.uns)
    if isinstance(data, AnnData):
        empty = sparse.csr_matrix(data.shape, dtype=np.float32)
        result.layers.update({str(key): empty for key in data.layers if key is not None})
        if data.raw is not None:
            result.raw = AnnData(sparse.csr_matrix(data.raw.shape, dtype=np.float32), obs=data.obs, var=data.raw.var)
    for own, their in ((result.obsm, data.obsm), (result.varm, data.varm)):
        own.update({key: _outline_of(value, slow) for key, value in their.items()})
    for own, their in ((result.obsp, data.obsp), (result.varp, data.varp)):
        own.update({key: sparse.csr_matrix(value.shape, dtype=np.float32) for key, value in their.items()})
    return result


def _outline_of(value: Any, slow: bool) -> Any:
    """A table as it is, one column of zeros in place of a matrix."""
    if isinstance(value, pd.DataFrame) and slow and value.shape[1] > _LARGE_TABLE:
        slashes = [column for column in value if "/" in str(column)]
        return value[[*value.columns[:_LARGE_TABLE].difference(slashes), *slashes]]
    if isinstance(value, pd.DataFrame) or not hasattr(value, "dtype") or value.dtype == object or value.ndim < 2:
        return value
    return np.zeros((value.shape[0], 1), dtype=np.float32)


def _keys_of(data: AnnData | MuData) -> list[str]:
    parts = [data, *(data.mod.values() if isinstance(data, MuData) else [])]
    names = list(data.mod) if isinstance(data, MuData) else []  # of modalities, which are folders too
    for part in parts:
        for attribute in ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns"):
            mapping = getattr(part, attribute, None)
            names += [] if mapping is None else [str(key) for key in mapping]
        tables = [value for value in part.obsm.values() if isinstance(value, pd.DataFrame)]
        names += [str(column) for table in tables for column in table]
    return names


def _check_keys(data: AnnData | MuData, back: AnnData | MuData) -> None:
    """Raise ``ValueError`` if a key was lost."""
    lost = sorted(set(_keys_of(data)) - set(_keys_of(back)))
    if lost:
        raise ValueError(f"These keys are not read again: {lost[:5]}.")


def holder(data: AnnData | MuData, modality: str | None, output: Path) -> AnnData | MuData:
    """The object to be written: for an h5mu file, an AnnData in a MuData, as `modality` or else ``"rna"``."""
    if isinstance(data, MuData) or output.suffix != ".h5mu":
        return data
    check_new_key(modality or "rna", argument="modality")
    with columns_as_given():
        return MuData({modality or "rna": data})


def one_modality(
    data: AnnData | MuData,
    modality: str | None,
    *,
    output: Path,
    spatial_key: str | None,
    keep_controls: bool,
    report: Report,
) -> tuple[AnnData, AnnData | MuData]:
    """The modality that a model of one modality takes, and the object to be written, which holds it.

    Control features are left out of both, unless they are to be kept, and other kinds of features of an AnnData too.
    Coordinates and columns that only the MuData has are added to the modality.

    Raises
    ------
    KeyError
        If there is no such modality.
    ValueError
        If there are several and none is named.
    """
    data = usable_features(data, modality, keep_controls=keep_controls, report=report)
    if isinstance(data, AnnData):
        data = one_kind(data, modality, report)
        return data, holder(data, modality, output)
    if modality is None:
        if len(data.mod) > 1:
            raise ValueError(f"`modality`: the data have {list(data.mod)}, this model takes one. Name it.")
        modality = next(iter(data.mod))
    check_key(modality, data.mod, argument="modality", where="mdata.mod")
    adata = data.mod[modality]
    rows = data.obs_names.get_indexer(adata.obs_names)
    for name in data.obs.columns.difference(adata.obs.columns):
        adata.obs[name] = data.obs[name].iloc[rows]
    if spatial_key is not None and spatial_key in data.obsm and spatial_key not in adata.obsm:
        adata.obsm[spatial_key] = data.obsm[spatial_key][rows]
    return adata, adata if output.suffix == ".h5ad" else data
