"""Saved models: safetensors and JSON in a folder, written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import anndata
import mudata
import numpy as np
from anndata import AnnData
from mudata import MuData
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, from_numpy

from stomics_tools._compat import columns_as_given, writing
from stomics_tools._params import plain
from stomics_tools._paths import replacing, standing, user_path

FORMAT = 2
_TENSORS = "model.safetensors"
_META = "model.json"
_ARRAY = "stomics_tools.array."  # names of the tensors that belong to the description
_ADATA, _MDATA = "adata.h5ad", "mdata.h5mu"
_NAMES = (_TENSORS, _META, _ADATA, _MDATA)


def write_model(
    folder: str | Path,
    tensors: dict[str, Tensor],
    meta: dict[str, Any],
    *,
    overwrite: bool,
    data: AnnData | MuData | None = None,
) -> None:
    """Write a model, and `data` beside it; until all is on disk, a model that was there before stays there.

    Raises
    ------
    FileExistsError
        If `folder` exists and `overwrite` is false, or if it holds anything else than a saved model.
    """
    folder = user_path(folder)
    before = standing(folder)
    if before.exists():
        if not overwrite:
            raise FileExistsError(f"`dir_path`: {str(folder)!r} exists. Choose another or set `overwrite=True`.")
        strangers = [p.name for p in before.iterdir() if p.name not in _NAMES] if before.is_dir() else ["."]
        if strangers:
            raise FileExistsError(f"`dir_path`: {str(folder)!r} holds other files ({strangers[:3]}). Choose another.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as part:
        part.mkdir()
        arrays: dict[str, Tensor] = {}
        meta = plain(_take_arrays(meta, arrays))
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file({**tensors, **arrays}, part / _TENSORS)
        content = {**meta, "format": FORMAT, "sha256": _hash(part / _TENSORS)}
        (part / _META).write_text(json.dumps(content, indent=1))
        if data is not None:
            _write_data(data, part)


def _write_data(data: AnnData | MuData, folder: Path) -> None:
    """Write an object; one that lies in a file of its own stays with that file."""
    with columns_as_given(), writing():
        if isinstance(data, MuData):
            data.write_h5mu(folder / _MDATA)
        else:
            (data.to_memory() if data.isbacked else data).write_h5ad(folder / _ADATA)


def read_data(folder: str | Path) -> AnnData | MuData | None:
    """Object that was saved with a model, or None."""
    folder = standing(user_path(folder))
    if (folder / _MDATA).is_file():
        with columns_as_given():
            return mudata.read_h5mu(folder / _MDATA)
    return anndata.read_h5ad(folder / _ADATA) if (folder / _ADATA).is_file() else None


def read_meta(folder: str | Path) -> dict[str, Any]:
    """Description of a saved model, without its tensors; see :func:`read_model` for the errors."""
    folder = standing(user_path(folder))
    for name in (_META, _TENSORS):
        if not (folder / name).is_file():
            foreign = " It holds a model of scvi-tools, which only that package reads." if _is_foreign(folder) else ""
            raise FileNotFoundError(
                f"`dir_path`: no {name} in {str(folder)!r}. Is this the folder of a saved model?{foreign}"
            )
    try:
        meta = json.loads((folder / _META).read_text())
        version, _ = meta["format"], meta["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`dir_path`: {str(folder / _META)!r} is damaged ({error}).") from error
    if version != FORMAT:
        raise ValueError(
            f"`dir_path`: {str(folder)!r} has format {version}, this version reads {FORMAT}. "
            f"It was written by stomics-tools {meta.get('version')}: use that version, or train again."
        )
    return meta


def read_model(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_model` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no saved model.
    ValueError
        If a file is truncated or corrupt, or of a format this version does not know.
    """
    meta = read_meta(folder)
    folder = standing(user_path(folder))
    if _hash(folder / _TENSORS) != meta["sha256"]:
        raise ValueError(f"`dir_path`: {str(folder / _TENSORS)!r} is truncated or was changed after it was saved.")
    try:
        tensors = load_file(folder / _TENSORS)
    except SafetensorError as error:
        raise ValueError(f"`dir_path`: {str(folder / _TENSORS)!r} is damaged ({error}).") from error
    arrays = {name: tensors.pop(name).numpy() for name in list(tensors) if name.startswith(_ARRAY)}
    return tensors, _put_arrays(meta, arrays)


def _take_arrays(meta: Any, arrays: dict[str, Tensor]) -> Any:
    """The description with the name of a tensor for each array of numpy; the tensors are added to `arrays`."""
    if isinstance(meta, dict):
        return {name: _take_arrays(value, arrays) for name, value in meta.items()}
    if isinstance(meta, np.ndarray):
        name = f"{_ARRAY}{len(arrays)}"
        arrays[name] = from_numpy(np.array(meta))  # a copy, since safetensors refuses memory that two share
        return name
    return meta


def _put_arrays(meta: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The description with its arrays."""
    if isinstance(meta, dict):
        return {name: _put_arrays(value, arrays) for name, value in meta.items()}
    return arrays.get(meta, meta) if isinstance(meta, str) else meta


def _is_foreign(folder: Path) -> bool:
    return (folder / "model.pt").is_file()


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
