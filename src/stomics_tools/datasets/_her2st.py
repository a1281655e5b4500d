"""Loader of the HER2-positive breast tumours of Andersson et al."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools.datasets._sections import check_files, check_folder, choose, join_sections

_SOURCE = {
    "citation": "Andersson et al., Nature Communications 12, 6012 (2021), doi:10.1038/s41467-021-26271-2",
    "doi": "10.5281/zenodo.4751624",
    "licence": "CC-BY-4.0",
}
_HINT = (
    f"HER2ST can be had from doi:{_SOURCE['doi']} ({_SOURCE['licence']}; files are encrypted, the passwords are in the "
    "readme of https://github.com/almaan/her2st) or from the folder 'data' of that repository."
)


@dataclass(frozen=True)
class _Layout:
    """Folders of the files, in which a section ``A1`` of patient ``A`` is found."""

    counts: str
    spots: str
    labels: str
    image: str


_LAYOUTS = (
    _Layout("count-matrices", "spot-selections", "meta", "images/HE/{section}.jpg"),
    _Layout("ST-cnts", "ST-spotfiles", "ST-pat/lbl", "ST-imgs/{patient}/{section}/*.jpg"),
)


def her2st(folder: str | Path, *, sections: Sequence[str] | None = None) -> AnnData:
    """HER2-positive breast tumours, 36 sections of 8 patients (A to H) with images, from a local folder.

    Spatial Transcriptomics with spots of 100 µm, 200 µm apart. Nothing is downloaded: the files
    (`doi:10.5281/zenodo.4751624 <https://doi.org/10.5281/zenodo.4751624>`_, CC-BY-4.0) are read as they are in the
    archive, or in the folder ``data`` of the `repository <https://github.com/almaan/her2st>`_. The latter's files were
    checked to be as described here; for the archive that holds of the names only.

    =============  ============================================  =============================================
    what           archive                                       repository
    =============  ============================================  =============================================
    counts         ``count-matrices/A1.tsv``                     ``ST-cnts/A1.tsv``
    places         ``spot-selections/A1_selection.tsv``          ``ST-spotfiles/A1_selection.tsv``
    labels         ``meta/A1_labeled_coordinates.tsv``           ``ST-pat/lbl/A1_labeled_coordinates.tsv``
    image          ``images/HE/A1.jpg``                          ``ST-imgs/A/A1/*.jpg``
    =============  ============================================  =============================================

    Tables may be compressed (``.tsv.gz``). Labels and images need not be there.

    Parameters
    ----------
    folder
        Folder that holds these folders.
    sections
        Names of sections such as ``["A1", "B1"]``. Default: all that there are counts of.

    Returns
    -------
    An :class:`~anndata.AnnData` of the spots that have both counts and a place, with

    ``X``
        Counts of the genes of any of these sections, float32 CSR; zero where a section's file leaves a gene out.
    ``obs["patient"]``, ``obs["section"]``, ``obs["pathology"]``
        Categorical; the pathologist's labels are those of one section a patient, and only there if a file is.
    ``obs["array_x"]``, ``obs["array_y"]``
        Place on the array.
    ``obsm["spatial"]``
        Pixels (x, y) of the image of the section, float64.
    ``uns["her2st"]["images"]``
        Section to the path of its image, for :func:`~stomics_tools.pp.patch_features`.
    ``uns["source"]``
        Citation and licence.

    Raises
    ------
    FileNotFoundError
        If a folder or file is not there; the message says what was looked for and where it can be had.
    ValueError
        If a section is unknown or the two tables of a section have no spot in common.

    References
    ----------
    Andersson et al., Nature Communications 12, 6012 (2021).
    """
    folder = check_folder(folder)
    layout = next((layout for layout in _LAYOUTS if (folder / layout.counts).is_dir()), None)
    if layout is None:
        looked_for = [layout.counts for layout in _LAYOUTS]
        raise FileNotFoundError(f"`folder`: '{folder}' has none of the folders {looked_for}. {_HINT}")
    found = sorted({path.name.split(".")[0] for path in (folder / layout.counts).glob("*.tsv*")})
    if not found:
        raise FileNotFoundError(f"`folder`: there is no '*.tsv' or '*.tsv.gz' in '{folder / layout.counts}'. {_HINT}")
    names = choose(sections, found, argument="sections")
    places = {name: _table(folder / layout.spots / f"{name}_selection.tsv") for name in names}
    check_files(folder, [path.relative_to(folder) for path in places.values()], hint=_HINT)

    parts, images = {}, {}
    for name in names:
        labels = _table(folder / layout.labels / f"{name}_labeled_coordinates.tsv")
        parts[name] = _read_section(_table(folder / layout.counts / f"{name}.tsv"), places[name], labels)
        pictures = sorted(folder.glob(layout.image.format(section=name, patient=name[0])))
        if pictures:
            images[name] = str(pictures[0])
    adata = join_sections(parts, {name: name[0] for name in names}, genes="outer")
    if "pathology" in adata.obs:
        adata.obs["pathology"] = pd.Categorical(adata.obs["pathology"])
    without = [name for name in names if name not in images]
    if without:
        logg.info(f"no image found of the sections {without}")
    adata.uns["her2st"] = {"images": images}
    adata.uns["source"] = dict(_SOURCE)
    return adata


def _table(path: Path) -> Path:
    """The compressed file where only that exists."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


def _read_section(counts_file: Path, places_file: Path, labels_file: Path) -> AnnData:
    counts = pd.read_csv(counts_file, sep="\t", index_col=0)
    places = pd.read_csv(places_file, sep="\t")
    places = places[places["selected"] == 1] if "selected" in places else places
    places.index = _spot_names(places["x"], places["y"])
    shared = counts.index[counts.index.isin(places.index)]
    if not len(shared):
        raise ValueError(
            f"`folder`: '{counts_file}' and '{places_file}' have no spot in common: the first names them "
            f"{counts.index[:2].tolist()}, the second {places.index[:2].tolist()}."
        )
    places = places.loc[shared]
    adata = AnnData(
        sparse.csr_matrix(counts.loc[shared].to_numpy(dtype=np.float32)),
        obs=pd.DataFrame({"array_x": places["x"], "array_y": places["y"]}, index=shared),
        var=pd.DataFrame(index=counts.columns),
        obsm={_keys.SPATIAL: places[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float64)},
    )
    if labels_file.exists():
        labels = pd.read_csv(labels_file, sep="\t").dropna(subset=["x", "y"])
        # Their coordinates are measured, with a fraction; their pixels are those of another image.
        labels.index = _spot_names(labels["x"].round().astype(int), labels["y"].round().astype(int))
        adata.obs["pathology"] = labels["label"].reindex(shared)
    return adata


def _spot_names(x: pd.Series, y: pd.Series) -> pd.Index:
    return pd.Index(x.astype(str) + "x" + y.astype(str))
