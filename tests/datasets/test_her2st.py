from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad

from stomics_tools import datasets

ARCHIVE = ("count-matrices", "spot-selections", "meta")
REPOSITORY = ("ST-cnts", "ST-spotfiles", "ST-pat/lbl")


def _write(folder: Path, layout: tuple[str, str, str], *, packed: bool = False) -> None:
    """Two sections: spots 1x2, 3x4 and 9x9 with counts, of which the last has no place; 5x6 has a place only."""
    for name, genes in {"A1": ["ERBB2", "CD3E"], "B4": ["CD3E", "KRT5"]}.items():
        counts = pd.DataFrame([[1, 0], [2, 3], [7, 7]], index=["1x2", "3x4", "9x9"], columns=genes)
        places = pd.DataFrame(
            {"x": [3, 5, 1], "y": [4, 6, 2], "pixel_x": [30.5, 50.5, 10.5], "pixel_y": [40.5, 60.5, 20.5]}
        ).assign(selected=1)
        _write_table(counts, folder / layout[0] / f"{name}.tsv", packed=packed, index=True)
        _write_table(places, folder / layout[1] / f"{name}_selection.tsv", packed=packed)
    labels = pd.DataFrame({"x": [2.97, 1.02, None], "y": [4.04, 1.99, None], "label": ["cancer", "fat", "fat"]})
    _write_table(labels, folder / layout[2] / "A1_labeled_coordinates.tsv", packed=packed)


def _write_table(table: pd.DataFrame, path: Path, *, packed: bool, index: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(sep="\t", index=index)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@pytest.mark.parametrize(
    ("layout", "image"), [(ARCHIVE, "images/HE/A1.jpg"), (REPOSITORY, "ST-imgs/A/A1/9769_HE.jpg")], ids=str
)
@pytest.mark.parametrize("packed", [False, True])
def test_both_layouts(tmp_path: Path, layout: tuple[str, str, str], image: str, packed: bool) -> None:
    _write(tmp_path, layout, packed=packed)
    (tmp_path / image).parent.mkdir(parents=True)
    (tmp_path / image).touch()
    adata = datasets.her2st(tmp_path)
    assert adata.obs_names.tolist() == ["A1_1x2", "A1_3x4", "B4_1x2", "B4_3x4"]
    assert adata.obs["patient"].tolist() == ["A", "A", "B", "B"]
    assert adata.obs["section"].tolist() == ["A1", "A1", "B4", "B4"]
    expected = pd.DataFrame(
        [[1, 0, 0], [2, 3, 0], [0, 1, 0], [0, 2, 3]], index=adata.obs_names, columns=["ERBB2", "CD3E", "KRT5"]
    )
    pd.testing.assert_frame_equal(adata.to_df()[expected.columns], expected.astype(np.float32))
    assert (adata.X.dtype, adata.X.format) == (np.float32, "csr")
    np.testing.assert_array_equal(adata.obsm["spatial"], [[10.5, 20.5], [30.5, 40.5]] * 2)
    assert adata.obs["array_x"].tolist() == [1, 3, 1, 3]
    assert adata.obs["pathology"].dtype == "category"
    assert adata.obs["pathology"].tolist()[:2] == ["fat", "cancer"]
    assert adata.obs["pathology"].isna().tolist() == [False, False, True, True]
    assert adata.uns["her2st"]["images"] == {"A1": str(tmp_path / image)}
    assert adata.uns["source"]["licence"] == "CC-BY-4.0"


def test_some_sections_and_round_trip(tmp_path: Path) -> None:
    _write(tmp_path, ARCHIVE)
    adata = datasets.her2st(tmp_path, sections=["B4"])
    assert sorted(adata.var_names) == ["CD3E", "KRT5"]
    assert "pathology" not in adata.obs
    adata.write_h5ad(tmp_path / "b4.h5ad")
    back = read_h5ad(tmp_path / "b4.h5ad")
    pd.testing.assert_frame_equal(back.to_df(), adata.to_df())
    assert back.uns["source"] == adata.uns["source"]


def test_missing_files_say_what_and_where(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder '.*nothing'"):
        datasets.her2st(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"none of the folders \['count-matrices', 'ST-cnts'\].*zenodo.4751624"):
        datasets.her2st(tmp_path)
    (tmp_path / "count-matrices").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no '\*.tsv' or '\*.tsv.gz'.*CC-BY-4.0"):
        datasets.her2st(tmp_path)
    _write(tmp_path, ARCHIVE)
    (tmp_path / "spot-selections" / "B4_selection.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['spot-selections/B4_selection.tsv'\].*zenodo.4751624"):
        datasets.her2st(tmp_path)
    assert datasets.her2st(tmp_path, sections=["A1"]).n_obs == 2


@pytest.mark.parametrize("sections", [["A1", "C9"], [], ["A1", "A1"]])
def test_sections_that_are_not_there(tmp_path: Path, sections: list[str]) -> None:
    _write(tmp_path, ARCHIVE)
    with pytest.raises(ValueError, match=r"`sections` must name some of \['A1', 'B4'\], each once"):
        datasets.her2st(tmp_path, sections=sections)
    with pytest.raises(TypeError, match=r"write \['A1'\]"):
        datasets.her2st(tmp_path, sections="A1")  # type: ignore[arg-type]


def test_tables_without_a_common_spot(tmp_path: Path) -> None:
    _write(tmp_path, ARCHIVE)
    file = tmp_path / "count-matrices" / "A1.tsv"
    file.write_text(file.read_text().replace("1x2", "AAAC").replace("3x4", "AAAG"))
    with pytest.raises(ValueError, match=r"no spot in common.*'AAAC', 'AAAG'.*'3x4', '5x6'"):
        datasets.her2st(tmp_path)
