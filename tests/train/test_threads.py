"""Threads of torch while a model trains, and trainings in several threads of the user."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import stomics_tools as st
from stomics_tools.train import yielding
from stomics_tools.train._threads import _gomp

SWITCHES = """
import os, resource, torch
from contextlib import nullcontext
from stomics_tools.train import yielding

x = torch.rand(20_000, 64)


def measured(context):
    with context:
        y = x.add(1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        for _ in range(500):
            y = torch.tanh(x * y)
        return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before, y


(plain, a), (yielded, b), (again, c) = (measured(make()) for make in (nullcontext, yielding, nullcontext))
assert torch.equal(a, b) and torch.equal(a, c)
print(plain, yielded, again, torch.get_num_threads())
"""


@pytest.mark.skipif(_gomp() is None, reason="torch runs on another OpenMP than GNU's")
def test_threads_sleep_instead_of_spinning_and_results_are_the_same():
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        environment.pop(name, None)
    run = subprocess.run([sys.executable, "-c", SWITCHES], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    plain, yielded, again, n_threads = map(int, run.stdout.split())
    assert n_threads == 2
    assert yielded > 700  # 1,000 parallel loops: the one thread sleeps till the loop, the other till its end
    assert plain < yielded / 3
    assert again < yielded / 3


def test_threads_and_their_number_are_as_before(monkeypatch):
    n_threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    before = threading.active_count()
    inside = []
    with pytest.raises(ZeroDivisionError), yielding():
        inside.append(threading.active_count()) or 1 / 0
    assert inside == [before + (_gomp() is not None)]
    assert threading.active_count() == before
    monkeypatch.undo()
    assert torch.get_num_threads() == n_threads


def test_training_leaves_threads_and_variables_alone():
    before, n_threads = dict(os.environ), torch.get_num_threads()
    train(0)
    assert torch.get_num_threads() == n_threads
    assert {name: os.environ.get(name) for name in before} == before


def train(seed: int) -> np.ndarray:
    adata = st.datasets.simulate_multiomics(n_obs=80, n_domains=3, modalities=["rna"], seed=0)["rna"]
    st.model.GraphST.setup_anndata(adata)
    model = st.model.GraphST(adata, n_latent=4)
    model.train(15, seed=seed, accelerator="cpu", enable_progress_bar=False)
    return model.get_latent_representation()


def test_trainings_in_several_threads_end_as_alone():
    torch.manual_seed(0)
    state, expected = torch.get_rng_state(), {seed: train(seed) for seed in (0, 1)}
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = train(number % 2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for number, latent in found.items():
        np.testing.assert_array_equal(latent, expected[number % 2])
    assert not np.array_equal(expected[0], expected[1])
    assert torch.equal(torch.get_rng_state(), state)
