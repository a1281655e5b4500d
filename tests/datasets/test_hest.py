from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from stomics_tools import datasets

PATIENTS = {"MEND139": "patient 2", "MEND145": "patient 2 ", "MEND154": "patient 1"}


def _write_sample(folder: Path, name: str, genes: list[str]) -> None:
    """Three spots, of which the file of patches holds the last and the first, in this order."""
    adata = AnnData(sparse.csc_matrix(np.arange(3 * len(genes)).reshape(3, -1) + len(name)))
    adata.obs_names, adata.var_names = ["AAAC-1", "AAAG-1", "AAAT-1"], genes
    adata.obs["array_row"] = 0
    adata.obsm["spatial"] = np.array([[10, 20], [30, 40], [50, 60]])
    adata.uns["spatial"] = {"ST": {"images": {"downscaled_fullres": np.zeros((4, 4, 3), np.uint8)}}}
    folder.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(folder / f"{name}.h5ad")
    patches = folder.parent / "patches"
    patches.mkdir(exist_ok=True)
    with h5py.File(patches / f"{name}.h5", "w") as file:
        file["barcode"] = np.array([[b"AAAT-1"], [b"AAAC-1"]])
        file["coords"] = np.array([[0, 0], [1, 1]])
        file["img"] = np.zeros((2, 4, 4, 3), np.uint8)


