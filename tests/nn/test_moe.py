"""Mixture of experts against loops over tokens and experts, and what its router must not do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stomics_tools.nn import MixtureOfExperts

WIDTH = 8


def _randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _mixture(n_experts=5, top_k=2, dtype=torch.float64, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MixtureOfExperts(WIDTH, 60, n_experts=n_experts, top_k=top_k, **settings).to(dtype)


def _expert(mixture, i, x):
    hidden = F.gelu(x @ mixture.weight_1[i] + mixture.bias_1[i])
    return hidden @ mixture.weight_2[i] + mixture.bias_2[i]


def _dense(mixture, x):
    """Every expert on every token; what was not chosen is taken out of the softmax."""
    logits = x @ mixture.router.weight.T
    worst_chosen = logits.sort(-1, descending=True).values[..., [mixture.top_k - 1]]
    weights = logits.masked_fill(logits < worst_chosen, -torch.inf).softmax(-1)
    return sum(weights[..., [i]] * _expert(mixture, i, x) for i in range(mixture.n_experts))


def _collapsed(**settings):
    """All positive tokens prefer expert 2, whatever they are."""
    mixture = _mixture(**settings)
    with torch.no_grad():
        mixture.router.weight.mul_(0.01)
        mixture.router.weight[2] += 100.0
    return mixture


@pytest.mark.parametrize("expert_width", ["same_active", "same_total"])
@pytest.mark.parametrize(("n_experts", "top_k"), [(5, 5), (5, 2), (5, 1), (1, 1), (12, 3)])
def test_equals_the_dense_mixture_in_values_and_gradients(n_experts, top_k, expert_width):
    mixture, x = _mixture(n_experts, top_k, expert_width=expert_width), _randn(3, 11, WIDTH).requires_grad_()
    ours, dense = mixture(x)[0], _dense(mixture, x)
    torch.testing.assert_close(ours, dense)
    inputs = [x, *mixture.parameters()]
    pairs = zip(*(torch.autograd.grad(y.pow(3).sum(), inputs) for y in (ours, dense)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
    # One expert alone has weight 1 whatever the router says; else the router learns from the outcome.
    (router,) = torch.autograd.grad(mixture(x)[0].pow(3).sum(), mixture.router.weight)
    assert (router.abs().max() > 1e-6) == (top_k > 1)


def test_one_expert_a_token_is_the_best_one():
    mixture, x = _mixture(top_k=1), _randn(20, WIDTH)
    best = (x @ mixture.router.weight.T).argmax(1)
    assert len(best.unique()) > 2
    torch.testing.assert_close(
        mixture(x)[0], torch.stack([_expert(mixture, i, row) for i, row in zip(best, x, strict=True)])
    )


@pytest.mark.parametrize("top_k", [1, 2])
def test_no_token_is_dropped_when_all_want_the_same_expert(top_k):
    mixture, x = _collapsed(top_k=top_k), _randn(200, WIDTH).abs()
    assert ((x @ mixture.router.weight.T).argmax(1) == 2).all()
    torch.testing.assert_close(mixture(x)[0], _dense(mixture, x))


def test_experts_without_tokens_work_forward_and_backward():
    mixture, x = _collapsed(top_k=1), _randn(30, WIDTH).abs()
    outcome, losses = mixture(x)
    (outcome.square().sum() + losses.balance + losses.z).backward()
    for parameter in (mixture.weight_1, mixture.bias_1, mixture.weight_2, mixture.bias_2):
        assert parameter.grad[2].any()
        assert not parameter.grad[[0, 1, 3, 4]].any()


def test_losses_follow_their_formulas():
    mixture, x = _mixture(), _randn(40, WIDTH)
    logits = x @ mixture.router.weight.T
    chosen = logits.argsort(-1, descending=True)[:, :2].flatten().tolist()
    share = [chosen.count(i) / 80 for i in range(5)]
    balance = 5 * sum(f * p for f, p in zip(share, logits.softmax(-1).mean(0), strict=True))
    losses = mixture(x)[1]
    torch.testing.assert_close(losses.balance, balance)
    torch.testing.assert_close(losses.z, logits.exp().sum(-1).log().square().mean())
    assert losses.balance > 1


def test_balance_is_one_when_uniform_and_the_number_of_experts_when_collapsed():
    uniform = MixtureOfExperts(4, 8, n_experts=4, top_k=1)
    with torch.no_grad():
        uniform.router.weight.copy_(torch.eye(4))
    assert uniform(torch.eye(4).repeat(5, 1))[1].balance.item() == pytest.approx(1)
    assert _collapsed(top_k=1)(_randn(30, WIDTH).abs())[1].balance.item() == pytest.approx(5)


def test_padding_changes_nothing_and_gives_zero():
    mixture = _mixture(dtype=torch.float32)
    x, real = _randn(3, 10, WIDTH, dtype=torch.float32), torch.arange(10) < torch.tensor([[4], [10], [0]])
    x[~real] = torch.nan
    x.requires_grad_()
    outcome, losses = mixture(x, mask=real)
    assert not outcome[~real].any()
    alone, losses_alone = mixture(x.detach()[real])
    assert torch.equal(outcome[real], alone)
    assert torch.equal(losses.balance, losses_alone.balance)
    assert torch.equal(losses.z, losses_alone.z)
    gradient, router = torch.autograd.grad(outcome.square().sum() + losses.z, [x, mixture.router.weight])
    assert gradient[real].any()
    assert not gradient[~real].any()
    (router_alone,) = torch.autograd.grad(alone.square().sum() + losses_alone.z, mixture.router.weight)
    torch.testing.assert_close(router, router_alone)


@pytest.mark.parametrize("shape", [(0, WIDTH), (2, 3, WIDTH)])
def test_no_real_token_at_all(shape):
    mixture, x = _mixture(), _randn(*shape).requires_grad_()
    outcome, losses = mixture(x, mask=torch.zeros(shape[:-1], dtype=torch.bool))
    assert outcome.shape == shape
    assert not outcome.any()
    assert losses.balance == losses.z == 0
    (outcome.sum() + losses.balance + losses.z).backward()
    assert all(p.grad is not None and not p.grad.any() for p in mixture.parameters())
    assert mixture(x[:0])[0].shape == (0, *shape[1:])


def test_a_rerun_gives_the_same_bits():
    def run():
        mixture, x = _mixture(8, 3, torch.float32, expert_width="same_active"), _randn(4, 300, WIDTH).float()
        x.requires_grad_()
        outcome, losses = mixture(x)
        loss = outcome.square().sum() + losses.balance + losses.z
        return [outcome, *torch.autograd.grad(loss, [x, *mixture.parameters()])]

    assert all(torch.equal(one, other) for one, other in zip(run(), run(), strict=True))


def test_the_order_of_tokens_does_not_matter():
    mixture, x = _mixture(), _randn(50, WIDTH)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixture(x[order])[0], mixture(x)[0][order])


@pytest.mark.parametrize("weight", [0.0, 0.05])
def test_the_balance_loss_spreads_clustered_tokens(weight):
    centres, generator = 2 * _randn(6, WIDTH, dtype=torch.float32), torch.Generator().manual_seed(1)
    cluster = torch.multinomial(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.05, 0.05]), 600, True, generator=generator)
    x = centres[cluster] + 0.5 * _randn(600, WIDTH, seed=2, dtype=torch.float32)
    target = x.roll(1, dims=1).square()
    mixture = _mixture(8, 2, torch.float32, expert_width="same_active")
    optimizer = torch.optim.Adam(mixture.parameters(), lr=1e-2)
    for _ in range(300):
        outcome, losses = mixture(x)
        optimizer.zero_grad()
        ((outcome - target).square().mean() / target.var() + weight * losses.balance + 1e-3 * losses.z).backward()
        optimizer.step()
    load = (x @ mixture.router.weight.T).topk(2).indices.flatten().bincount(minlength=8).float()
    variation = load.std(correction=0) / load.mean()
    assert variation < 0.3 if weight else variation > 0.5


def test_autocast_keeps_the_choice_of_experts():
    mixture, x = _mixture(dtype=torch.float32), _randn(2, 400, WIDTH, dtype=torch.float32).requires_grad_()
    exact, exact_losses = mixture(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outcome, losses = mixture(x)
    assert outcome.dtype == torch.float32
    assert torch.equal(losses.balance, exact_losses.balance)
    assert torch.equal(losses.z, exact_losses.z)
    assert 0 < (outcome - exact).abs().max() < 0.03 * exact.abs().max()
    (outcome.square().sum() + losses.balance).backward()
    assert all(p.grad.isfinite().all() for p in [x, *mixture.parameters()])


@pytest.mark.parametrize(("expert_width", "hidden"), [("same_active", 30), ("same_total", 12)])
def test_numbers_of_parameters(expert_width, hidden):
    mixture = _mixture(expert_width=expert_width)
    expert = WIDTH * hidden + hidden + hidden * WIDTH + WIDTH
    assert mixture.n_parameters_active() == 5 * WIDTH + 2 * expert
    assert sum(p.numel() for p in mixture.parameters()) == 5 * WIDTH + 5 * expert


def test_weights_begin_as_those_of_linear_layers():
    mixture = MixtureOfExperts(64, 400, n_experts=10, top_k=4)
    for weight, bias, n_in in ((mixture.weight_1, mixture.bias_1, 64), (mixture.weight_2, mixture.bias_2, 100)):
        for drawn in (weight, bias):
            assert drawn.abs().max() <= n_in**-0.5
            assert drawn.std().item() == pytest.approx((3 * n_in) ** -0.5, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 10, "top_k": 3}, "multiple of `top_k` .* found 10 and 3"),
        ({"hidden": 10, "top_k": 2, "expert_width": "same_total"}, "multiple of `n_experts` .* found 10 and 4"),
        ({"hidden": 10, "top_k": 5}, "from 1 to `n_experts`, found 5 and 4"),
        ({"hidden": 10, "top_k": 0}, "from 1 to `n_experts`, found 0 and 4"),
        ({"hidden": 10, "top_k": 2, "expert_width": "iso"}, "'same_total' or 'same_active', found 'iso'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfExperts(8, n_experts=4, **settings)


@pytest.mark.parametrize("mask", [torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5)])
def test_a_bad_mask_is_named_with_what_is_wanted(mask):
    with pytest.raises(ValueError, match=r"`mask` must be boolean of shape \(2, 5\), found torch"):
        _mixture()(_randn(2, 5, WIDTH), mask=mask)
