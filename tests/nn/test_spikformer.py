"""Spikformer against its parts put together by hand."""

from __future__ import annotations

import pytest
import torch

from stomics_tools.nn import LIFNode, Multispike, Spikformer, SpikingEncoding, SpikingRowPooling

T, B, N, C = 3, 2, 12, 8
GROUPS = torch.tensor([0, 1, 2, 0, 1, 2, 2, 3, 3, 0, 1, 0])
NEIGHBORS = torch.stack([(torch.arange(N) + i) % N for i in (-1, 0, 1)], dim=1)
OFFSETS = torch.tensor([[-1.0, 0.2], [0.0, 0.0], [1.0, -0.3]], dtype=torch.float64).expand(N, 3, 2)
POSITIONS = {"neighbors": NEIGHBORS, "offsets": OFFSETS}


def _x(seed=0, spikes=False):
    x = torch.randn(T, B, N, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    return (x > 0).double() if spikes else x


def _made(*arguments, n_calls=4, groups=(), positions=None, **settings):
    """Neurons that fire often, and statistics of the norms."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Spikformer(*arguments, **{"n_heads": 2, "mlp_ratio": 2.0, **settings}).double()
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data.fill_(3.0)
        elif name.endswith("norm.bias"):
            parameter.data.fill_(0.7)
    for seed in range(n_calls):
        model(_x(seed, settings.get("residual") == "sew"), groups, **positions or {})
    return model.eval()


def test_flat_is_its_blocks():
    model, x = _made(C, 2), _x()
    (stage,) = model.stages
    assert len(stage) == 2
    assert torch.equal(model(x), stage[1](stage[0](x)))
    assert stage[0].attention.form == "ssa"
    assert model(x).shape == (T, B, N, C)
    assert not torch.equal(model(x), stage[0](x))


@pytest.mark.parametrize("residual", ["sew", "membrane"])
def test_positions_are_added_first(residual):
    model, x = _made(C, 1, n_dims=2, residual=residual, positions=POSITIONS), _x(0, residual == "sew")
    read = x if residual == "sew" else LIFNode(tau=2.0)(x)
    around = model.position(read, NEIGHBORS, OFFSETS)
    assert (around.unique().numel() == 2) == (residual == "sew")
    torch.testing.assert_close(model(x, **POSITIONS), model.stages[0](x + around))


@pytest.mark.parametrize("residual", ["sew", "membrane"])
def test_stages_by_hand(residual):
    second = torch.tensor([0, 1, 1, 0])
    model = _made([C, 16, 4], [1, 2, 1], groups=(GROUPS, second), residual=residual)
    x = _x(0, residual == "sew")
    assert [stage[0].attention.form for stage in model.stages] == ["token", "token", "ssa"]
    a = model.stages[0](x)
    b = model.stages[1](model.pooling[0](a, GROUPS))
    c = model.stages[2](model.pooling[1](b, second))
    assert b.shape == (T, B, 4, 16)
    assert c.shape == (T, B, 2, 4)
    assert torch.equal(model(x, (GROUPS, second)), c)
    if residual == "sew":
        assert torch.equal(c, c.round())


@pytest.mark.parametrize("residual", ["sew", "membrane"])
def test_pooling_by_hand(residual):
    pooling, x = SpikingRowPooling(C, 5, residual=residual).double(), _x(0, residual == "sew")
    pooling.layer.norm.weight.data.fill_(3.0)
    spikes = x if residual == "sew" else LIFNode(tau=2.0)(x)
    z = torch.stack([spikes[:, :, GROUPS == g].mean(2) for g in range(4)], dim=2) @ pooling.layer.linear.weight.T
    expected = 3.0 * (z - z.mean((0, 1, 2))) / z.var((0, 1, 2), correction=0).add(1e-5).sqrt()
    expected = LIFNode(tau=2.0)(expected) if residual == "sew" else expected
    torch.testing.assert_close(pooling(x, GROUPS), expected)
    assert (expected != 0).any()


@pytest.mark.parametrize("form", ["ssa", "mask", "token", "channel"])
def test_rows_may_come_in_any_order(form):
    model, x = _made(C, 2, forms=[form]), _x()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(x[:, :, order]), model(x)[:, :, order])
    torch.testing.assert_close(model(x[:, :1]), model(x)[:, :1])


def test_groups_and_positions_go_with_the_rows():
    settings = {"groups": (GROUPS,), "positions": POSITIONS, "n_dims": 2}
    model, x = _made([C, 16], [1, 1], **settings), _x()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    to = torch.argsort(order)
    expected = model(x, (GROUPS,), **POSITIONS)
    found = model(x[:, :, order], (GROUPS[order],), neighbors=to[NEIGHBORS[order]], offsets=OFFSETS[order])
    torch.testing.assert_close(found, expected)
    elsewhere = model(x[:, :, order], (GROUPS[order],), **POSITIONS)
    assert not torch.allclose(elsewhere, expected)


@pytest.mark.parametrize("residual", ["sew", "membrane"])
@pytest.mark.parametrize("settings", [{}, {"bits": 4}, {"neuron": lambda v_threshold: Multispike()}])
def test_gradients_reach_all_weights(residual, settings):
    groups = (GROUPS,)
    given = {"groups": groups, "positions": POSITIONS, "n_dims": 2, "residual": residual, **settings}
    model = _made([C, 16], [1, 1], **given).train()
    x = _x(5, residual == "sew").requires_grad_()
    y = model(x, groups, **POSITIONS)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert x.grad.abs().max() > 0


def test_what_comes_later_does_not_matter():
    model, x = _made([C, 16], [1, 1], groups=(GROUPS,)), _x()
    torch.testing.assert_close(model(x[:2], (GROUPS,)), model(x, (GROUPS,))[:2])
    assert not torch.allclose(model(x[1:], (GROUPS,)), model(x, (GROUPS,))[1:])


def test_a_task_that_needs_other_rows_is_learned():
    """Whether the set, not the row, has many large values in one feature: no row alone can tell."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g = torch.Generator().manual_seed(0)
        label = torch.arange(32) % 2
        x = torch.randn(32, 20, 6, generator=g)
        x[:, :10, 0] += 4.0 * label[:, None]  # of half of the rows; the readout sees the other half alone
        encode, model, read = SpikingEncoding(6, 16, neuron=None), Spikformer(16, 1, 2), torch.nn.Linear(16, 2)
        parts = torch.nn.ModuleList([encode, model, read])
        optimizer = torch.optim.Adam(parts.parameters(), lr=1e-2)
        for _ in range(60):
            scores = read(model(encode(x))[:, :, 10:].mean((0, 2)))
            loss = torch.nn.functional.cross_entropy(scores, label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (scores.argmax(1) == label).float().mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([8, 16], [1]), "must have one entry a stage, found 2, 1 and 2"),
        ((8, [1, 1]), "must have one entry a stage, found 1, 2 and 1"),
    ],
)
def test_bad_stages(arguments, message):
    with pytest.raises(ValueError, match=message):
        Spikformer(*arguments, n_heads=2)


def test_groups_and_positions_must_be_there():
    with pytest.raises(ValueError, match="`groups` must have 1 entries, one a step between stages, found 0"):
        Spikformer([8, 16], [1, 1], 2)(_x().float())
    with pytest.raises(ValueError, match="`neighbors` and `offsets` are needed"):
        Spikformer(8, 1, 2, n_dims=2)(_x().float())
