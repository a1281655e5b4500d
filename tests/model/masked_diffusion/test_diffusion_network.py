from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._network import Cells, DiffusionTransformer, Found
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings

KINDS = {
    "plain": {},
    "no norm": {"qk_norm": False},
    "elementwise gate": {"use_gated_attention": True},
    "headwise gate": {"use_gated_attention": True, "gate_type": "headwise"},
    "experts": {"use_moe": True},
    "narrow experts": {"use_moe": True, "expert_width": "same_total"},
    "told of the step before": {"self_conditioning": True},
    "gate and experts": {"use_gated_attention": True, "use_moe": True},
}


def some_cells(n_sets: int = 2, n: int = 9, *, n_dims: int = 2, n_latent: int = 4, seed: int = 0) -> Cells:
    generator = torch.Generator().manual_seed(seed)

    def normal(width: int) -> Tensor:
        return torch.randn(n_sets, n, width, generator=generator, dtype=torch.float64)

    return Cells(
        position=normal(n_dims),
        expression=normal(n_latent),
        time=torch.randint(5, (n_sets, n, 2), generator=generator).double() / 5,
        prior_position=normal(n_dims),
        position_sd=normal(n_dims).abs(),
        prior_expression=normal(n_latent),
        sd=normal(n_latent).abs(),
        around=normal(3 * n_latent),
        flags=torch.randint(2, (n_sets, n, 3), generator=generator).double(),
        earlier=normal(n_dims + n_latent),
        real=torch.ones(n_sets, n, dtype=torch.bool),
    )


def taken(cells: Cells, rows: Tensor) -> Cells:
    return Cells(*(part[:, rows] for part in cells))


def compare(found: Found, expected: Found, rows: Tensor | slice = slice(None)) -> None:
    for name in ("position", "expression", "tokens"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name)[:, rows], atol=1e-9, rtol=1e-9)


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest, make_module: Callable) -> DiffusionTransformer:
    return make_module(**KINDS[request.param]).network.double()  # where only what is wrong makes a difference


@torch.no_grad()
def test_the_order_of_cells_does_not_matter(network: DiffusionTransformer) -> None:
    cells, order = some_cells(), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    found, turned = network(cells), network(taken(cells, order))
    assert found.position.std() > 0.01
    assert found.expression.std() > 0.01
    compare(turned, found, order)
    torch.testing.assert_close(turned.router, found.router)


@torch.no_grad()
def test_padding_changes_nothing(network: DiffusionTransformer) -> None:
    cells = some_cells()
    alone = network(Cells(*(part[:, :6] for part in cells)))
    real = torch.arange(9).expand(2, 9) < 6
    for other in (cells, Cells(*(part.double() * 50 + 3 for part in cells))):
        mixed = [torch.where(real[..., None], a, b) for a, b in zip(cells[:-1], other[:-1], strict=True)]
        padded = network(Cells(*mixed, real))
        compare(alone, padded, slice(6))
        torch.testing.assert_close(padded.router, alone.router)


