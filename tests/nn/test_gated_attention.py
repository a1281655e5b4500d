"""Attention against a dense softmax written out, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from stomics_tools.nn import GatedAttention

WIDTH, HEADS = 24, 4
GATES = [None, "elementwise", "headwise"]


def _randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _attention(**settings):
    """With all parameters moved off their initial values: gains of one and a constant gate hide mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = GatedAttention(WIDTH, HEADS, **settings).double()
        with torch.no_grad():
            for parameter in attention.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return attention


def _normed(x, gain):
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def _dense(attention, x, context=None, real=None):
    """One set and one head at a time, every weight of attention written out."""
    context = x if context is None else context
    size, rows = WIDTH // HEADS, []
    for i in range(len(x)):
        seen = context[i] if real is None else context[i][real[i]]
        queries = x[i] @ attention.query.weight.T
        keys, values = (seen @ part.T for part in attention.key_value.weight.split(WIDTH))
        heads = []
        for head in range(HEADS):
            columns = slice(head * size, (head + 1) * size)
            q, k, v = queries[:, columns], keys[:, columns], values[:, columns]
            if attention.query_gain is not None:
                q, k = _normed(q, attention.query_gain), _normed(k, attention.key_gain)
            weights = torch.exp(q @ k.T / math.sqrt(size))
            y = weights / weights.sum(1, keepdim=True) @ v
            if attention.gate is not None:
                gate = 1 / (1 + torch.exp(-(x[i] @ attention.gate.weight.T + attention.gate.bias)))
                y = y * (gate[:, columns] if gate.shape[1] == WIDTH else gate[:, [head]])
            heads.append(y)
        rows.append(torch.cat(heads, dim=1) @ attention.project.weight.T)
    return torch.stack(rows)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("cross", [False, True])
def test_equals_the_dense_reference(gate, qk_norm, cross):
    attention, x = _attention(gate=gate, qk_norm=qk_norm), _randn(3, 11, WIDTH)
    context = _randn(3, 7, WIDTH, seed=1) if cross else None
    real = torch.arange(7 if cross else 11) < torch.tensor([[4], [7], [1]])
    torch.testing.assert_close(attention(x, context=context), _dense(attention, x, context))
    ours = attention(x, context=context, key_padding_mask=real)
    torch.testing.assert_close(ours, _dense(attention, x, context, real))
    assert not torch.allclose(ours, attention(x, context=context))


@pytest.mark.parametrize("gate", GATES)
def test_gradients_equal_the_dense_reference(gate):
    attention, x, context = _attention(gate=gate), _randn(2, 6, WIDTH), _randn(2, 5, WIDTH, seed=1)
    real = torch.arange(5) < torch.tensor([[5], [2]])
    inputs = [x.requires_grad_(), context.requires_grad_(), *attention.parameters()]
    ours = torch.autograd.grad(attention(x, context=context, key_padding_mask=real).pow(3).sum(), inputs)
    dense = torch.autograd.grad(_dense(attention, x, context, real).pow(3).sum(), inputs)
    for one, other in zip(ours, dense, strict=True):
        assert other.any()
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("gate", ["elementwise", "headwise"])
def test_a_gate_wide_open_is_no_gate(gate):
    attention, plain, x = _attention(gate=gate), _attention(gate=None), _randn(2, 9, WIDTH)
    plain.load_state_dict({k: v for k, v in attention.state_dict().items() if not k.startswith("gate.")})
    assert not torch.allclose(attention(x), plain(x))
    torch.nn.init.constant_(attention.gate.bias, torch.inf)
    torch.testing.assert_close(attention(x), plain(x), rtol=0, atol=0)
    torch.testing.assert_close(attention(x), _dense(plain, x))


