"""Slices in files: which may be written, how they are read and written, and which of their modalities is meant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given
from stomics_tools._validate import check_key
from stomics_tools.cli._output import replacing
from stomics_tools.datasets import read_slice

if TYPE_CHECKING:
    from stomics_tools.model._base import SpatialModel


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
        return read_slice(path)


def check_fits(data: AnnData | MuData, output: Path) -> None:
    """Raise ``ValueError`` if `data` has several modalities and `output` can hold but one."""
    if isinstance(data, MuData) and output.suffix == ".h5ad":
        raise ValueError(
            f"`output`: an h5ad file holds one modality, the data have {list(data.mod)}. "
            f"Write them to '{output.with_suffix('.h5mu')}' or '{output.with_suffix('.zarr')}'."
        )


def write_output(data: AnnData | MuData, path: Path) -> None:
    """Write a slice whole or not at all, as what its suffix says; ``.zarr`` holds either kind of object."""
    with replacing(path) as part, columns_as_given():
        if path.suffix == ".zarr":
            data.write_zarr(part)
        elif isinstance(data, MuData):
            data.write_h5mu(part)
        else:
            data.write_h5ad(part)


def write_results(
    data: AnnData | MuData, model: SpatialModel, output: Path, save_model: Path | None, *, overwrite: bool
) -> str:
    """Write data, and the model if it is to be saved; the names of both."""
    write_output(data, output)
    if save_model is None:
        return str(output)
    model.save(save_model, overwrite=overwrite)
    return f"{output}, {save_model}"


def holder(data: AnnData | MuData, modality: str | None, output: Path) -> AnnData | MuData:
    """The object to be written: for an h5mu file, an AnnData in a MuData, as `modality` or else ``"rna"``."""
    if isinstance(data, MuData) or output.suffix != ".h5mu":
        return data
    with columns_as_given():
        return MuData({modality or "rna": data})


def one_modality(
    data: AnnData | MuData, modality: str | None, *, output: Path, spatial_key: str | None
) -> tuple[AnnData, AnnData | MuData]:
    """The modality that a model of one modality takes, and the object to be written, which holds it.

    Coordinates and columns that only the MuData has are added to the modality.

    Raises
    ------
    KeyError
        If there is no such modality.
    ValueError
        If there are several and none is named.
    """
    if isinstance(data, AnnData):
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
