"""What of a command can be checked before anything is imported, read or trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_OF_A_MODEL = {"model.json", "model.safetensors", "adata.h5ad", "mdata.h5mu"}
"""Files in the folder of a saved model."""
SUFFIXES = (".h5ad", ".h5mu", ".zarr")


def check_paths(inputs: list[Path], output: Path | None, save_model: Path | None, *, overwrite: bool) -> None:
    """Check what a command reads (the input, and what it predicts if that is another) and what it writes."""
    for argument, path in zip(("input", "predict"), inputs, strict=False):
        check_input(path, argument=argument)
    if output is not None:
        check_output(output, inputs, overwrite=overwrite)
    if save_model is not None:
        check_model_folder(save_model, overwrite=overwrite)
        others = [path.resolve() for path in (*inputs, output) if path is not None]
        own = save_model.resolve()
        if any(own.is_relative_to(other) or other.is_relative_to(own) for other in others):
            raise ValueError(
                f"`save_model`: '{save_model}' and the input or output lie within each other. Choose another."
            )


def check_loading(load_model: Path | None, given: Mapping[str, Any]) -> None:
    """Raise unless `load_model` is a folder, and nothing that only training has a use for is given beside it."""
    if load_model is None:
        return
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise ValueError(f"`{unused[0]}` is of training, but `load_model` names a trained model. Leave one out.")
    if not load_model.is_dir():
        raise FileNotFoundError(f"`load_model`: no such folder '{load_model}'.")


def check_input(path: Path, *, argument: str = "input") -> None:
    """Raise unless there is a slice at `path`, going by its name."""
    if not path.exists():
        raise FileNotFoundError(f"`{argument}`: no such file '{path}'.")
    if path.suffix not in SUFFIXES:
        from stomics_tools.datasets._read import reader_hint

        raise ValueError(
            f"`{argument}` must be an h5ad or h5mu file or a zarr folder, found '{path}'.{reader_hint(path)}"
        )


def check_output(path: Path, inputs: list[Path], *, overwrite: bool, argument: str = "output") -> None:
    """Raise if `path` cannot be written, is there already and may not be replaced, or shares a folder with an input."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`{argument}` must end in .h5ad, .h5mu or .zarr, found '{path}'.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`{argument}`: no such folder '{path.parent}'. Make it first.")
    check_permission(path.parent, argument)
    own = path.resolve()
    for other in (input.resolve() for input in inputs):
        if own != other and (own.is_relative_to(other) or other.is_relative_to(own)):
            raise ValueError(f"`{argument}`: '{path}' and the input '{other}' lie within each other. Choose another.")
    if not path.exists():
        return
    if not overwrite:
        what = "is the input" if own in [input.resolve() for input in inputs] else "exists"
        raise FileExistsError(f"`{argument}`: '{path}' {what}. Choose another name, or replace it by `--overwrite`.")
    is_zarr = any((path / name).is_file() for name in ("zarr.json", ".zgroup"))
    if path.suffix == ".zarr" and not is_zarr:
        raise ValueError(f"`{argument}`: '{path}' is no zarr folder and is not replaced. Choose another name.")
    if path.suffix != ".zarr" and not path.is_file():
        raise ValueError(f"`{argument}`: '{path}' is a folder and is not replaced. Choose another name.")


def check_permission(folder: Path, argument: str) -> None:
    """Raise ``PermissionError`` unless files can be made in `folder`, or in the nearest folder above it that exists."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise PermissionError(f"`{argument}`: nothing can be written in '{there}'. Choose another folder.")


def check_model_folder(path: Path, *, overwrite: bool, argument: str = "save_model") -> None:
    """Raise if a model cannot be saved to the folder `path`."""
    check_permission(path.parent, argument)
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(f"`{argument}`: '{path}' exists. Choose another name, or replace it by `--overwrite`.")
    if not path.is_dir() or {part.name for part in path.iterdir()} - _OF_A_MODEL:
        raise FileExistsError(f"`{argument}`: '{path}' is not the folder of a saved model. Choose another name.")


def check_numbers(*, n_domains: int | None = None, max_epochs: int | None = None, seed: int = 0) -> None:
    """Raise unless there are at least two domains and one epoch, and the seed is not negative."""
    from stomics_tools._validate import check_integer

    for argument, value, minimum in (("n_domains", n_domains, 2), ("max_epochs", max_epochs, 1), ("seed", seed, 0)):
        if value is not None:
            check_integer(value, argument=argument, minimum=minimum)
