"""Checkpoints hold the generators of the device of training, and the module ends where it was trained: GPUs are mocked."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

import stomics_tools as st
from stomics_tools.train import fit
from stomics_tools.train._generators import Generators


def trainer(device: str, rank: int = 0, world_size: int = 1) -> SimpleNamespace:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, global_rank=rank, world_size=world_size, global_step=3)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[int, torch.Tensor]:
    """States of the generators of GPUs."""
    states = {index: torch.full((16,), index, dtype=torch.uint8) for index in range(4)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device.index].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device.index: state}))
    return states


def test_generators_of_cpu_and_gpu_are_kept_and_restored(gpu):
    before, here, checkpoint = torch.get_rng_state(), trainer("cuda:2"), {}
    Generators(0).on_save_checkpoint(here, None, checkpoint)
    assert [set(states) for states in checkpoint["generators"]] == [{"cpu", "cuda"}]
    torch.rand(3)
    gpu[2] = torch.zeros(16, dtype=torch.uint8)
    resumed = Generators(0)
    resumed.on_load_checkpoint(here, None, checkpoint)
    resumed.on_train_start(here, None)
    assert torch.equal(torch.get_rng_state(), before)
    assert (gpu[2] == 2).all()
    assert (gpu[0] == 0).all()
    assert (gpu[1] == 1).all()


def test_a_checkpoint_of_a_gpu_goes_on_on_the_cpu(gpu):
    checkpoint, resumed = {}, Generators(0)
    Generators(0).on_save_checkpoint(trainer("cuda:1"), None, checkpoint)
    before = torch.get_rng_state()
    torch.rand(3)
    resumed.on_load_checkpoint(trainer("cpu"), None, checkpoint)
    resumed.on_train_start(trainer("cpu"), None)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_number_of_devices_is_said(caplog):
    before = torch.get_rng_state()
    resumed = Generators(0)
    resumed.on_load_checkpoint(None, None, {"generators": [{"cpu": before}] * 2})
    with caplog.at_level(logging.WARNING):
        resumed.on_train_start(trainer("cpu"), None)
    assert "written on 2 devices, this training goes on on 1" in caplog.text
    torch.set_rng_state(before)


@pytest.mark.parametrize("name", ["GraphST", "MaskedDiffusion"])
def test_the_module_ends_where_it_was_trained(monkeypatch, name):
    def fit_elsewhere(plan, *args, **kwargs):
        history = fit(plan, *args, **kwargs)
        plan.trained_on = torch.device("meta")
        return history

    if name == "GraphST":
        monkeypatch.setattr("stomics_tools.model._full_graph.fit", fit_elsewhere)
        adata = st.datasets.simulate_multiomics(n_obs=60, n_domains=3, modalities=["rna"], seed=0)["rna"]
        st.model.GraphST.setup_anndata(adata)
        model = st.model.GraphST(adata, n_latent=4)
    else:
        monkeypatch.setattr("stomics_tools.model.masked_diffusion._training.fit", fit_elsewhere)
        cells = st.datasets.simulate_sections(seed=0)[::40].copy()
        st.model.MaskedDiffusion.setup_anndata(cells, batch_key="section")
        model = st.model.MaskedDiffusion(cells, width=16, n_heads=2, n_layers=1, n_hidden=16, n_window=32)
    model.train(1, accelerator="cpu", enable_progress_bar=False, key_added=None)
    assert model.device == torch.device("meta")
