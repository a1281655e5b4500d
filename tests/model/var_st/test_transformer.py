from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stomics_tools.model.var_st._transformer import NextScaleTransformer, TransformerBlock

SIZES = (2, 3, 5)
SCALES = (slice(0, 2), slice(2, 5), slice(5, 10))


def make_transformer(sizes: tuple[int, ...] = SIZES, dropout: float = 0.0) -> NextScaleTransformer:
    """With random weights everywhere, so that nothing is hidden by weights that begin at zero."""
    torch.manual_seed(0)
    model = NextScaleTransformer(
        sizes, n_field=4, n_outputs=7, width=8, n_heads=2, n_layers=3, n_hidden=16, dropout=dropout
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def example(n: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 8), torch.randn(n, sum(SIZES) - SIZES[0], 4)


@torch.no_grad()
@pytest.mark.parametrize("token", range(8))
def test_a_token_tells_those_of_its_scale_and_of_later_ones(token: int) -> None:
    model = make_transformer()
    condition, pooled = example()
    before = model(condition, pooled)
    pooled[:, token] += 1
    changed = (model(condition, pooled) - before).abs().amax((0, 2)) > 1e-6
    scale = 1 if token < 3 else 2
    assert not changed[: SCALES[scale].start].any()
    assert changed[SCALES[scale].start :].all()


@torch.no_grad()
def test_step_by_step_as_at_once() -> None:
    model = make_transformer()
    condition, pooled = example()
    whole = model(condition, pooled)
    cache: list = []
    for scale, tokens in enumerate(SCALES):
        inputs = pooled[:, tokens.start - SIZES[0] : tokens.stop - SIZES[0]] if scale else None
        logits, cache = model.step(condition, inputs, scale, cache)
        torch.testing.assert_close(logits, whole[:, tokens], rtol=1e-5, atol=1e-5)
        assert all(keys.shape == (3, 2, tokens.stop, 4) for pair in cache for keys in pair)


@torch.no_grad()
def test_one_scale_needs_the_condition_alone() -> None:
    model = make_transformer((4,))
    condition = torch.randn(2, 8)
    logits, _ = model.step(condition, None, 0, [])
    torch.testing.assert_close(logits, model(condition, torch.empty(2, 0, 4)))


@torch.no_grad()
def test_spots_of_a_batch_do_not_see_each_other() -> None:
    model = make_transformer()
    condition, pooled = example()
    torch.testing.assert_close(model(condition, pooled)[1:2], model(condition[1:2], pooled[1:2]))


@torch.no_grad()
def test_block_matches_dense_attention() -> None:
    torch.manual_seed(0)
    width, n_heads = 6, 3
    block = TransformerBlock(width, n_heads, 10, 0.1, depth=2).double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x, condition = torch.randn(4, width).double(), torch.randn(width).double()
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]).bool()

    def normalised(tokens: Tensor) -> Tensor:
        centred = tokens - tokens.mean(1, keepdim=True)
        return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()

    modulation = block.modulate[1]
    active = condition / (1 + torch.exp(-condition))
    gate_1, gate_2, scale_1, scale_2, shift_1, shift_2 = (modulation.weight @ active + modulation.bias).view(6, width)
    tokens = normalised(x) * (1 + scale_1) + shift_1
    three = tokens @ block.queries_keys_values.weight.T + block.queries_keys_values.bias
    attended = torch.zeros(4, width).double()
    for head in range(n_heads):
        own = slice(head * 2, head * 2 + 2)
        q, k, v = three[:, :width][:, own], three[:, width : 2 * width][:, own], three[:, 2 * width :][:, own]
        for i in range(4):
            seen = [j for j in range(4) if mask[i, j]]
            weight = torch.stack([torch.exp(q[i] @ k[j] / 2**0.5) for j in seen])
            attended[i, own] = sum(w * v[j] for w, j in zip(weight, seen, strict=True)) / weight.sum()
    y = x + gate_1 * (attended @ block.project.weight.T + block.project.bias)
    first, last = block.perceptron[0], block.perceptron[3]
    hidden = (normalised(y) * (1 + scale_2) + shift_2) @ first.weight.T + first.bias
    y = y + gate_2 * ((0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))) @ last.weight.T + last.bias)
    torch.testing.assert_close(block(x[None], condition[None], mask=mask)[0][0], y)


@torch.no_grad()
@pytest.mark.parametrize("fresh", [True, False], ids=["as it begins", "any weights"])
def test_the_condition_enters_every_block(fresh: bool) -> None:
    model = make_transformer()
    if fresh:
        model = NextScaleTransformer(SIZES, 4, 7, width=8, n_heads=2, n_layers=3, n_hidden=16, dropout=0.0).eval()
    x = torch.randn(1, 10, 8)
    for block in model.blocks:
        assert ((block(x, torch.ones(1, 8))[0] - block(x, -torch.ones(1, 8))[0]).abs() > 1e-6).all()


@torch.no_grad()
def test_the_condition_changes_the_logits_of_all_tokens() -> None:
    model = make_transformer()
    condition, pooled = example()
    difference = model(condition, pooled) - model(condition + 1, pooled)
    assert (difference.abs().amax(2) > 1e-4).all()


@torch.no_grad()
def test_a_fresh_stack_is_near_the_identity_and_its_logits_near_uniform() -> None:
    model = NextScaleTransformer(SIZES, 4, 7, width=64, n_heads=2, n_layers=12, n_hidden=256, dropout=0.0).eval()
    x = torch.randn(2, 10, 64)
    y = x
    for block in model.blocks:
        y, _ = block(y, torch.randn(2, 64))
    assert (y - x).norm() < x.norm()
    probability = model(torch.randn(2, 64), torch.randn(2, 8, 4)).softmax(-1)
    assert (probability - 1 / 7).abs().max() < 0.05


@torch.no_grad()
def test_dropout_acts_in_training_alone() -> None:
    model = make_transformer(dropout=0.5)
    condition, pooled = example()
    torch.testing.assert_close(model(condition, pooled), make_transformer()(condition, pooled))
    model.train()
    assert not torch.allclose(model(condition, pooled), model(condition, pooled))


def test_every_parameter_is_trained() -> None:
    model = make_transformer()
    model(*example()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def count(make: Callable[[], nn.Module]) -> int:
    return sum(parameter.numel() for parameter in make().parameters())


@pytest.mark.parametrize(("w", "h"), [(8, 16), (640, 2560)])
def test_parameters_of_a_block(w: int, h: int) -> None:
    formula = (3 * w * w + 3 * w) + (w * w + w) + (w * h + h + h * w + w) + (6 * w * w + 6 * w)
    assert count(lambda: TransformerBlock(w, 8, h, 0.1, depth=12)) == formula
