"""The best epoch, on losses given by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stomics_tools.train import KeepBest


class _Module(nn.Module):
    """Its weight is the number of the epoch; its validation loss comes from a list."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__()
        self.losses, self.modes = losses, []
        self.weight = nn.Parameter(torch.zeros(()))

    def validation_loss(self, batch: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.modes.append(self.training)
        return torch.tensor(self.losses[int(self.weight)])


def _run(losses: list[float], patience: int | None, kill: int | None = None) -> tuple[float, int, list[bool]]:
    """Weight in the end, epochs run, and the modes of the evaluations; with `kill` a new callback takes over there."""
    module = _Module(losses).train()
    pl_module: Any = SimpleNamespace(module=module, device=torch.device("cpu"), last_losses={})
    trainer: Any = SimpleNamespace(should_stop=False, loggers=[])
    callback = KeepBest(torch.zeros(3), patience)
    callback.on_train_start(trainer, pl_module)
    for epoch in range(1, len(losses)):
        module.weight.data.fill_(float(epoch))
        callback.on_train_epoch_end(trainer, pl_module)
        assert float(pl_module.last_losses["validation_loss"]) == pytest.approx(losses[epoch])
        if epoch == kill:
            state = callback.state_dict()
            callback = KeepBest(torch.zeros(3), patience)
            callback.load_state_dict(state)
            callback.on_train_start(trainer, pl_module)
        if trainer.should_stop:
            break
    callback.on_fit_end(trainer, pl_module)
    assert module.training
    return float(module.weight), epoch, module.modes


@pytest.mark.parametrize("kill", [None, 1, 2])
@pytest.mark.parametrize(
    ("losses", "patience", "best", "last"),
    [
        ([3.0, 2.0, 1.0, 2.0, 3.0], None, 2, 4),
        ([1.0, 2.0, 3.0, 4.0], None, 0, 3),  # the untrained weights
        ([3.0, 2.0, 2.5, 2.5, 1.0], 2, 1, 3),
        ([3.0, 2.0, 2.5, 1.0, 1.5, 1.5, 0.5], 2, 3, 5),
        ([1.0, 0.9995, 0.9985, 0.9980, 0.9974], 2, 4, 4),  # together they fall by 0.1 % in time
        ([1.0, 0.9999, 0.9998, 0.9997, 0.9996], 2, 2, 2),  # but these do not; the best is kept all the same
        ([1.0, 1.0, 1.0, 1.0], 3, 0, 3),  # of equal ones the first
    ],
)
def test_weights_and_end(losses, patience, best, last, kill):
    found, n_epochs, modes = _run(losses, patience, kill)
    assert (found, n_epochs) == (best, last)
    assert not any(modes)  # in evaluation
    assert len(modes) == last + 1  # a resumed run does not look at its start again
