"""The average of weights against its formula, and after an interruption."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn

from stomics_tools.train import EMA, MiniBatchPlan, fit, row_batches


class Toy(nn.Module):
    """One weight used twice, one that is not trained, and a batch normalisation for its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Linear(3, 3, bias=False)
        self.tied = self.slope
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.norm = nn.BatchNorm1d(3)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"train_loss": (self.norm(self.tied(self.slope(batch["x"]))) + self.frozen).square().mean()}


class Recorder(pl.Callback):
    """Weights before training and after each step of the optimiser, and a stop after some epochs."""

    def __init__(self, stop: int | None = None) -> None:
        self.weights: list[Tensor] = []
        self.stop = stop

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights.append(pl_module.module.slope.weight.detach().clone())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_) -> None:
        self.weights.append(pl_module.module.slope.weight.detach().clone())

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.stop:
            raise KeyError("interrupted")


def make_toy() -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Toy()


def train(toy: Toy, ema: EMA | None, recorder: Recorder | None = None, *, max_epochs: int = 4, **settings) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    plan = MiniBatchPlan(toy, lambda parameters: torch.optim.Adam(parameters, lr=0.05), meta={})
    callbacks = [callback for callback in (ema, recorder) if callback is not None]
    fit(
        plan,
        row_batches({"x": x}, 8),
        max_epochs=max_epochs,
        seed=0,
        callbacks=callbacks,
        accelerator="cpu",
        enable_progress_bar=False,
        **settings,
    )


def by_hand(weights: list[Tensor], decay: float) -> Tensor:
    average = weights[0].double()
    for n, weight in enumerate(weights[1:]):
        kept = min(decay, (1 + n) / (10 + n))
        average = kept * average + (1 - kept) * weight.double()
    return average.float()


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_average_follows_the_formula_and_buffers_are_the_last(decay: float) -> None:
    toy, ema, recorder = make_toy(), EMA(decay), Recorder()
    initial = toy.slope.weight.detach().clone()
    train(toy, ema, recorder)
    assert len(recorder.weights) == 21
    assert torch.equal(recorder.weights[0], initial)
    averaged = make_toy()
    ema.copy_to(averaged)
    torch.testing.assert_close(averaged.slope.weight, by_hand(recorder.weights, decay))
    assert torch.equal(averaged.slope.weight, toy.slope.weight) == (decay == 0)
    assert torch.equal(averaged.frozen, toy.frozen)
    assert torch.equal(averaged.norm.running_mean, toy.norm.running_mean)
    assert averaged.norm.num_batches_tracked == 20
    assert averaged.tied is averaged.slope
    ema.copy_to(toy)
    assert torch.equal(toy.slope.weight, averaged.slope.weight)


def test_steps_are_those_of_the_optimiser_not_batches() -> None:
    toy, ema, recorder = make_toy(), EMA(0.5), Recorder()
    train(toy, ema, recorder, accumulate_grad_batches=5)
    assert ema.state_dict()["n_updates"] == 4
    ema.copy_to(toy)
    torch.testing.assert_close(toy.slope.weight, by_hand(recorder.weights[::5], 0.5))


def test_training_is_the_same_with_and_without() -> None:
    plain, averaged, state = make_toy(), make_toy(), torch.get_rng_state()
    train(plain, None)
    train(averaged, EMA())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in averaged.state_dict().items())


def test_hooks_draw_no_random_numbers() -> None:
    ema, toy, state = EMA(), make_toy(), torch.get_rng_state()
    plan = MiniBatchPlan(toy, torch.optim.Adam, meta={})
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False)
    ema.on_train_start(trainer, plan)
    ema.copy_to(toy)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path) -> None:
    whole, ema_whole = make_toy(), EMA(0.9)
    train(whole, ema_whole)

    with pytest.raises(KeyError, match="interrupted"):
        train(make_toy(), EMA(0.9), Recorder(stop=2), checkpoint_dir=tmp_path, checkpoint_every=1)
    resumed, ema_resumed, recorder = make_toy(), EMA(0.9), Recorder()
    train(resumed, ema_resumed, recorder, ckpt_path=tmp_path)
    assert len(recorder.weights) == 11

    ema_whole.copy_to(whole)
    ema_resumed.copy_to(resumed)
    assert all(torch.equal(resumed.state_dict()[name], value) for name, value in whole.state_dict().items())
    assert ema_resumed.state_dict()["n_updates"] == 20


def test_the_average_of_a_finished_run_is_in_its_checkpoint(tmp_path) -> None:
    toy, ema, again = make_toy(), EMA(), EMA()
    train(toy, ema, checkpoint_dir=tmp_path)
    reloaded = make_toy()
    train(reloaded, again, ckpt_path=tmp_path)
    ema.copy_to(toy)
    again.copy_to(reloaded)
    assert all(torch.equal(reloaded.state_dict()[name], value) for name, value in toy.state_dict().items())


def test_a_state_taken_up_is_a_copy() -> None:
    toy, ema, other = make_toy(), EMA(0.5), EMA(0.5)
    train(toy, ema, max_epochs=1)
    state = copy.deepcopy(ema.state_dict())
    other.load_state_dict(ema.state_dict())
    train(toy, other, max_epochs=1)
    assert torch.equal(ema.state_dict()["average"]["slope.weight"], state["average"]["slope.weight"])
    assert not torch.equal(other.state_dict()["average"]["slope.weight"], state["average"]["slope.weight"])


def test_weights_of_low_precision_are_averaged_in_float32() -> None:
    module, ema, trainer = nn.Linear(1, 1, bias=False).bfloat16(), EMA(), SimpleNamespace(global_step=0)
    plan = MiniBatchPlan(module, torch.optim.Adam, meta={})
    nn.init.ones_(module.weight)
    ema.on_train_start(trainer, plan)
    nn.init.constant_(module.weight, 1 + 2**-7)
    trainer.global_step = 1
    ema.on_train_batch_end(trainer, plan, None, None, 0)
    average = nn.Linear(1, 1, bias=False)
    ema.copy_to(average)
    assert average.weight.item() == pytest.approx(1 + 0.9 * 2**-7, abs=1e-6)


def test_what_cannot_be_copied_is_named() -> None:
    toy, ema = make_toy(), EMA()
    with pytest.raises(ValueError, match="no average yet"):
        ema.copy_to(toy)
    train(toy, ema, max_epochs=1)
    toy.norm = nn.BatchNorm1d(4)
    del toy.frozen
    before = toy.slope.weight.detach().clone()
    with pytest.raises(ValueError, match="frozen.*norm.bias.*norm.running_mean.*norm.running_var"):
        ema.copy_to(toy)
    assert torch.equal(toy.slope.weight, before)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_bad_decay(decay: float) -> None:
    with pytest.raises(ValueError, match=f"`decay` must be at least 0 and below 1, found {decay}"):
        EMA(decay)
