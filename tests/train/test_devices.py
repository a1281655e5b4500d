"""Devices by name, as scvi-tools takes them, and what is told to Lightning about them."""

from __future__ import annotations

import os
import sys

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.plugins.precision import MixedPrecision

from stomics_tools.train import count_devices, resolve_device
from stomics_tools.train._devices import trainer_arguments


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Sets what accelerators there are."""

    def set_up(n_gpus: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n_gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    set_up()
    return set_up


@pytest.mark.parametrize(
    ("n_gpus", "mps", "accelerator", "device", "expected"),
    [
        (0, False, "auto", "auto", "cpu"),
        (0, True, "auto", "auto", "cpu"),
        (0, True, "gpu", "auto", "mps"),
        (0, True, "mps", 0, "mps"),
        (2, False, "auto", "auto", "cuda:0"),
        (2, True, "gpu", -1, "cuda:0"),
        (2, False, "cuda", "1", "cuda:1"),
        (2, False, "gpu", [1], "cuda:1"),
        (2, False, "auto", "cuda:1", "cuda:1"),
        (2, False, "auto", torch.device("cpu"), "cpu"),
        (2, False, "cpu", "auto", "cpu"),
        (2, False, "gpu", torch.device("cuda"), "cuda:0"),
    ],
)
def test_device(machine, n_gpus, mps, accelerator, device, expected):
    machine(n_gpus, mps)
    assert resolve_device(accelerator, device) == torch.device(expected)


@pytest.mark.parametrize(
    ("n_gpus", "accelerator", "device", "message"),
    [
        (0, "gpu", "auto", "`accelerator='gpu'`: there is no such device"),
        (0, "mps", "auto", "`accelerator='mps'`: there is no such device"),
        (0, "tpu", "auto", "`accelerator` must be one of"),
        (2, "auto", 2, "there are 2 GPUs"),
        (2, "auto", [0, 1], "`device` must be 'auto' or the index of one device"),
        (2, "auto", 1.5, "`device` must be"),
        (2, "auto", True, "`device` must be"),
        (2, "auto", "first", "`device` must be"),
        (0, "cpu", 3, "there is one device for accelerator 'cpu'"),
        (2, "cpu", "cuda:1", "`accelerator` is 'cpu'"),
    ],
)
def test_devices_that_are_not_there(machine, n_gpus, accelerator, device, message):
    machine(n_gpus)
    with pytest.raises(ValueError, match=message):
        resolve_device(accelerator, device)


@pytest.mark.parametrize(
    ("devices", "accelerator", "expected"),
    [
        ("auto", "auto", 1),
        (1, "cpu", 1),
        ("2", "cpu", 2),
        ([3], "gpu", 1),
        ("0,1", "gpu", 2),
        ("1,", "gpu", 1),
        (-1, "gpu", 4),
        ("-1", "auto", 4),
    ],
)
def test_number_of_devices(machine, devices, accelerator, expected):
    machine(4)
    assert count_devices(devices, accelerator) == expected
    assert count_devices(devices, accelerator, 3) == 3 * expected


def test_one_device_has_no_cluster_unless_one_is_given(machine):
    assert [type(plugin) for plugin in trainer_arguments("auto", "auto", {})["plugins"]] == [LightningEnvironment]
    precision = MixedPrecision("bf16-mixed", "cpu")
    plugins = trainer_arguments("cpu", 1, {"plugins": precision})["plugins"]
    assert plugins[0] is precision
    assert isinstance(plugins[1], LightningEnvironment)
    given = TorchElasticEnvironment()
    assert trainer_arguments("cpu", [0], {"plugins": [given]})["plugins"] == [given]


def test_more_processes_than_processors(machine, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    trainer_arguments("cpu", 4, {})
    with pytest.raises(ValueError, match="`devices=5` would be as many processes, on a machine of 4 processors"):
        trainer_arguments("cpu", 5, {})


@pytest.mark.parametrize(
    ("given", "script", "notebook"),
    [
        ({}, "ddp_find_unused_parameters_true", "ddp_notebook_find_unused_parameters_true"),
        ({"strategy": "auto"}, "ddp_find_unused_parameters_true", "ddp_notebook_find_unused_parameters_true"),
        ({"strategy": "ddp_fork"}, "ddp_fork_find_unused_parameters_true", "ddp_fork_find_unused_parameters_true"),
        ({"strategy": "fsdp"}, "fsdp", "fsdp"),
    ],
)
def test_strategy_of_several_devices_runs_where_we_are(machine, monkeypatch, given, script, notebook):
    monkeypatch.delattr(sys, "ps1", raising=False)
    found = trainer_arguments("cpu", 2, given)
    assert found["strategy"] == script
    assert "plugins" not in found
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    assert trainer_arguments("cpu", 2, given)["strategy"] == notebook
