"""Loaders of public slices, from a local folder or downloaded once."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import cast

import pandas as pd
import pooch
from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg
from scanpy import settings

from stomics_tools import _keys
from stomics_tools._paths import user_path
from stomics_tools._validate import check_key, check_obs_names, check_option
from stomics_tools.datasets import _registry as registry
from stomics_tools.datasets._join import join
from stomics_tools.datasets._read import read_slice
from stomics_tools.datasets._registry import PublicSlice


def human_lymph_node(path: str | Path | None = None, *, sample: str = "A1") -> MuData:
    """Human lymph node, Visium with RNA and 31 proteins.

    Without `path` the archive (672 MB, `doi:10.5281/zenodo.10362607 <https://doi.org/10.5281/zenodo.10362607>`_) is
    downloaded once, its checksum verified, and the files of this slice are kept in
    :attr:`scanpy.settings.datasetdir`.

    Parameters
    ----------
    path
        Folder that holds ``adata_RNA.h5ad`` and ``adata_ADT.h5ad``. If it also holds ``GT_labels.txt`` (sample A1;
        `doi:10.5281/zenodo.14591305 <https://doi.org/10.5281/zenodo.14591305>`_), these labels become
        ``obs["domain"]``.
    sample
        ``"A1"`` or ``"D1"``.

    Returns
    -------
    A :class:`~mudata.MuData` of ``"rna"`` and ``"protein"`` as published, with ``obsm["spatial"]`` in their unit.

    Raises
    ------
    FileNotFoundError
        If a file is in neither the folder nor the archive; the message says where it can be had.
    ValueError
        If `sample` is unknown, a file is damaged or the labels do not fit the spots.

    References
    ----------
    Long et al., Nature Methods 21, 1658 (2024).
    """
    check_option(sample, list(registry.HUMAN_LYMPH_NODE), argument="sample")
    return _load(registry.HUMAN_LYMPH_NODE[sample], path)


def mouse_brain(path: str | Path | None = None, *, assay: str = "ATAC") -> MuData:
    """Mouse brain at postnatal day 22, RNA with accessible chromatin or a histone mark.

    Files, download and errors as in :func:`human_lymph_node`.

    Parameters
    ----------
    path
        Folder that holds ``adata_RNA.h5ad`` and ``adata_peaks_normalized.h5ad``, and perhaps ``MB_cluster.txt``
        (assay ATAC), which becomes ``obs["domain"]``.
    assay
        ``"ATAC"``, ``"H3K4me3"``, ``"H3K27ac"`` or ``"H3K27me3"``.

    Returns
    -------
    A :class:`~mudata.MuData` of ``"rna"`` and ``"atac"`` or ``"histone"``.

    References
    ----------
    Zhang et al., Nature 616, 113 (2023).
    """
    check_option(assay, list(registry.MOUSE_BRAIN), argument="assay")
    return _load(registry.MOUSE_BRAIN[assay], path)


def mouse_spleen(path: str | Path | None = None, *, replicate: str = "1") -> MuData:
    """Mouse spleen, SPOTS with RNA and 21 proteins.

    Files, download and errors as in :func:`human_lymph_node`.

    Parameters
    ----------
    path
        Folder that holds ``adata_RNA.h5ad`` and ``adata_ADT.h5ad``.
    replicate
        ``"1"`` or ``"2"``.

    Returns
    -------
    A :class:`~mudata.MuData` of ``"rna"`` and ``"protein"``.

    References
    ----------
    Ben-Chetrit et al., Nature Biotechnology 41, 788 (2023).
    """
    check_option(replicate, list(registry.MOUSE_SPLEEN), argument="replicate")
    return _load(registry.MOUSE_SPLEEN[replicate], path)


def mouse_thymus(path: str | Path | None = None, *, section: str = "1") -> MuData:
    """Mouse thymus, Stereo-CITE-seq with RNA and proteins.

    Files, download and errors as in :func:`human_lymph_node`.

    Parameters
    ----------
    path
        Folder that holds ``adata_RNA.h5ad`` and ``adata_ADT.h5ad``.
    section
        ``"1"`` to ``"4"``.

    Returns
    -------
    A :class:`~mudata.MuData` of ``"rna"`` and ``"protein"``.

    References
    ----------
    Liao et al., bioRxiv (2023), doi:10.1101/2023.04.28.538364; Long et al., Nature Methods 21, 1658 (2024).
    """
    check_option(section, list(registry.MOUSE_THYMUS), argument="section")
    return _load(registry.MOUSE_THYMUS[section], path)


def _load(entry: PublicSlice, path: str | Path | None) -> MuData:
    folder = _download(entry) if path is None else user_path(path)
    absent = [file for file in entry.files.values() if not (folder / file).exists()]
    if absent:
        raise FileNotFoundError(
            f"`path`: '{folder}' lacks {absent}. They are in the folder {entry.folder!r} of {registry.ARCHIVE_URL} "
            f"(doi:{registry.ARCHIVE_DOI}): put them there, or leave out `path` to have them downloaded."
        )
    mods = {}
    for name, file in entry.files.items():
        mods[name] = cast(AnnData, read_slice(folder / file))
        check_key(_keys.SPATIAL, mods[name].obsm, argument="path", where=f"{file}: obsm")
        check_obs_names(mods[name].obs_names, where=file)
    _make_names_unique(mods)

    first, *others = mods.values()
    coordinates = pd.DataFrame(first.obsm[_keys.SPATIAL], index=first.obs_names)
    for other in others:
        if not other.obs_names.isin(first.obs_names).any():
            raise ValueError(f"`path`: the files {list(entry.files.values())} in '{folder}' have no spot in common.")
        coordinates = coordinates.combine_first(pd.DataFrame(other.obsm[_keys.SPATIAL], index=other.obs_names))
    obs = pd.DataFrame(index=coordinates.index)
    if entry.labels is not None:
        obs = _add_labels(obs, folder / entry.labels, first.obs_names)
    mdata = join(mods, obs, coordinates.to_numpy(dtype=float))
    mdata.uns["source"] = {"citation": entry.citation, "doi": registry.ARCHIVE_DOI, "folder": entry.folder}
    return mdata


def _make_names_unique(mods: dict[str, AnnData]) -> None:
    """Make feature names unique in and across modalities; one that repeats across gets its modality as a prefix."""
    taken: set[str] = set()
    for name, adata in mods.items():
        adata.var_names_make_unique()
        adata.var_names = [f"{name}:{v}" if v in taken else v for v in adata.var_names]
        taken.update(adata.var_names)


def _add_labels(obs: pd.DataFrame, file: Path, spots: pd.Index) -> pd.DataFrame:
    """Add the labels of `file`, one a line in the order of `spots`, if there is such a file."""
    if not file.exists():
        logg.info(f"no labels: '{file}' is not there, it can be had from doi:{registry.LABELS_DOI}")
        return obs
    labels = file.read_text(encoding="utf-8").split("\n")
    labels = [line.strip() for line in labels if line.strip()]
    if len(labels) != len(spots):
        raise ValueError(f"`path`: '{file}' has {len(labels)} labels for {len(spots)} spots; one a line is needed.")
    return obs.assign(**{_keys.TRUTH: pd.Series(labels, index=spots, dtype="category")})


def _download(entry: PublicSlice) -> Path:
    """Return the folder of the slice among scanpy's data sets, fetching the archive where a file is not there."""
    root = Path(settings.datasetdir)
    folder = root / entry.folder
    if all((folder / file).exists() for file in entry.files.values()):
        return folder
    url = registry.ARCHIVE_URL
    archive = pooch.retrieve(url, registry.ARCHIVE_HASH, fname=url.rsplit("/", 1)[1], path=root)
    with zipfile.ZipFile(archive) as zipped:
        for file in entry.files.values():
            wanted = f"/{entry.folder}/{file}"
            member = next((name for name in zipped.namelist() if f"/{name}".endswith(wanted)), None)
            if member is None:
                raise FileNotFoundError(
                    f"'{archive}' (doi:{registry.ARCHIVE_DOI}) holds no {wanted[1:]!r}. "
                    f"Give the folder with {list(entry.files.values())} as `path`."
                )
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f"{file}.part"  # so that an interrupted copy is never taken for the file
            with zipped.open(member) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target)
            part.replace(folder / file)
    return folder
