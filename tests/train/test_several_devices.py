"""Training on several devices, here processes on CPUs, against one: as a script and as a notebook start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stomics_tools as st

SCRIPT = Path(__file__).with_name("several_devices.py")
Found = dict[str, np.ndarray]


def run(folder: Path, *arguments: str) -> list[Found]:
    """What each process found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(folder.rglob("*.partial"))
    return [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Found:
    (found,) = run(tmp_path_factory.mktemp("one"), "1")
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[Found]:
    return run(tmp_path_factory.mktemp("two"), "2")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory) -> Found:
    (found,) = run(tmp_path_factory.mktemp("notebook"), "2", "notebook")
    return found


def test_processes_end_alike(two):
    first, second = two
    assert first["world_size"] == second["world_size"] == 2
    for name in first.keys() - {"line_seen", "stage1_seen", "stage2_seen", "diffusion_seen"}:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        assert np.isfinite(first[name]).all(), name


@pytest.mark.parametrize("model", ["line", "stage1", "stage2"])
def test_each_row_is_seen_by_one_process_an_epoch(one, two, model):
    whole, parts = one[f"{model}_seen"], [found[f"{model}_seen"] for found in two]
    n_epochs = 3 if model == "line" else 4
    rows = np.sort(whole.reshape(n_epochs, -1)[0])
    assert len(np.unique(rows)) == len(rows)
    orders = [part.reshape(n_epochs, -1) for part in parts]
    for epoch in range(n_epochs):
        np.testing.assert_array_equal(np.sort(np.concatenate([order[epoch] for order in orders])), rows)
    assert not np.array_equal(orders[0][0], orders[0][1])


def test_each_process_draws_sets_of_its_own(one, two):
    first, second = (found["diffusion_seen"] for found in two)
    assert len(first) + len(second) == len(one["diffusion_seen"])
    assert not np.intersect1d(first, second).size


@pytest.mark.parametrize("model", ["line", "stage1", "stage2", "diffusion"])
def test_rates_end_where_they_end_on_one_device(one, two, model):
    # 240 rows in batches of 16 of which two are accumulated: 8 steps of 15 batches an epoch, 4 of 8 on two devices.
    n_steps = {"line": (12, 12), "stage1": (32, 16), "stage2": (32, 16), "diffusion": (36, 18)}[model]
    for found, expected in zip((one, two[0]), n_steps, strict=True):
        rates = found[f"{model}_rates"]
        assert rates[-1] == 0 < rates[-2] < 0.03 * rates.max()
        assert len(np.unique(rates[rates.argmax() :])) in (expected - expected // 10, expected - expected // 10 + 1)


def test_as_many_rows_a_step_give_the_same_weights(one, two):
    assert two[0]["slope"] == pytest.approx(float(one["slope"]), rel=1e-6)
    np.testing.assert_allclose(two[0]["line_train_loss"], one["line_train_loss"], rtol=1e-6)


def test_half_as_many_steps_lead_as_far(one, two):
    """Mean loss of the later half of the epochs: within 5 % for VARST, within 25 % for the few sets of a diffusion."""
    for name, tolerance in (
        ("var_st_stage1_train_loss", 0.05),
        ("var_st_stage2_train_loss", 0.05),
        ("diffusion_train_loss", 0.25),
    ):
        assert len(one[name]) == len(two[0][name])
        later = slice(len(one[name]) // 2, None)
        assert two[0][name][later].mean() == pytest.approx(one[name][later].mean(), rel=tolerance), name


def test_a_resumed_run_ends_as_an_uninterrupted_one(one, two, notebook):
    for found in (one, *two, notebook):
        np.testing.assert_array_equal(found["resumed"], found["latent"])
        np.testing.assert_array_equal(found["resumed_train_loss"], found["diffusion_train_loss"])


def test_a_notebook_gets_back_what_a_script_finds(two, notebook):
    assert notebook.keys() == two[0].keys()
    for name, values in notebook.items():
        np.testing.assert_allclose(values, two[0][name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_threads_and_variables_are_as_they_were(one, two, notebook):
    for found in (one, *two, notebook):
        assert found["threads"] == 0
        assert found["variable"]


@pytest.mark.parametrize("how", [{"devices": 2}, {"devices": "2"}, {"devices": [0, 1]}, {"num_nodes": 2}])
def test_models_of_all_spots_at_once_refuse_several_devices(how):
    adata = st.datasets.simulate_multiomics(n_obs=60, n_domains=3, modalities=["rna"], seed=0)["rna"]
    st.model.GraphST.setup_anndata(adata)
    model = st.model.GraphST(adata, n_latent=4)
    with pytest.raises(ValueError, match="`devices`: GraphST is trained on all spots at once"):
        model.train(1, accelerator="cpu", **how)
    st.pp.rna(adata, n_comps=8)
    st.model.PRAGASpike.setup_anndata(adata, {"rna": "X_pca"})
    with pytest.raises(ValueError, match="`devices`: PRAGASpike is trained on all spots at once"):
        st.model.PRAGASpike(adata, n_latent=8).train(1, accelerator="cpu", **how)
