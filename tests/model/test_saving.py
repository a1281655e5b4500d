"""Saved models: nothing is lost while they are written, and what users expect of loading."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stomics_tools as st
from stomics_tools.model._files import read_model, write_model

TENSORS = {"a": torch.arange(3.0)}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def fail(*args, **kwargs):
    raise OSError("no space left")


def second_call_fails(function):
    calls = []

    def call(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs) if len(calls) == 1 else fail()

    return call


@pytest.mark.parametrize("broken", ["rename", "second rename", "save_file", "fsync"])
def test_a_failed_save_leaves_the_old_model(tmp_path, monkeypatch, broken):
    write_model(tmp_path / "m", TENSORS, {"which": "old"}, overwrite=False)
    with monkeypatch.context() as patch:
        if broken == "rename":
            patch.setattr(Path, "rename", fail)
            patch.setattr(os, "replace", fail)
        elif (
            broken == "second rename"
        ):  # the old one has been moved away: it comes back even if no rename works any more
            patch.setattr(Path, "rename", second_call_fails(Path.rename))
            patch.setattr(os, "replace", fail)
        elif broken == "save_file":
            patch.setattr("stomics_tools.model._files.save_file", fail)
        else:
            patch.setattr("stomics_tools._paths._sync", fail)
        with pytest.raises(OSError, match="no space left"):
            write_model(tmp_path / "m", TENSORS, {"which": "new"}, overwrite=True)
    assert read_model(tmp_path / "m")[1]["which"] == "old"
    write_model(tmp_path / "m", TENSORS, {"which": "new"}, overwrite=True)
    assert read_model(tmp_path / "m")[1]["which"] == "new"
    assert names(tmp_path) == ["m"]


def test_the_old_model_is_read_where_a_process_was_stopped_between_two_steps(tmp_path, monkeypatch):
    write_model(tmp_path / "m", TENSORS, {"which": "old"}, overwrite=False)

    def stop(old, path):
        raise SystemExit

    with monkeypatch.context() as patch:  # nothing is put back: as if the machine had stopped
        patch.setattr(Path, "rename", second_call_fails(Path.rename))
        patch.setattr("stomics_tools._paths._put_back", stop)
        with pytest.raises(SystemExit):
            write_model(tmp_path / "m", TENSORS, {"which": "new"}, overwrite=True)
    assert not (tmp_path / "m").exists()
    assert read_model(tmp_path / "m")[1]["which"] == "old"
    with pytest.raises(FileExistsError, match="overwrite"):
        write_model(tmp_path / "m", TENSORS, {"which": "new"}, overwrite=False)
    write_model(tmp_path / "m", TENSORS, {"which": "new"}, overwrite=True)
    assert read_model(tmp_path / "m")[1]["which"] == "new"
    assert names(tmp_path) == ["m"]


def test_a_link_stays_a_link(tmp_path):
    write_model(tmp_path / "real", TENSORS, {"which": "old"}, overwrite=False)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_model(tmp_path / "link", TENSORS, {"which": "new"}, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert read_model(tmp_path / "real")[1]["which"] == "new"


def test_numbers_of_numpy_are_saved_as_plain_ones(tmp_path):
    meta = {"a": np.int64(3), "b": np.float32(0.5), "c": np.bool_(True), "d": [np.arange(2)], "e": (np.int8(1), None)}
    write_model(tmp_path / "m", TENSORS, {**meta, "f": {"g": torch.tensor(2)}, "h": np.str_("x")}, overwrite=False)
    read = read_model(tmp_path / "m")[1]
    assert [read[k] for k in "abcdefh"] == [3, 0.5, True, [[0, 1]], [1, None], {"g": 2}, "x"]


def test_home_is_found(model, name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    model.save("~/m")
    assert names(tmp_path) == ["m"]
    loaded = getattr(st.model, name).load("~/m", model.adata.copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    again = getattr(st.model, name).load("~/m", model.adata.copy())
    again.train(1, checkpoint_dir="~/c", checkpoint_every=1, enable_progress_bar=False, seed=0)
    assert names(tmp_path) == ["c", "m"]


def test_load_without_data(model, name, tmp_path):
    expected = model.get_latent_representation()
    model.save(tmp_path / "m")
    loaded = getattr(st.model, name).load(tmp_path / "m")
    assert loaded.adata is None
    np.testing.assert_array_equal(loaded.get_latent_representation(model.adata), expected)
    with pytest.raises(ValueError, match="was loaded without data") as error:
        loaded.get_latent_representation()
    assert name in str(error.value)
    for method in (loaded.train, loaded.view_anndata_setup, loaded.get_var_names, loaded.write_results):
        with pytest.raises(ValueError, match="was loaded without data"):
            method()
    assert "Trained" in repr(loaded)
    other = model.adata.copy()
    loaded.write_results(other, key_added="mine")
    np.testing.assert_array_equal(other.obsm["X_mine"], expected)
    loaded.save(tmp_path / "again")
    with pytest.raises(ValueError, match="was loaded without data"):
        loaded.save(tmp_path / "with data", save_anndata=True)


def test_data_are_given_to_a_model_without_any(model, name, tmp_path):
    model.save(tmp_path / "m")
    loaded = getattr(st.model, name).load(tmp_path / "m")
    loaded.adata = model.adata.copy()
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    loaded.train(1, enable_progress_bar=False, seed=0)
    other = model.adata[:-1].copy()
    loaded.adata = other
    assert loaded.get_latent_representation().shape[0] == other.n_obs
    with pytest.raises(ValueError, match="data changed"):
        loaded.train(1, enable_progress_bar=False, seed=0)


def test_models_of_an_earlier_format_are_named(tmp_path):
    write_model(tmp_path / "m", TENSORS, {"version": "0.9"}, overwrite=False)
    meta = json.loads((tmp_path / "m" / "model.json").read_text())
    (tmp_path / "m" / "model.json").write_text(json.dumps({**meta, "format": 1}))
    with pytest.raises(ValueError, match=r"has format 1.*stomics-tools 0\.9.*train again"):
        read_model(tmp_path / "m")


def test_data_are_saved_beside_the_model(model, name, tmp_path):
    cls = getattr(st.model, name)
    model.save(tmp_path / "m", save_anndata=True)
    assert names(tmp_path / "m") == ["adata.h5ad", "model.json", "model.safetensors"]
    loaded = cls.load(tmp_path / "m")
    assert loaded.adata is not model.adata
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert cls.load(tmp_path / "m", False).adata is None
    loaded.save(tmp_path / "m", overwrite=True)
    assert names(tmp_path / "m") == ["model.json", "model.safetensors"]


def test_a_mudata_is_saved_beside_the_model(mdata, tmp_path):
    st.model.PRAGASpike.setup_mudata(mdata, {"rna": "X_pca", "protein": "X_protein"})
    model = st.model.PRAGASpike(mdata, n_latent=8)
    model.train(2, enable_progress_bar=False)
    model.save(tmp_path / "m", save_anndata=True)
    assert names(tmp_path / "m") == ["mdata.h5mu", "model.json", "model.safetensors"]
    loaded = st.model.PRAGASpike.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation())
    assert st.model.PRAGASpike.load_registry(tmp_path / "m")["setup_method_name"] == "setup_mudata"


def test_device_of_a_loaded_model(model, name, tmp_path):
    model.save(tmp_path / "m")
    cls = getattr(st.model, name)
    loaded = cls.load(tmp_path / "m", model.adata.copy(), accelerator="cpu", device=1)
    assert loaded.device == torch.device("cpu")
    with pytest.raises(ValueError, match="accelerator"):
        cls.load(tmp_path / "m", accelerator="quantum")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no such device"):
            cls.load(tmp_path / "m", accelerator="gpu")


def test_registry_of_a_saved_model(model, name, tmp_path, capsys):
    model.save(tmp_path / "m")
    cls = getattr(st.model, name)
    registry = cls.load_registry(tmp_path / "m")
    assert registry["model_name"] == name
    assert registry["setup_args"]["spatial_key"] == "spatial"
    (field,) = registry["field_registries"].values()
    assert field["state_registry"] == json.loads(json.dumps(model._state))
    cls.view_setup_args(tmp_path / "m")
    assert "spatial_key" in capsys.readouterr().out
    other = "VARST" if name != "VARST" else "GraphST"
    with pytest.raises(ValueError, match=f"holds a {name}, not a {other}"):
        getattr(st.model, other).load_registry(tmp_path / "m")
    with pytest.raises(NotImplementedError, match=name):
        cls.convert_legacy_save(tmp_path / "m", tmp_path / "n")


def test_networks_of_another_version_are_named(model, name, tmp_path, monkeypatch):
    model.save(tmp_path / "m")
    tensors, meta = read_model(tmp_path / "m")
    write_model(tmp_path / "n", {**tensors, "gone": TENSORS["a"]}, {**meta, "version": "0.0.1"}, overwrite=False)
    with pytest.raises(ValueError, match=r"saved by 0\.0\.1.*train again"):
        getattr(st.model, name).load(tmp_path / "n")


def test_a_folder_of_scvi_tools_is_named(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="scvi-tools"):
        st.model.GraphST.load(tmp_path)
    shutil.rmtree(tmp_path)
