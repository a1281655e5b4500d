"""Scripts of the benchmarks name what is there."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stomics_tools.model import PRAGASpike
from stomics_tools.nn import Multispike, QuantLinear

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import ablation

    yield ablation
    for name in [
        name for name, module in sys.modules.items() if str(BENCHMARKS) in str(getattr(module, "__file__", ""))
    ]:
        del sys.modules[name]


def test_all_are_imported() -> None:
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    assert "ablation" in names
    code = "import importlib\nfor name in " + repr(names) + ":\n    importlib.import_module(name)"
    run = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_arms_of_the_ablation_are_arguments(ablation) -> None:
    model, training = inspect.signature(PRAGASpike.__init__), inspect.signature(PRAGASpike.train)
    for arguments in ablation.FACTORS.values():
        for name in arguments:
            assert name in (training if name in ablation.TRAINING else model).parameters


def test_silent_and_redrawn_networks(ablation) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Multispike(5), QuantLinear(6, 4, bits=4), Multispike(5), QuantLinear(4, 3, bits=4))
    x = torch.rand(20, 6) * 2
    before = net(x)
    ablation.redraw(net, seed=1)
    redrawn = net(x)
    assert torch.linalg.vector_norm(redrawn - before) > 0.5 * torch.linalg.vector_norm(before)
    assert all(len(part.weight.unique()) > 4 for part in net if isinstance(part, QuantLinear))
    ablation.silence(net)
    np.testing.assert_allclose(net(x).detach(), net[3].bias.detach().expand(20, 3))
