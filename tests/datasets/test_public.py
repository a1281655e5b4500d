from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from mudata import MuData

from stomics_tools import datasets
from stomics_tools.datasets import _registry as registry

LOADERS = [
    (datasets.human_lymph_node, {"sample": "D1"}, "Dataset12_Human_Lymph_Node_D1", ["rna", "protein"]),
    (datasets.mouse_brain, {}, "Dataset7_Mouse_Brain_ATAC", ["rna", "atac"]),
    (datasets.mouse_brain, {"assay": "H3K27me3"}, "Dataset10_Mouse_Brain_H3K27me3", ["rna", "histone"]),
    (datasets.mouse_spleen, {"replicate": "2"}, "Dataset2_Mouse_Spleen2", ["rna", "protein"]),
    (datasets.mouse_thymus, {"section": "4"}, "Dataset6_Mouse_Thymus4", ["rna", "protein"]),
]


def _adata(features: list[str], spots: list[str]) -> AnnData:
    adata = AnnData(np.arange(len(spots) * len(features), dtype=np.float32).reshape(len(spots), -1))
    adata.obs_names, adata.var_names = spots, features
    adata.obsm["spatial"] = np.array([[int(s[1:]), 0] for s in spots])
    return adata


def _write(folder: Path, second: str = "adata_ADT.h5ad") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names are not unique, on purpose
        _adata(["CD3E", "CD3E", "MS4A1"], ["s0", "s1", "s2"]).write_h5ad(folder / "adata_RNA.h5ad")
        _adata(["CD3E", "CD19"], ["s2", "s0", "s3"]).write_h5ad(folder / second)


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(*args: object, **kwargs: object) -> str:
        raise AssertionError("nothing may be downloaded here")

    monkeypatch.setattr("pooch.retrieve", retrieve)


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize(("loader", "kwargs", "folder", "names"), LOADERS)
def test_local_folder(
    tmp_path: Path, loader: Callable[..., MuData], kwargs: dict[str, str], folder: str, names: list[str]
) -> None:
    _write(tmp_path, "adata_peaks_normalized.h5ad" if loader is datasets.mouse_brain else "adata_ADT.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        mdata = loader(tmp_path, **kwargs)
    assert list(mdata.mod) == names
    assert mdata.uns["source"]["folder"] == folder
    assert mdata.uns["source"]["doi"] == "10.5281/zenodo.10362607"
    assert sorted(mdata.obs_names) == ["s0", "s1", "s2", "s3"]
    np.testing.assert_array_equal(mdata.obsm["spatial"][:, 0], [int(s[1:]) for s in mdata.obs_names])
    assert list(mdata["rna"].var_names) == ["CD3E", "CD3E-1", "MS4A1"]
    assert list(mdata[names[1]].var_names) == [f"{names[1]}:CD3E", "CD19"]
    assert "domain" not in mdata.obs


@pytest.mark.usefixtures("no_download")
def test_labels_beside_the_files(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "GT_labels.txt").write_text("cortex\npulp\ncortex\n")
    mdata = datasets.human_lymph_node(tmp_path)
    found = mdata.obs["domain"]
    assert found.dtype == "category"
    assert found.dropna().to_dict() == {"s0": "cortex", "s1": "pulp", "s2": "cortex"}
    assert found.isna()["s3"]


@pytest.mark.usefixtures("no_download")
def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "GT_labels.txt").write_text("cortex\npulp\n")
    with pytest.raises(ValueError, match=r"GT_labels.txt' has 2 labels for 3 spots"):
        datasets.human_lymph_node(tmp_path)


@pytest.mark.usefixtures("no_download")
def test_missing_file_says_where_it_can_be_had(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "adata_ADT.h5ad").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks \['adata_ADT.h5ad'\].*Dataset1_Mouse_Spleen1.*zenodo\.org.*doi:10\.5281"
    ):
        datasets.mouse_spleen(tmp_path)


@pytest.mark.usefixtures("no_download")
def test_disjoint_or_placeless_files(tmp_path: Path) -> None:
    _write(tmp_path)
    _adata(["CD19"], ["s8", "s9"]).write_h5ad(tmp_path / "adata_ADT.h5ad")
    with pytest.raises(ValueError, match="no spot in common"):
        datasets.mouse_thymus(tmp_path)
    placeless = _adata(["CD19"], ["s0", "s1"])
    del placeless.obsm["spatial"]
    placeless.write_h5ad(tmp_path / "adata_ADT.h5ad")
    with pytest.raises(KeyError, match="'spatial' not found in `adata_ADT.h5ad: obsm`"):
        datasets.mouse_thymus(tmp_path)


@pytest.mark.parametrize(
    ("loader", "kwargs"),
    [
        (datasets.human_lymph_node, {"sample": "B1"}),
        (datasets.mouse_brain, {"assay": "H3K27me"}),
        (datasets.mouse_spleen, {"replicate": "3"}),
        (datasets.mouse_thymus, {"section": 1}),
    ],
)
def test_unknown_slice(loader: Callable[..., MuData], kwargs: dict) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}`: unknown option .* Valid options"):
        loader(**kwargs)


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple]]:
    """Serve an archive of two slices in place of the network, and note what is asked for."""
    _write(tmp_path / "source" / "Dataset11_Human_Lymph_Node_A1")
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for file in (tmp_path / "source").rglob("*.h5ad"):
            zipped.write(file, Path("Data") / file.relative_to(tmp_path / "source"))
    calls: list[tuple] = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        calls.append((url, known_hash, fname, path))
        return str(archive)

    monkeypatch.setattr("pooch.retrieve", retrieve)
    before = sc.settings.datasetdir
    sc.settings.datasetdir = tmp_path / "cache"  # no plain attribute, hence monkeypatch cannot restore it
    yield calls
    sc.settings.datasetdir = before


def test_download_once_and_keep_the_files(tmp_path: Path, downloads: list[tuple]) -> None:
    first = datasets.human_lymph_node()
    url, known_hash, fname, path = downloads[0]
    assert (url, known_hash) == (registry.ARCHIVE_URL, registry.ARCHIVE_HASH)
    assert fname == "Data_SpatialGlue.zip"
    assert path == tmp_path / "cache"
    kept = sorted(p.name for p in (tmp_path / "cache" / "Dataset11_Human_Lymph_Node_A1").iterdir())
    assert kept == ["adata_ADT.h5ad", "adata_RNA.h5ad"]
    second = datasets.human_lymph_node()
    assert len(downloads) == 1
    np.testing.assert_array_equal(first["rna"].X, second["rna"].X)


def test_archive_without_the_slice(downloads: list[tuple]) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no 'Dataset3_Mouse_Thymus1/adata_RNA.h5ad'.*as `path`"):
        datasets.mouse_thymus()
    assert len(downloads) == 1