@torch.no_grad()
def test_sets_of_a_batch_are_apart(network: DiffusionTransformer) -> None:
    cells = some_cells(3)
    together = network(cells)
    for k in range(3):
        alone = network(Cells(*(part[k : k + 1] for part in cells)))
        torch.testing.assert_close(together.position[k], alone.position[0], atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(together.expression[k], alone.expression[0], atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_no_mask_is_all_real(network: DiffusionTransformer) -> None:
    cells = some_cells()
    compare(network(cells._replace(real=None)), network(cells))


@pytest.mark.parametrize("kind", [0, 1], ids=["position", "expression"])
@torch.no_grad()
def test_time_changes_what_every_block_does(network: DiffusionTransformer, kind: int) -> None:
    cells = some_cells(1)
    later = cells.time.clone()
    later[0, 4, kind] = 0.97
    x = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for block in network.blocks:
        changes = []
        for time in (cells.time, later):
            embedded = torch.nn.functional.silu(
                network.position_time(time[0, :, 0]) + network.expression_time(time[0, :, 1])
            )
            changes.append(block(x, embedded, torch.arange(9)[None], None)[0] - x)
        difference = (changes[0] - changes[1])[0].abs().amax(-1)
        assert difference[4] > 0.05  # of the cell itself, much more than through what the others read of it
    outputs = [network(cells._replace(time=time)) for time in (cells.time, later)]
    assert (outputs[0].position - outputs[1].position)[0, 4].abs().max() > 0.01
    assert (outputs[0].expression - outputs[1].expression)[0, 4].abs().max() > 0.01


@torch.no_grad()
def test_the_two_times_are_told_apart(network: DiffusionTransformer) -> None:
    cells = some_cells()
    cells = cells._replace(time=torch.tensor([0.2, 0.8], dtype=torch.float64).expand(2, 9, 2))
    swapped = network(cells._replace(time=cells.time.flip(-1)))
    assert (network(cells).position - swapped.position).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("field", [name for name in Cells._fields if name not in ("real", "time")])
@torch.no_grad()
def test_everything_given_is_read(make_module: Callable, field: str) -> None:
    network, cells = make_module(self_conditioning=True).network.double(), some_cells()
    found = network(cells)
    for column in range(getattr(cells, field).shape[-1]):
        changed = getattr(cells, field).clone()
        changed[0, 3, column] += 0.5
        other = network(cells._replace(**{field: changed}))
        difference = (found.position - other.position).abs().amax(-1)
        assert difference[0, 3] > 1e-4
        assert difference[0].min() > 1e-7  # the other cells of the set read it as well
        assert difference[1].max() == 0  # other sets do not


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_before_training_outputs_are_zero_and_blocks_do_nothing(make_module: Callable, kind: str) -> None:
    network, cells = make_module(begin=True, **KINDS[kind]).network.double(), some_cells()
    found = network(cells)
    assert (found.position == 0).all()
    assert (found.expression == 0).all()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    for block in network.blocks:
        assert torch.equal(block(x, torch.randn(1, 16).double(), torch.zeros(2, 9, dtype=torch.int64), None)[0], x)


@pytest.mark.parametrize("n_dims", [2, 3])
@torch.no_grad()
def test_waves_repeat_after_twice_the_width_of_a_slice(make_settings: Callable, n_dims: int) -> None:
    network = DiffusionTransformer(make_settings(n_frequencies=3), n_dims, 4)
    position = torch.randn(1, 50, n_dims, dtype=torch.float64)
    waves = network._waves(position)
    assert waves.shape == (1, 50, 6 * n_dims)
    torch.testing.assert_close(waves, network._waves(position + 8), atol=1e-5, rtol=0)
    assert (waves - network._waves(position + 4)).abs().amax(-1).min() > 0.1
    assert network.double()(some_cells(n_dims=n_dims)).position.shape == (2, 9, n_dims)


def test_every_weight_learns(network: DiffusionTransformer) -> None:
    # No weight is left unused by the forward pass: each has a gradient that is not zero.
    found = network(some_cells())
    (found.position.square().sum() + found.expression.square().sum() + found.router.balance).backward()
    dead = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead


def test_experts_have_losses_of_their_router(make_module: Callable) -> None:
    with torch.no_grad():
        plain, experts = (make_module(use_moe=use).network.double()(some_cells()).router for use in (False, True))
    assert (float(plain.balance), float(plain.z)) == (0.0, 0.0)
    assert experts.balance >= 0.9
    assert experts.z > 0


def test_settings_choose_the_parts(make_settings: Callable[..., DiffusionSettings]) -> None:
    blocks = DiffusionTransformer(make_settings(n_layers=3, use_moe=True, moe_top_k=1), 2, 4).blocks
    assert len(blocks) == 3
    assert blocks[0].experts.n_experts == 4
    assert blocks[0].experts.top_k == 1
    assert blocks[0].attention.gate is None
    assert blocks[0].attention.n_heads == 2
    for kind, width in (("elementwise", 16), ("headwise", 2)):
        settings = make_settings(use_gated_attention=True, gate_type=kind)
        assert DiffusionTransformer(settings, 2, 4).blocks[0].attention.gate.out_features == width