def test_headwise_is_elementwise_with_tied_channels():
    headwise, elementwise, x = _attention(gate="headwise"), _attention(gate="elementwise"), _randn(2, 9, WIDTH)
    tied = {name: value.repeat_interleave(WIDTH // HEADS, 0) for name, value in headwise.gate.state_dict().items()}
    state = headwise.state_dict() | {f"gate.{name}": value for name, value in tied.items()}
    elementwise.load_state_dict(state)
    torch.testing.assert_close(headwise(x), elementwise(x))


@pytest.mark.parametrize("gate", ["elementwise", "headwise"])
def test_the_gate_begins_constant_at_sigmoid_of_two(gate):
    gated, x = GatedAttention(WIDTH, HEADS, gate=gate), _randn(2, 9, WIDTH, dtype=torch.float32)
    plain = GatedAttention(WIDTH, HEADS)
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gate.")})
    torch.testing.assert_close(gated(x), plain(x) / (1 + math.exp(-2)))


@pytest.mark.parametrize("gate", GATES)
def test_padding_changes_neither_values_nor_gradients(gate):
    attention = _attention(gate=gate).float()
    parameters = list(attention.parameters())
    x, far = _randn(1, 8, WIDTH, dtype=torch.float32), 50 * _randn(1, 5, WIDTH, seed=1, dtype=torch.float32)
    real = (torch.arange(13) < 8)[None]
    results = []
    for padding in (x[:, :0], far, -far):
        rows, mask = x.clone().requires_grad_(), real[:, : 8 + padding.shape[1]]
        outcome = attention(torch.cat([rows, padding], 1), key_padding_mask=mask)[:, :8]
        results.append([outcome, *torch.autograd.grad(outcome.square().mean(), [rows, *parameters])])
    for padded in results[1:]:
        for one, other in zip(results[0], padded, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gate", GATES)
def test_permutation_of_tokens_permutes_the_outcome_and_that_of_the_context_changes_nothing(gate):
    attention, x, context = _attention(gate=gate), _randn(2, 10, WIDTH), _randn(2, 7, WIDTH, seed=1)
    order, real = torch.tensor([3, 1, 9, 0, 2, 8, 7, 5, 4, 6]), torch.arange(10) < torch.tensor([[6], [10]])
    torch.testing.assert_close(
        attention(x[:, order], key_padding_mask=real[:, order]), attention(x, key_padding_mask=real)[:, order]
    )
    torch.testing.assert_close(attention(x[:, order], context=context), attention(x, context=context)[:, order])
    torch.testing.assert_close(attention(x, context=context[:, [6, 2, 0, 1, 5, 4, 3]]), attention(x, context=context))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cross", [False, True])
def test_a_set_of_padding_alone_gives_zeros_and_no_gradient(dtype, cross):
    attention = _attention(gate="elementwise").to(dtype)
    x = _randn(3, 6, WIDTH).to(dtype).requires_grad_()
    context = _randn(3, 5, WIDTH).to(dtype) if cross else None
    real = torch.tensor([[True], [False], [True]]).expand(-1, 5 if cross else 6)
    outcome = attention(x, context=context, key_padding_mask=real)
    assert not outcome[1].any()
    assert outcome[0].any()
    gradients = torch.autograd.grad(outcome.float().square().sum(), [x, *attention.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][1].any()
    if not cross:
        torch.testing.assert_close(outcome[[0, 2]], attention(x[[0, 2]]))


def test_kernels_get_no_mask_unless_there_is_padding(monkeypatch):
    masks, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, attn_mask, **k: masks.append(attn_mask) or kernel(*a, **k)
    )
    attention, x = _attention(), _randn(2, 5, WIDTH)
    attention(x)
    attention(x, key_padding_mask=torch.ones(2, 5, dtype=torch.bool))
    attention(x, key_padding_mask=torch.arange(5).expand(2, -1) < 3)
    assert masks[:2] == [None, None]
    assert masks[2].shape == (2, 1, 1, 5)
    # A softmax over nothing is for no kernel.
    attention(x, key_padding_mask=torch.arange(5) < torch.tensor([[0], [2]]))
    assert masks[3].sum(-1).flatten().tolist() == [5, 2]


def test_dropout_is_for_training_only():
    attention, x = _attention(dropout=0.5), _randn(2, 9, WIDTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.allclose(attention(x), attention(x))
        attention.eval()
        torch.testing.assert_close(attention(x), _dense(attention, x))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.filterwarnings("error")
def test_autocast(gate, qk_norm):
    attention = _attention(gate=gate, qk_norm=qk_norm).float()
    x, real = _randn(2, 9, WIDTH, dtype=torch.float32), torch.arange(9) < torch.tensor([[4], [9]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outcome = attention(x, key_padding_mask=real)
    assert outcome.dtype == torch.bfloat16
    outcome.float().square().sum().backward()
    exact = attention(x, key_padding_mask=real)
    assert (outcome - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "n_heads": 4}, "multiple of `n_heads`, found 10 and 4"),
        ({"width": 8, "n_heads": 0}, "multiple of `n_heads`, found 8 and 0"),
        ({"width": 8, "n_heads": 2, "gate": "rowwise"}, "'elementwise', 'headwise' or None, found 'rowwise'"),
        ({"width": 8, "n_heads": 2, "dropout": 1.0}, "`dropout` must be .* found 1.0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        GatedAttention(**settings)


@pytest.mark.parametrize("mask", [torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 5)])
def test_a_bad_mask_is_named_with_what_is_wanted(mask):
    with pytest.raises(ValueError, match=r"`key_padding_mask` must be boolean of shape \(2, 5\), found torch"):
        _attention()(_randn(2, 5, WIDTH), key_padding_mask=mask)
