from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stomics_tools.train import MiniBatchPlan, fit, row_batches


class Line(nn.Module):
    """A straight line through spots; the offset is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.ones(()), requires_grad=False)
        self.seen: list[Tensor] = []

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.seen.append(batch["x"].clone())
        error = (self.slope * batch["x"] + self.offset - batch["y"]).square().mean()
        return {"train_loss": error, "rows": torch.tensor(float(len(batch["x"])))}


def make_plan(module: nn.Module | None = None, lr: float = 0.05) -> MiniBatchPlan:
    return MiniBatchPlan(module or Line(), lambda parameters: torch.optim.SGD(parameters, lr=lr), meta={})


def planned(n_steps: int, lr: float = 0.05) -> tuple[MiniBatchPlan, dict[str, Any]]:
    """Plan, optimiser and schedule of a plan whose trainer will take `n_steps`."""
    plan = make_plan(lr=lr)
    plan.trainer = SimpleNamespace(estimated_stepping_batches=n_steps)
    return plan, plan.configure_optimizers()


def lines(n: int = 23) -> dict[str, Tensor]:
    x = torch.arange(n).float() / n
    return {"x": x, "y": 3 * x + 1}


@pytest.mark.parametrize("n_steps", [1, 2, 5, 9, 10, 37, 200])
def test_the_rate_rises_over_a_tenth_and_falls_as_a_cosine(n_steps: int) -> None:
    _, configured = planned(n_steps, lr=2.0)
    schedule = configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(n_steps + 3):
        rates.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        schedule.step()
    warm = max(n_steps // 10, 1)
    for step, rate in enumerate(rates):
        share = (step + 1) / warm
        if step >= warm:
            share = (1 + math.cos(math.pi * min((step - warm) / max(n_steps - warm, 1), 1))) / 2
        assert rate == pytest.approx(2 * share, abs=1e-12)
    assert max(rates) == 2
    assert rates[0] > 0
    if n_steps > 1:
        assert rates[n_steps] == 0 < rates[n_steps - 1]


def test_only_what_needs_a_gradient_is_optimised() -> None:
    plan, configured = planned(10)
    optimizer = configured["optimizer"]
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(plan.module.slope)]


def test_batches_hold_every_row_once_and_tensors_stay_together() -> None:
    tensors = {"x": torch.arange(23), "y": torch.arange(23)[:, None] * torch.ones(1, 3, dtype=torch.int64)}
    loader = row_batches(tensors, 5)
    assert len(loader) == 5
    batches = list(loader)
    assert [len(batch["x"]) for batch in batches] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([batch["x"] for batch in batches]).sort().values, tensors["x"])
    for batch in batches:
        assert torch.equal(batch["y"], batch["x"][:, None].expand(-1, 3))


def test_order_follows_the_seed_and_changes_with_the_epoch() -> None:
    def order(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        loader = row_batches({"x": torch.arange(40)}, 8)
        return [torch.cat([batch["x"] for batch in loader]) for _ in range(2)]

    first, second = order(0)
    assert torch.equal(first, order(0)[0])
    assert torch.equal(second, order(0)[1])
    assert not torch.equal(first, second)
    assert not torch.equal(first, order(1)[0])
    assert not torch.equal(first, torch.arange(40))


def run(seed: int) -> tuple[Line, dict]:
    module, tensors = Line(), lines()
    loader = row_batches(tensors, 6)
    plan = make_plan(module, lr=0.5)
    options = {"accelerator": "cpu", "enable_progress_bar": False}
    return module, fit(plan, loader, max_epochs=4, seed=seed, **options)


def test_training_takes_one_step_a_batch_and_logs_means_over_rows() -> None:
    state = torch.get_rng_state()
    module, history = run(seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(rows) for rows in module.seen] == [6, 6, 6, 5] * 4
    slope, losses = 0.0, []
    for step, x in enumerate(module.seen):
        error = slope * x + 1 - (3 * x + 1)
        losses.append(error.square().mean().item())
        warm = 1
        share = 1.0 if step < warm else (1 + math.cos(math.pi * (step - warm) / 15)) / 2
        slope -= 0.5 * share * (2 * error * x).mean().item()
    assert module.slope.item() == pytest.approx(slope, rel=1e-4)
    assert module.offset.item() == 1
    table = history["train_loss"]["train_loss"]
    assert len(table) == 4
    weighted = [sum(a * b for a, b in zip(losses[4 * e : 4 * e + 4], (6, 6, 6, 5), strict=True)) / 23 for e in range(4)]
    assert table.tolist() == pytest.approx(weighted, rel=1e-4)
    assert history["rows"]["rows"].tolist() == pytest.approx([(3 * 36 + 25) / 23] * 4)


def test_same_seed_same_training() -> None:
    first, again, other = (run(seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.slope, again.slope)
    assert not torch.equal(torch.cat(first.seen), torch.cat(other.seen))


def test_a_loss_that_is_not_finite_stops_training() -> None:
    tensors = lines()
    tensors["y"][3] = torch.nan
    with pytest.raises(FloatingPointError, match="training loss became nan in epoch 0"):
        fit(
            make_plan(),
            row_batches(tensors, 23),
            max_epochs=1,
            seed=0,
            accelerator="cpu",
            enable_progress_bar=False,
        )