def _write_table(folder: Path, **columns: object) -> None:
    table = pd.DataFrame({"id": list(PATIENTS), "patient": list(PATIENTS.values())}).assign(
        dataset_title="Prostate", license="CC BY NC 3.0", pixel_size_um_estimated=[0.34, 0.35, 0.36],
        inter_spot_dist=[100, 100, None],
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    table.assign(**columns).to_csv(folder / "HEST_v1_1_0.csv", index=False, encoding="utf-8-sig")


@pytest.fixture
def hest_1k(tmp_path: Path) -> Path:
    for name, genes in zip(PATIENTS, [["A", "B", "C"], ["C", "A"], ["A", "C", "D"]], strict=True):
        _write_sample(tmp_path / "st", name, genes)
    (tmp_path / "wsis").mkdir()
    (tmp_path / "wsis" / "MEND139.tif").touch()
    _write_table(tmp_path)
    return tmp_path


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    prad = tmp_path / "PRAD"
    for name in PATIENTS:
        _write_sample(prad / "adata", name, ["A", "B", "C"])
    (prad / "splits").mkdir()
    for fold, tested in enumerate((["MEND154"], ["MEND139", "MEND145"])):
        for kind, chosen in (("test", tested), ("train", [name for name in PATIENTS if name not in tested])):
            table = pd.DataFrame({"sample_id": chosen, "expr_path": [f"adata/{name}.h5ad" for name in chosen]})
            table.to_csv(prad / "splits" / f"{kind}_{fold}.csv", index=False)
    (prad / "var_50genes.json").write_text(json.dumps({"genes": ["C", "A"]}))
    _write_table(tmp_path)
    return tmp_path


def test_samples(hest_1k: Path) -> None:
    adata = datasets.hest(hest_1k)
    assert adata.obs["section"].cat.categories.tolist() == list(PATIENTS)
    assert adata.obs["patient"].tolist() == ["patient 2"] * 6 + ["patient 1"] * 3
    assert adata.obs_names[3] == "MEND145_AAAC-1"
    assert set(adata.var_names) == {"A", "C"}
    assert (adata.X.dtype, adata.X.format) == (np.float32, "csr")
    first = np.arange(9).reshape(3, 3) + 7
    np.testing.assert_array_equal(adata[:3, ["A", "C"]].X.toarray(), first[:, [0, 2]])
    second = np.arange(6).reshape(3, 2) + 7
    np.testing.assert_array_equal(adata[3:6, ["C", "A"]].X.toarray(), second)
    np.testing.assert_array_equal(adata.obsm["spatial"], [[10, 20], [30, 40], [50, 60]] * 3)
    assert adata.obs["patch"].tolist() == [1, -1, 0] * 3
    found = adata.uns["hest"]
    assert found["images"] == {"MEND139": str(hest_1k / "wsis" / "MEND139.tif")}
    assert found["patches"]["MEND145"] == str(hest_1k / "patches" / "MEND145.h5")
    assert found["pixel_size"] == {"MEND139": 0.34, "MEND145": 0.35, "MEND154": 0.36}
    assert found["inter_spot_distance"] == {"MEND139": 100.0, "MEND145": 100.0}
    assert adata.uns["source"]["licence"] == "CC-BY-NC-SA-4.0"
    assert not {"test_fold", "array_row"} & set(adata.obs)
    adata.write_h5ad(hest_1k / "all.h5ad")
    back = read_h5ad(hest_1k / "all.h5ad")
    assert back.uns["source"]["licences of the samples"]["MEND154"] == "CC BY NC 3.0"
    pd.testing.assert_frame_equal(back.obs, adata.obs)


def test_some_samples_without_patches(hest_1k: Path) -> None:
    shutil.rmtree(hest_1k / "patches")
    adata = datasets.hest(hest_1k, ["MEND154", "MEND139"])
    assert adata.obs["section"].unique().tolist() == ["MEND154", "MEND139"]
    assert (adata.obs["patch"] == -1).all()
    assert set(adata.var_names) == {"A", "C"}


@pytest.mark.parametrize("inside", [False, True])
def test_task(bench: Path, inside: bool) -> None:
    adata = datasets.hest(bench / "PRAD" if inside else bench, task="PRAD")
    folds = adata.obs.groupby("section", observed=True)["test_fold"].unique().str[0].to_dict()
    assert folds == {"MEND139": 1, "MEND145": 1, "MEND154": 0}
    assert adata.var_names[adata.var["panel"]].tolist() == ["A", "C"]
    assert datasets.hest(bench, ["MEND154"], task="PRAD").n_obs == 3


def test_patients_of_several_data_sets_differ(hest_1k: Path) -> None:
    _write_table(hest_1k, patient=["patient 1", None, "patient 1"], dataset_title=["Prostate", "Prostate", "Breast"])
    adata = datasets.hest(hest_1k)
    assert adata.obs["patient"].unique().tolist() == [
        "Prostate: patient 1",
        "Prostate: unknown patient",
        "Breast: patient 1",
    ]
    _write_table(hest_1k, patient=None)
    assert datasets.hest(hest_1k).obs["patient"].unique().tolist() == ["unknown patient"]


def test_missing_files_say_what_and_where(hest_1k: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks \['PRAD'\].*`task`.*huggingface.co/datasets/MahmoodLab/hest"):
        datasets.hest(hest_1k, task="PRAD")
    with pytest.raises(ValueError, match=r"`ids` must name some of .*'MEND139'.* unknown \['TENX95'\]"):
        datasets.hest(hest_1k, ["TENX95"])
    (hest_1k / "HEST_v1_1_0.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no table 'HEST_v\*.csv' of patients.*CC-BY-NC-SA-4.0"):
        datasets.hest(hest_1k)
    shutil.rmtree(hest_1k / "st")
    with pytest.raises(FileNotFoundError, match=r"lacks \['st'\]"):
        datasets.hest(hest_1k)


def test_missing_files_of_a_task(bench: Path) -> None:
    (bench / "PRAD" / "adata" / "MEND145.h5ad").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['adata/MEND145.h5ad'\]"):
        datasets.hest(bench, task="PRAD")
    (bench / "PRAD" / "var_50genes.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['var_50genes.json'\]"):
        datasets.hest(bench, ["MEND139"], task="PRAD")
    (bench / "PRAD" / "splits" / "test_0.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks \['splits/test_0.csv'\]"):
        datasets.hest(bench, task="PRAD")


def test_damaged_files(hest_1k: Path) -> None:
    with h5py.File(hest_1k / "patches" / "MEND139.h5", "a") as file:
        del file["barcode"]
    with pytest.raises(KeyError, match="has no 'barcode'"):
        datasets.hest(hest_1k)
    with h5py.File(hest_1k / "st" / "MEND139.h5ad", "a") as file:
        del file["obsm/spatial"]
    with pytest.raises(KeyError, match="'spatial' not found in `MEND139.h5ad: obsm`"):
        datasets.hest(hest_1k)
    _write_table(hest_1k, id=["X1", "X2", "X3"])
    with pytest.raises(ValueError, match=r"no rows for \['MEND139', 'MEND145', 'MEND154'\]"):
        datasets.hest(hest_1k)


def test_samples_without_a_common_gene(hest_1k: Path) -> None:
    _write_sample(hest_1k / "st", "MEND154", ["X", "Y"])
    with pytest.raises(ValueError, match="have no gene in common"):
        datasets.hest(hest_1k)


def test_a_sample_tested_on_twice(bench: Path) -> None:
    file = bench / "PRAD" / "splits" / "test_0.csv"
    file.write_text(file.read_text().replace("MEND154", "MEND139"))
    with pytest.raises(ValueError, match="'MEND139' is tested on in splits 0 and 1"):
        datasets.hest(bench, task="PRAD")
