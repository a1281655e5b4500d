"""Loader of folders in the format of HEST-1k and of its benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._validate import check_key
from stomics_tools.datasets._read import read_slice
from stomics_tools.datasets._sections import check_files, check_folder, choose, join_sections

_LICENCE = "CC-BY-NC-SA-4.0"
_HINT = (
    f"HEST-1k is at https://huggingface.co/datasets/MahmoodLab/hest, the tasks of its benchmark at "
    f"https://huggingface.co/datasets/MahmoodLab/hest-bench ({_LICENCE}, on request)."
)
_TABLE = "HEST_v*.csv"


def hest(folder: str | Path, ids: Sequence[str] | None = None, *, task: str | None = None) -> AnnData:
    """Read samples of a local folder in the format of HEST-1k, or a task of its benchmark.

    Nothing is downloaded. HEST is under CC-BY-NC-SA 4.0, the samples under the licences of those who published them
    (``uns["source"]``). Files of a sample ``MEND145`` are

    - ``st/MEND145.h5ad``, in a task ``adata/MEND145.h5ad``: counts, and ``obsm["spatial"]`` in pixels of the slide;
    - ``patches/MEND145.h5`` (need not be there): an image around each spot, with its ``barcode``;
    - ``wsis/MEND145.tif`` (need not be there): the slide;
    - one table ``HEST_v*.csv`` of all samples, in `folder` or beside it, for patients, pixel sizes and licences.

    A task such as PRAD (prostate, 23 sections of 2 patients) has ``splits/train_0.csv``, ``splits/test_0.csv`` and so
    on, and genes in ``var_50genes.json``, which were chosen on all samples, those tested on included.

    Parameters
    ----------
    folder
        Folder of HEST-1k, of the benchmark, or of one task.
    ids
        Samples such as ``["MEND145", "MEND144"]``. Default: all of the task, or all that there are files of.
    task
        Name of a task: a folder in `folder`, or `folder` itself.

    Returns
    -------
    An :class:`~anndata.AnnData` of the genes that all samples have, in counts as stored, float32 CSR, with

    ``obs["patient"]``, ``obs["section"]``
        Categorical. The section is the id. Patients of several data sets are told apart by the title of theirs; where
        the table names none, all samples of a data set count as one patient.
    ``obs["patch"]``
        Row of the spot in the file of patches of its section, -1 without.
    ``obs["test_fold"]``
        With `task`: the number of the split in which the sample is tested on, -1 if in none.
    ``var["panel"]``
        With `task`: whether the gene is among those of the task.
    ``obsm["spatial"]``
        Pixels (x, y) of the slide, float64.
    ``uns["hest"]``
        Section to ``"images"`` and ``"patches"`` (paths, of those that are there), ``"pixel_size"`` in micrometres,
        ``"inter_spot_distance"`` in micrometres where known: what :func:`~stomics_tools.pp.patch_features` takes.
    ``uns["source"]``
        Licences and titles.

    Raises
    ------
    FileNotFoundError
        If a folder or file is not there; the message says what was looked for and where it can be had.
    KeyError
        If a file lacks ``obsm["spatial"]`` or the table a column.
    ValueError
        If an id is unknown, or samples have no gene in common.

    References
    ----------
    Jaume et al., HEST-1k, NeurIPS 2024, arXiv:2406.16192.
    """
    folder = check_folder(folder)
    if task is not None and folder.name != task:
        check_files(folder, [task], hint=f"`task` names a folder in it. {_HINT}")
        folder = folder / task
    test_fold = None if task is None else _test_folds(folder)
    counts = folder / ("st" if task is None else "adata")
    check_files(folder, [counts.name], hint=_HINT)
    available = sorted(path.stem for path in counts.glob("*.h5ad")) if test_fold is None else list(test_fold)
    names = choose(ids, available, argument="ids")
    check_files(folder, [f"{counts.name}/{name}.h5ad" for name in names], hint=_HINT)
    table = _metadata(folder, names)

    parts = {name: _read_sample(counts / f"{name}.h5ad", folder / "patches" / f"{name}.h5") for name in names}
    adata = join_sections(parts, _patients(table), genes="inner")
    if not adata.n_vars:
        raise ValueError(f"`ids`: the samples {names} have no gene in common. Read them one by one.")
    dropped = {name: part.n_vars - adata.n_vars for name, part in parts.items() if part.n_vars > adata.n_vars}
    if dropped:
        logg.info(f"genes left out since other samples lack them: {dropped}")
    if test_fold is not None:
        adata.obs["test_fold"] = adata.obs["section"].map(test_fold).astype(int)
        check_files(folder, ["var_50genes.json"], hint=_HINT)
        panel = json.loads((folder / "var_50genes.json").read_text(encoding="utf-8"))["genes"]
        adata.var["panel"] = adata.var_names.isin(panel)
    adata.uns["hest"] = {
        "images": _there(folder / "wsis", names, ".tif"),
        "patches": _there(folder / "patches", names, ".h5"),
        "pixel_size": table["pixel_size_um_estimated"].dropna().astype(float).to_dict(),
        "inter_spot_distance": table["inter_spot_dist"].dropna().astype(float).to_dict(),
    }
    adata.uns["source"] = {
        "citation": "Jaume et al., HEST-1k, NeurIPS 2024, arXiv:2406.16192",
        "licence": _LICENCE,
        "licences of the samples": table["license"].fillna("unknown").to_dict(),
        "titles": table["dataset_title"].to_dict(),
    }
    return adata


def _test_folds(folder: Path) -> dict[str, int]:
    """Sample to the number of the split that tests on it, -1 if none does."""
    check_files(folder, ["splits/train_0.csv", "splits/test_0.csv"], hint=_HINT)
    folds: dict[str, int] = {}
    for path in sorted((folder / "splits").glob("*_*.csv")):
        kind, number = path.stem.split("_", 1)
        for name in pd.read_csv(path)["sample_id"].astype(str):
            if kind == "test" and folds.get(name, -1) != -1:
                raise ValueError(f"`task`: sample {name!r} is tested on in splits {folds[name]} and {number}.")
            folds[name] = int(number) if kind == "test" else folds.get(name, -1)
    return dict(sorted(folds.items()))


def _metadata(folder: Path, names: list[str]) -> pd.DataFrame:
    """Rows of the newest table of samples, in the order of `names`."""
    places = (folder, folder.parent, folder.parent.parent)
    files = [path for place in places for path in sorted(place.glob(_TABLE), reverse=True)]
    if not files:
        raise FileNotFoundError(
            f"`folder`: there is no table {_TABLE!r} of patients in {[str(place) for place in places]}. {_HINT}"
        )
    table = pd.read_csv(files[0], encoding="utf-8-sig", dtype={"id": "string", "patient": "string"})
    columns = ("id", "patient", "dataset_title", "license", "pixel_size_um_estimated", "inter_spot_dist")
    for column in columns:
        check_key(column, table.columns, argument="folder", where=files[0].name)
    table = table.set_index("id")
    unknown = [name for name in names if name not in table.index]
    if unknown:
        raise ValueError(f"`ids`: the table '{files[0]}' has no rows for {unknown[:5]}; it may be of an older version.")
    return table.loc[names]


def _patients(table: pd.DataFrame) -> dict[str, str]:
    patients = table["patient"].str.strip().fillna("unknown patient")
    if table["dataset_title"].nunique() > 1:
        patients = table["dataset_title"].fillna("unknown title") + ": " + patients
    return cast("dict[str, str]", patients.to_dict())


def _there(folder: Path, names: list[str], suffix: str) -> dict[str, str]:
    paths = {name: folder / f"{name}{suffix}" for name in names}
    return {name: str(path) for name, path in paths.items() if path.exists()}


def _read_sample(file: Path, patches_file: Path) -> AnnData:
    full = cast(AnnData, read_slice(file))
    check_key(_keys.SPATIAL, full.obsm, argument="folder", where=f"{file.name}: obsm")
    adata = AnnData(
        sparse.csr_matrix(full.X, dtype=np.float32),
        obs=pd.DataFrame(index=full.obs_names.astype(str)),
        var=pd.DataFrame(index=full.var_names),
        obsm={_keys.SPATIAL: np.asarray(full.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]},
    )
    adata.obs["patch"] = -1
    if patches_file.exists():
        adata.obs["patch"] = _barcodes(patches_file).get_indexer(adata.obs_names)
    return adata


def _barcodes(file: Path) -> pd.Index:
    """Spots of the patches in a file, in its order."""
    with h5py.File(file) as patches:
        key = next((key for key in ("barcode", "barcodes") if key in patches), None)
        if key is None:
            raise KeyError(f"`folder`: '{file}' has no 'barcode'. Available keys: {list(patches)}.")
        values = np.asarray(patches[key]).ravel()
    return pd.Index([value.decode() if isinstance(value, bytes) else str(value) for value in values])
