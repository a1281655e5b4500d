"""Folders of data: train.h5ad, test.h5ad, and in them where things lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

RECORD = "stomics_diffusion"
"""Key in ``uns`` of the arguments of ``setup_anndata``."""

_HINT = "Write it by `stomics diffusion preprocess`"


def read_object(path: Path, *, argument: str) -> AnnData:
    """Read one AnnData; the error names the argument that named the file."""
    from anndata import AnnData

    from stomics_tools.datasets import read_slice

    if not path.exists():
        raise FileNotFoundError(f"`{argument}`: no such file '{path}'.")
    adata = read_slice(path)
    if not isinstance(adata, AnnData):
        raise ValueError(f"`{argument}`: '{path}' holds several modalities. Write that of the genes as an h5ad file.")
    return adata


def read_part(data_dir: Path, part: str) -> AnnData:
    """The cells of ``"train"`` or ``"test"``."""
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`data_dir`: no such folder '{data_dir}'. {_HINT}.")
    if not (data_dir / f"{part}.h5ad").exists():
        how = " with `--test-batches`" if part == "test" else ""
        raise FileNotFoundError(f"`data_dir`: no {part}.h5ad in '{data_dir}'. {_HINT}{how}.")
    return read_object(data_dir / f"{part}.h5ad", argument="data_dir")


def setup_arguments(adata: AnnData, data_dir: Path) -> dict[str, Any]:
    """Arguments of ``setup_anndata``, as they were recorded."""
    if RECORD not in adata.uns:
        raise ValueError(f"`data_dir`: train.h5ad in '{data_dir}' has no `uns[{RECORD!r}]`. {_HINT}.")
    return {name: adata.uns[RECORD].get(name) for name in ("layer", "spatial_key", "batch_key")}
