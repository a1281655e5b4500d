"""What of a command can be checked before anything is imported, read or trained."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".h5ad", ".h5mu", ".zarr")


def check_paths(inputs: list[Path], output: Path | None, save_model: Path | None, *, overwrite: bool) -> None:
    """Check what a command reads (the input, and what it predicts if that is another) and what it writes."""
    for argument, path in zip(("input", "predict"), inputs, strict=False):
        check_input(path, argument=argument)
    if output is not None:
        check_output(output, inputs, overwrite=overwrite)
    if save_model is not None:
        check_model_folder(save_model, overwrite=overwrite)


def check_input(path: Path, *, argument: str = "input") -> None:
    """Raise unless there is a slice at `path`, going by its name."""
    if not path.exists():
        raise FileNotFoundError(f"`{argument}`: no such file '{path}'.")
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`{argument}` must be an h5ad or h5mu file or a zarr folder, found '{path}'.")


def check_output(path: Path, inputs: list[Path], *, overwrite: bool, argument: str = "output") -> None:
    """Raise if `path` cannot be written, is there already and may not be replaced, or shares a folder with an input."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"`{argument}` must end in .h5ad, .h5mu or .zarr, found '{path}'.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"`{argument}`: no such folder '{path.parent}'. Make it first.")
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


def check_model_folder(path: Path, *, overwrite: bool, argument: str = "save_model") -> None:
    """Raise if a model cannot be saved to the folder `path`."""
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(f"`{argument}`: '{path}' exists. Choose another name, or replace it by `--overwrite`.")
    if not path.is_dir() or {part.name for part in path.iterdir()} - {"model.json", "model.safetensors"}:
        raise FileExistsError(f"`{argument}`: '{path}' is not the folder of a saved model. Choose another name.")


def check_numbers(*, n_domains: int | None = None, max_epochs: int | None = None, seed: int = 0) -> None:
    """Raise unless there are at least two domains and one epoch, and the seed is not negative."""
    from stomics_tools._validate import check_integer

    for argument, value, minimum in (("n_domains", n_domains, 2), ("max_epochs", max_epochs, 1), ("seed", seed, 0)):
        if value is not None:
            check_integer(value, argument=argument, minimum=minimum)
