from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stomics_tools.model.var_st._module import Stage1, Stage2, VarSTModule
from stomics_tools.model.var_st._parameters import parameter_table
from stomics_tools.model.var_st._settings import resolve

Make = Callable[..., VarSTModule]


def count(*parts: torch.nn.Module) -> int:
    return sum(parameter.numel() for part in parts for parameter in part.parameters())


def example(networks: VarSTModule, n: int = 12) -> dict[str, Tensor]:
    x = torch.randn(n, 9)
    with torch.no_grad():
        codes = networks.stage1.quantize(networks.stage1.encode(x, torch.ones_like(x))).codes
    return {
        "inputs": torch.randn(n, 6),
        "expression": x,
        "measured": torch.ones_like(x),
        "fold": torch.arange(n) % 3,
        "smooth": torch.randn(n, 9),
        "novelty": torch.rand(n, 1),
        "codes": codes,
    }


@pytest.mark.parametrize("head", ["factorized", "joint"])
def test_loss_of_codes_is_the_mean_over_scales_of_the_mean_over_tokens(make_networks: Make, head: str) -> None:
    networks = make_networks(head=head, condition_dropout=0.0)
    batch = example(networks)
    with torch.no_grad():
        found = networks.generator_loss(batch)
        pairs = zip(batch["inputs"], batch["fold"], strict=True)
        head_says = torch.stack([networks.mean.layers(x.expand(5, 1, -1))[2 + f, 0] for x, f in pairs])
        expected = (1 - batch["novelty"]) * head_says + batch["novelty"] * batch["smooth"]
        condition = networks.condition(batch["inputs"]) + networks.expected(expected)
        cache: list = []
        known, total = torch.zeros(()), 0.0
        for scale, tokens in enumerate(networks.stage1.scales.slices()):
            pooled = networks.stage1.scales.down(known, scale) if scale else None
            logits, cache = networks.transformer.step(condition, pooled, scale, cache)
            codes = batch["codes"][:, tokens]
            if head == "joint":
                law = logits.softmax(-1)
            else:
                a, b = (part.softmax(-1) for part in logits.split([4, 4], dim=-1))
                law = (a[..., :, None] * b[..., None, :]).flatten(-2)
            total += -law.gather(-1, codes[..., None]).log().mean().item() / 3
            known = known + networks.stage1.lookup(codes, scale)
    assert found.item() == pytest.approx(total, rel=1e-5)


def test_stage_two_leaves_stage_one_and_folds_apart(make_networks: Make) -> None:
    networks = make_networks()
    batch = example(networks)
    before = {name: value.clone() for name, value in networks.stage1.state_dict().items()}
    stage = Stage2(networks).train()
    stage.loss(batch)["code_loss"].backward()
    assert all(p.grad is None for p in networks.mean.parameters())
    assert all(p.grad is None for p in networks.stage1.parameters())
    trained = (networks.transformer, networks.condition, networks.expected)
    assert all(p.grad is not None and p.grad.any() for part in trained for p in part.parameters())
    for name, value in networks.stage1.state_dict().items():
        assert torch.equal(value, before[name])
    losses = stage.loss(batch)
    assert losses["train_loss"].item() == pytest.approx((losses["mean_loss"] + losses["code_loss"]).item())


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_the_mean_head_stays(make_networks: Make, mode: bool) -> None:
    networks = make_networks().train(mode)
    batch = example(networks)
    networks.generator_loss(batch)
    assert {part.training for part in networks.mean.modules()} == {mode}


def test_stage_two_trains_with_stage_one_in_evaluation(make_networks: Make) -> None:
    networks = make_networks(quantizer="ema")
    stage = Stage2(networks).train()
    assert networks.mean.training
    assert not any(part.training for part in networks.stage1.modules())
    Stage1(networks).train()
    assert all(part.training for part in networks.stage1.modules())
    assert not any(part.training for part in stage.eval().modules())


@torch.no_grad()
def test_the_condition_is_dropped_for_a_share_of_the_spots(make_networks: Make) -> None:
    networks = make_networks(condition_dropout=0.95)
    batch = {name: value.repeat(50, *[1] * (value.dim() - 1)) for name, value in example(networks, 4).items()}
    seen: list[Tensor] = []
    networks.transformer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    networks.generator_loss(batch)
    share = (seen[0] == networks.no_condition).all(1).double().mean().item()
    assert share == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / 200) ** 0.5)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_expectation_is_the_head_and_the_kernel_by_their_shares(make_networks: Make, share: float) -> None:
    networks = make_networks()
    networks.smooth.landmarks.normal_()
    networks.smooth.coefficients.normal_()
    networks.smooth.usual_distance.fill_(3.0)
    networks.smooth_share.fill_(share)
    x = torch.randn(50, 6)
    head, kernel, strange = networks.mean(x), networks.smooth(x), networks.smooth.novelty(x)
    assert strange.min() == 0
    assert strange.max() > 0.5
    base = (1 - strange) * head + strange * kernel
    torch.testing.assert_close(networks.expectation(x), (1 - share) * base + share * kernel)
    torch.testing.assert_close(networks.conditions(x), networks.condition(x) + networks.expected(base))


def test_one_scale_alone(make_networks: Make, tree: Tensor) -> None:
    networks = make_networks(tree[2:])
    batch = example(networks)
    assert batch["codes"].shape == (12, 5)
    assert networks.generator_loss(batch).isfinite()


def test_parameters_are_all_counted(make_networks: Make) -> None:
    networks = make_networks()
    table = parameter_table(networks)["parameters"]
    assert table["all"] == table.drop("all").sum() == count(networks)
    assert table["stage 1"] == count(networks.stage1)
    assert table["mean head"] == count(networks.mean)


def test_parameters_of_the_published_size() -> None:
    settings = resolve("paper", {})
    tree = torch.stack([torch.arange(200) * scale // 200 for scale in (1, 8, 32, 200)])
    networks = VarSTModule(settings, tree, n_features=1024, n_inputs=1024, n_folds=5, n_landmarks=1)
    table = parameter_table(networks)
    w, h, n_layers, n_tokens = 640, 2560, 12, 241
    block = (4 * w * w + 4 * w) + (2 * w * h + h + w) + (6 * w * w + 6 * w)
    assert table.loc["transformer blocks", "parameters"] == n_layers * block
    ends = (128 * w + w) + n_tokens * w + 4 * w + (2 * w * w + 2 * w) + (4096 * w + 4096)
    assert table.loc["transformer ends", "parameters"] == ends
    condition = (1024 * w + w) + (w * w + w) + (200 * w + w) + w
    assert table.loc["condition", "parameters"] == condition
    assert table.loc["all", "published"] == table["published"].drop("all").sum()
