"""Folders of data: train.h5ad, test.h5ad, and in them where things lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stomics_tools._validate import check_key

if TYPE_CHECKING:
    from anndata import AnnData

RECORD = "stomics_diffusion"
"""Key in ``uns`` of the arguments of ``setup_anndata``."""

_HINT = "Write it by `stomics diffusion preprocess`"


def read_object(
    path: Path,
    *,
    argument: str,
    modality: str | None = None,
    keep_controls: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> AnnData:
    """Read the genes of one AnnData; the error names the argument that named the file."""
    from anndata import AnnData

    from stomics_tools.cli._checks import check_input
    from stomics_tools.cli._features import one_kind, usable_features
    from stomics_tools.cli._files import read_input

    check_input(path, argument=argument)
    data = read_input(path, argument=argument)
    if not isinstance(data, AnnData):
        if modality is None:
            raise ValueError(
                f"`{argument}`: '{path}' holds several modalities. Name that of the genes by `--modality`, or write it "
                "as an h5ad file."
            )
        check_key(modality, data.mod, argument="modality", where="mdata.mod")
        data = data.mod[modality]
    adata = usable_features(data, modality, keep_controls=keep_controls, report=report)
    assert isinstance(adata, AnnData)
    return one_kind(adata, modality, report)


def read_folder(folder: Path, batch_key: str | None, **reading: Any) -> tuple[AnnData, str]:
    """All slices of a folder in one object, with the genes that all of them have, and the column that tells them apart.

    That is `batch_key`, where each file is one slice unless it has such a column; by default ``"slice"``, the name of
    the file.
    """
    import anndata as ad

    from stomics_tools.cli._checks import SUFFIXES

    paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if not paths:
        from stomics_tools.datasets._read import reader_hint

        raise ValueError(
            f"`input`: '{folder}' holds no file that ends in one of {list(SUFFIXES)}.{reader_hint(folder)}"
        )
    key = batch_key or "slice"
    report = reading.pop("report")
    parts = {}
    for path in paths:
        part = read_object(path, report=partial(_report_on, report, path.name), **reading)
        if batch_key is None or key not in part.obs:
            part.obs[key] = path.stem
        part.obs[key] = part.obs[key].astype(str)
        parts[path.stem] = part
    adata = ad.concat(parts, join="inner", index_unique="_")
    if not adata.n_vars:
        raise ValueError(f"`input`: the files {[path.name for path in paths]} have no gene in common.")
    fewer = {name: part.n_vars - adata.n_vars for name, part in parts.items() if part.n_vars > adata.n_vars}
    if fewer:
        report(f"genes that other files lack left out: {fewer}")
    lost = sorted({layer for part in parts.values() for layer in part.layers if layer} - set(adata.layers))
    if lost:
        report(f"layers that other files lack left out: {lost}")
    return adata, key


def _report_on(report: Callable[[str], None], name: str, line: str) -> None:
    report(f"{name}: {line}")


def read_part(data_dir: Path, part: str) -> AnnData:
    """The cells of ``"train"`` or ``"test"``."""
    if not data_dir.is_dir():
        raise FileNotFoundError(f"`data_dir`: no such folder '{data_dir}'. {_HINT}.")
    if not (data_dir / f"{part}.h5ad").exists():
        how = " with `--test-batches`" if part == "test" else ""
        raise FileNotFoundError(f"`data_dir`: no {part}.h5ad in '{data_dir}'. {_HINT}{how}.")
    return read_object(data_dir / f"{part}.h5ad", argument="data_dir", keep_controls=True)


def setup_arguments(adata: AnnData, data_dir: Path) -> dict[str, Any]:
    """Arguments of ``setup_anndata``, as they were recorded."""
    if RECORD not in adata.uns:
        raise ValueError(f"`data_dir`: train.h5ad in '{data_dir}' has no `uns[{RECORD!r}]`. {_HINT}.")
    record = adata.uns[RECORD]
    counts = record.get("counts")
    keys = {name: record.get(name) for name in ("layer", "spatial_key", "batch_key")}
    return {**keys, "counts": None if counts is None else bool(counts)}
