"""Saved models: safetensors and JSON in a folder, written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, from_numpy

FORMAT = 1
_TENSORS = "model.safetensors"
_META = "model.json"
_ARRAY = "stomics_tools.array."  # names of the tensors that belong to the description


def write_model(folder: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any], *, overwrite: bool) -> None:
    """Write a model.

    Raises
    ------
    FileExistsError
        If `folder` exists and `overwrite` is false, or if it holds anything else than a saved model.
    """
    folder = Path(folder)
    if folder.exists():
        if not overwrite:
            raise FileExistsError(f"`dir_path`: {str(folder)!r} exists. Choose another or set `overwrite=True`.")
        strangers = [p.name for p in folder.iterdir() if p.name not in (_TENSORS, _META)] if folder.is_dir() else ["."]
        if strangers:
            raise FileExistsError(f"`dir_path`: {str(folder)!r} holds other files ({strangers[:3]}). Choose another.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        arrays: dict[str, Tensor] = {}
        meta = _take_arrays(meta, arrays)
        tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file({**tensors, **arrays}, partial / _TENSORS)
        content = {"format": FORMAT, "sha256": _hash(partial / _TENSORS), **meta}
        (partial / _META).write_text(json.dumps(content, indent=1, allow_nan=False))
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_model(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_model` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no saved model.
    ValueError
        If a file is truncated or corrupt, or of a format this version does not know.
    """
    folder = Path(folder)
    for name in (_META, _TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"`dir_path`: no {name} in {str(folder)!r}. Is this the folder of a saved model?")
    try:
        meta = json.loads((folder / _META).read_text())
        version, digest = meta["format"], meta["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`dir_path`: {str(folder / _META)!r} is damaged ({error}).") from error
    if version != FORMAT:
        raise ValueError(
            f"`dir_path`: {str(folder)!r} has format {version}, this version reads {FORMAT}. "
            f"It was written by stomics-tools {meta.get('version')}."
        )
    if _hash(folder / _TENSORS) != digest:
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


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
