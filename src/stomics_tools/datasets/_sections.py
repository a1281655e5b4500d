"""Sections that lie in a folder of files, one or more each, made one object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import anndata as ad
import pandas as pd
from anndata import AnnData

from stomics_tools._paths import user_path
from stomics_tools._validate import check_obs_names


def check_folder(folder: str | Path) -> Path:
    """Return `folder` as a path; ``FileNotFoundError`` unless it is there."""
    folder = user_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder`: there is no folder '{folder}'.")
    return folder


def check_files(folder: Path, wanted: Iterable[Path | str], *, hint: str) -> None:
    """Raise ``FileNotFoundError`` unless all `wanted` paths, relative to `folder`, are there."""
    absent = [str(path) for path in wanted if not (folder / path).exists()]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise FileNotFoundError(f"`folder`: '{folder}' lacks {absent[:5]}{more}. {hint}")


def choose(wanted: Sequence[str] | None, available: Sequence[str], *, argument: str) -> list[str]:
    """Return the names asked for, all if none are; raise unless all are `available` and none comes twice."""
    if wanted is None:
        return list(available)
    if isinstance(wanted, str):
        raise TypeError(f"`{argument}` must be a sequence of names, found the string {wanted!r}: write [{wanted!r}].")
    unknown = [name for name in wanted if name not in available]
    if unknown or not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"`{argument}` must name some of {list(available)}, each once, found {list(wanted)}"
            + (f" with the unknown {unknown}." if unknown else ".")
        )
    return list(wanted)


def join_sections(
    parts: Mapping[str, AnnData], patients: Mapping[str, str], *, genes: Literal["inner", "outer"]
) -> AnnData:
    """Join sections to one object, spots named ``<section>_<spot>``.

    Parameters
    ----------
    parts
        Section to object; its ``obs``, ``var_names`` and ``obsm["spatial"]`` are kept.
    patients
        Section to patient.
    genes
        Whether to keep the genes of all sections (``"inner"``) or of any, with zeros elsewhere (``"outer"``).

    Returns
    -------
    An object with categorical ``obs["patient"]`` and ``obs["section"]``.
    """
    for name, part in parts.items():
        part.var_names_make_unique()
        check_obs_names(part.obs_names, where=name)
        part.obs_names = [f"{name}_{spot}" for spot in part.obs_names]
        part.obs.insert(0, "patient", patients[name])
        part.obs.insert(1, "section", name)
    adata = ad.concat(list(parts.values()), join=genes, fill_value=0)
    for column in ("patient", "section"):
        adata.obs[column] = pd.Categorical(adata.obs[column])
    return adata
