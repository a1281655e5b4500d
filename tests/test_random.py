"""Torch's generators are given back, those of devices that are not in use are never read, and threads take turns."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch

from stomics_tools._random import generator_states, local_seed, set_generator_states


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A machine that says it has four GPUs; what is asked of them is noted down."""
    asked: list[tuple[str, int]] = []

    def note(name: str, answer=None):
        def called(*args):
            index = next((torch.device(a).index for a in args if isinstance(a, str | torch.device)), -1)
            asked.append((name, index))
            return answer

        return called

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", note("get", torch.zeros(16, dtype=torch.uint8)))
    monkeypatch.setattr(torch.cuda, "set_rng_state", note("set"))
    monkeypatch.setattr(torch.cuda, "manual_seed", note("seed"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", note("seed all"))

    class Device:
        def __init__(self, device):
            asked.append(("device", torch.device(device).index))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(torch.cuda, "device", Device)
    return asked


def test_numbers_follow_the_seed_and_the_state_is_given_back():
    before = torch.get_rng_state()
    with local_seed(3):
        drawn = torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(5))


def test_state_is_given_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), local_seed(3):
        torch.rand(5).reshape(torch.rand(3).shape)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_numbers_go_on_and_nest():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with local_seed(None):
        first = torch.rand(2)
        with local_seed(9):
            torch.rand(7)
        assert torch.equal(torch.cat([first, torch.rand(2)]), expected)


def test_no_gpu_is_touched_for_the_cpu(four_gpus):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with local_seed(0):
            torch.rand(1)
    assert four_gpus == []


def test_only_the_gpu_in_use_is_touched(four_gpus):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with local_seed(0, "cuda:2"):
            torch.rand(1)
    assert four_gpus == [("get", 2), ("device", 2), ("seed", -1), ("set", 2)]


def test_states_of_a_gpu_are_left_out_on_the_cpu(four_gpus):
    states = generator_states(torch.device("cuda", 1))
    assert set(states) == {"cpu", "cuda"}
    set_generator_states(states, "cpu")
    assert four_gpus == [("get", 1)]


def test_threads_take_turns():
    with local_seed(5):
        expected = torch.rand(100)
    found = []

    def draw() -> None:
        with local_seed(5):
            found.append(torch.cat([torch.rand(1) for _ in range(100)]))

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(torch.equal(part, expected) for part in found)
