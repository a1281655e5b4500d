from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from stomics_tools.model.masked_diffusion import _drawing
from stomics_tools.model.masked_diffusion._drawing import Drawing, Given, How
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._slices import Slice

WINDOW = 8
SAMPLERS = ("ddim", "dpm++", "ancestral")


@pytest.fixture
def make_given(make_slice: Callable[..., Slice]) -> Callable[..., Given]:
    """A third of the cells placed, half of them told; NaN where nothing is given, so that reading it would be seen."""

    def make(n: int, *, placed: Any = None, told: Any = None, shown: Any = None, near: bool = False) -> Given:
        one = make_slice(n)
        told = torch.arange(n) % 2 == 0 if told is None else torch.full((n,), told)
        placed = torch.arange(n) % 3 == 0 if placed is None else torch.full((n,), placed)
        shown = told if shown is None else torch.full((n,), shown)
        return Given(
            genes=one.genes * told[:, None],
            panel=torch.ones(12),
            told=told,
            latent=one.latent.masked_fill(~told[:, None], 0.0 if near else torch.nan),
            shown=shown,
            position=one.position.masked_fill(~placed[:, None], torch.nan),
            placed=placed,
            near=one.near if near else None,
        )

    return make


@pytest.fixture
def module(make_module: Callable) -> MaskedDiffusionModule:
    return make_module(n_window=WINDOW)


def drawn(module: MaskedDiffusionModule, given: Given, how: How, seed: int = 0) -> tuple[Tensor, Tensor]:
    return Drawing(module, given, how).draw(torch.Generator().manual_seed(seed))


def watch(module: MaskedDiffusionModule) -> list[dict[str, Tensor]]:
    """Sets that are denoised from now on: what is given of them, values and times."""
    sets: list[dict[str, Tensor]] = []
    denoise = module.denoise

    def watched(noised: Any, time: Tensor, given: dict[str, Tensor], priors: Any, earlier: Any) -> Any:
        sets.append({**given, "position": noised[0], "latent": noised[1], "time": time})
        return denoise(noised, time, given, priors, earlier)

    module.denoise = watched  # type: ignore[method-assign]
    return sets


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("n", [1, 7, 16, 17, 45])
def test_all_cells_are_drawn_and_known_values_kept_bit_for_bit(
    module: MaskedDiffusionModule, make_given: Callable, n: int, sampler: Any
) -> None:
    given = make_given(n)
    position, latent = drawn(module, given, How(3, sampler))
    assert (position.shape, latent.shape) == ((n, 2), (n, 4))
    assert torch.equal(position[given.placed], given.position[given.placed])
    assert torch.equal(latent[given.shown], given.latent[given.shown])
    assert position.isfinite().all()
    assert latent.isfinite().all()
    assert len(position[~given.placed].unique(dim=0)) == (~given.placed).sum()


@pytest.mark.parametrize("n", [12, 45])
def test_with_one_of_both_known_only_the_other_is_drawn(
    module: MaskedDiffusionModule, make_given: Callable, n: int
) -> None:
    given = make_given(n, placed=True, told=False, near=True)
    position, latent = drawn(module, given, How(3, position=False))
    assert torch.equal(position, given.position)
    assert len(latent.unique(dim=0)) == n
    given = make_given(n, placed=False, told=True)
    position, latent = drawn(module, given, How(3, expression=False))
    assert torch.equal(latent, given.latent)
    assert len(position.unique(dim=0)) == n


@pytest.mark.parametrize("n", [12, 45])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_bits(module: MaskedDiffusionModule, make_given: Callable, n: int, sampler: Any) -> None:
    given, before = make_given(n), torch.get_rng_state()
    one, again, other = (drawn(module, given, How(3, sampler), seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_given_is_left_as_it_is(module: MaskedDiffusionModule, make_given: Callable) -> None:
    given, before = make_given(45), make_given(45)
    drawn(module, given, How(2))
    for name, value in vars(before).items():
        assert value is None or torch.equal(getattr(given, name).nan_to_num(7.0), value.nan_to_num(7.0))


@pytest.mark.parametrize("n", [17, 45, 200])
def test_sets_are_no_larger_than_those_of_training_and_hold_every_cell_once(
    module: MaskedDiffusionModule, make_given: Callable, n: int
) -> None:
    given = make_given(n)
    given = replace(given, genes=torch.arange(n)[:, None] * torch.ones(1, 12), told=torch.ones(n, dtype=torch.bool))
    sets = watch(module)
    drawn(module, given, How(1))
    rows = [one["genes"][0, :, 0].long().tolist() for one in sets]
    assert max(len(own) for own in rows) <= WINDOW
    anchors = rows[0]
    assert all(own[: len(anchors)] == anchors for own in rows[1:])
    others = [cell for own in rows[1:] for cell in own[len(anchors) :]]
    assert sorted(anchors + others) == list(range(n))
    assert sum(map(len, rows)) <= 2 * n + WINDOW  # linear


@pytest.mark.parametrize("n", [1, 5, 16])
def test_small_slices_are_drawn_together(module: MaskedDiffusionModule, make_given: Callable, n: int) -> None:
    sets = watch(module)
    drawn(module, make_given(n), How(2))
    assert [one["genes"].shape[1] for one in sets] == [n, n]


@pytest.mark.parametrize(("draws_position", "draws_expression"), [(True, False), (False, True), (True, True)])
def test_anchors_are_known_to_the_others(
    module: MaskedDiffusionModule, make_given: Callable, draws_position: bool, draws_expression: bool
) -> None:
    given = make_given(45, placed=False, told=False)
    sets = watch(module)
    found = drawn(module, given, How(1, "ddim", draws_position, draws_expression))
    n_anchors = sets[0]["position"].shape[1]
    for one in sets[1:]:
        for kind, (name, is_drawn) in enumerate((("position", draws_position), ("latent", draws_expression))):
            values, time = one[name][0, :n_anchors], one["time"][0, :, kind]
            assert torch.equal(time[:n_anchors] == 0, torch.full((n_anchors,), is_drawn))
            assert (time[n_anchors:] > 0.99).all()
            if is_drawn:
                # The same values in all sets, and those that are returned.
                assert torch.equal(values, sets[1][name][0, :n_anchors])
                assert (found[kind][:, None] == values).all(-1).any(0).all()
        assert torch.equal(one["placed"][0], (one["time"][0, :, 0] == 0))


def test_what_is_neither_known_nor_drawn_stays_noise(module: MaskedDiffusionModule, make_given: Callable) -> None:
    given = make_given(12, placed=False, told=True, shown=False)
    sets = watch(module)
    drawn(module, given, How(4, "ancestral", expression=False))
    assert len(sets) == 4
    for one in sets:
        assert torch.equal(one["latent"], sets[0]["latent"])
        assert (one["time"][..., 1] > 0.999).all()
    times = [float(one["time"][0, 0, 0]) for one in sets]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 4


def test_neighbours_are_read_of_cells_told_only(module: MaskedDiffusionModule, make_given: Callable) -> None:
    given = make_given(45, placed=True, near=True)
    sets = watch(module)
    drawn(module, given, How(1, position=False))
    changed = replace(given, latent=torch.where(given.told[:, None], given.latent, 9.0))
    drawn(module, changed, How(1, position=False))
    half = len(sets) // 2
    assert sets[0]["beside"].any()
    assert all(torch.equal(a["around"], b["around"]) for a, b in zip(sets[:half], sets[half:], strict=True))
    # By hand, of one cell: as many as `n_neighbors` of those that are told, the nearest first.
    drawing = Drawing(module, given, How())
    near = [j for j in given.near[4].tolist() if given.told[j]][:3]
    torch.testing.assert_close(drawing._around[4, 4:8], given.latent[near].mean(0))


@torch.no_grad()
def test_the_order_of_cells_does_not_matter(module: MaskedDiffusionModule, make_given: Callable) -> None:
    given, order = (
        make_given(14, near=True, placed=True),
        torch.randperm(14, generator=torch.Generator().manual_seed(3)),
    )
    given = replace(given, placed=torch.arange(14) % 3 == 0)
    rank = order.argsort()
    turned = Given(
        **{
            name: value if name == "panel" else rank[value[order]] if name == "near" else value[order]
            for name, value in vars(given).items()
        }
    )
    generator = torch.Generator().manual_seed(0)
    denoise, start = Drawing(module, given, How())._chain(given, torch.arange(14), generator)
    again, _ = Drawing(module, turned, How())._chain(turned, torch.arange(14), generator)
    found = denoise(start, 0.6)
    other = again({name: value[:, order] for name, value in start.items()}, 0.6)
    for name, value in found.items():
        assert value.std() > 0.1
        torch.testing.assert_close(other[name], value[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("n", [6, 8, 45])
def test_tokens_of_every_cell_once(module: MaskedDiffusionModule, make_given: Callable, n: int) -> None:
    given, before = make_given(n), torch.get_rng_state()
    parts = list(Drawing(module, given, How()).tokens())
    rows, tokens = (torch.cat(part) for part in zip(*parts, strict=True))
    assert sorted(rows.tolist()) == list(range(n))
    assert tokens.shape == (n, 16)
    assert max(len(part[0]) for part in parts) <= WINDOW
    again = torch.cat([part[1] for part in Drawing(module, given, How()).tokens()])
    assert torch.equal(again, tokens)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n", [6, 16, 45])
def test_expectations_of_all_cells(make_module: Callable, make_given: Callable, n: int) -> None:
    """Before training they are those of the priors, as noise that tells nothing has been averaged."""
    module, given = make_module(n_window=WINDOW, begin=True), make_given(n)
    given = replace(given, position=given.position.nan_to_num(), latent=given.latent.nan_to_num())
    position, latent = Drawing(module, given, How()).expect(torch.Generator().manual_seed(0), 16)
    batch = {"genes": given.genes, "told": given.told, "around": torch.zeros(n, 12), "panel": given.panel}
    batch = {name: value[None] for name, value in batch.items()} | {"beside": torch.zeros(1, n, dtype=torch.bool)}
    expected = module.expression_prior(batch)
    places = module.position_prior(batch).expected()[0]
    torch.testing.assert_close(position[given.placed], given.position[given.placed])
    torch.testing.assert_close(latent[given.shown], given.latent[given.shown])
    torch.testing.assert_close(position[~given.placed], places[~given.placed], atol=0.01, rtol=0)
    torch.testing.assert_close(latent[~given.shown], expected.mean[0, ~given.shown], atol=0.01, rtol=0)


@pytest.mark.parametrize("n", [6, 16, 45])
def test_expected_layout_is_of_probabilities_that_have_the_mean_expected(
    make_module: Callable, make_given: Callable, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """Those that genes tell, tilted by a linear function of the place."""
    module, given, laid = make_module(n_window=WINDOW), make_given(n, placed=False, told=True), []
    module.share.fill_(0.2)  # what an untrained network says whole is that cells lie where no tissue is
    layout_of = _drawing.expected_layout
    monkeypatch.setattr(_drawing, "expected_layout", lambda *args: laid.append(args) or layout_of(*args))
    drawing, before = Drawing(module, given, How(expression=False)), torch.get_rng_state()
    found, mean = drawing.expected_layout, drawing.expected_position
    again = Drawing(module, given, How(expression=False))
    assert torch.equal(again.expected_layout, found)
    assert torch.equal(again.expected_position, mean)
    assert torch.equal(torch.get_rng_state(), before)
    assert found.shape == mean.shape == (n, 2)
    torch.testing.assert_close(found.mean(0), mean.mean(0), atol=1e-3, rtol=0)
    assert (found - mean).abs().max() > 0.05
    probability, place = laid[0][:2]
    torch.testing.assert_close(probability @ place, mean, atol=1e-3, rtol=0)
    by_genes = module.probabilities(given.genes, given.panel)
    assert ((probability - by_genes) @ place).abs().max() > 0.01  # the network counts
    tilt = (probability / by_genes).log().T.double()
    linear = torch.column_stack([place, torch.ones(len(place))]).double()
    left = tilt - linear @ torch.linalg.lstsq(linear, tilt).solution
    assert left.abs().max() < 1e-3


def test_below_a_temperature_of_1_draws_lie_around_the_expected_layout(
    module: MaskedDiffusionModule, make_given: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = make_given(45, placed=False, told=True)
    how = How(3, expression=False)
    draw, mean = drawn(module, given, how)[0], Drawing(module, given, how).expected_position

    def layout(temperature: float, seed: int = 0) -> Tensor:
        return Drawing(module, given, how).layout(torch.Generator().manual_seed(seed), temperature)

    assert torch.equal(layout(1.0), draw)
    spread_out, tissues = layout(0.3), []
    monkeypatch.setattr(_drawing, "spread", lambda position, tissue, _: tissues.append(tissue) or position)
    middle = layout(0.0)
    torch.testing.assert_close(middle, Drawing(module, given, how).expected_layout)
    assert torch.equal(layout(0.0, 1), middle)  # whatever the draw
    torch.testing.assert_close(layout(0.25), middle + (draw - mean) / 2)
    torch.testing.assert_close(layout(0.81), middle + 0.9 * (draw - mean))
    # The density is that of the tissue of training.
    assert all(torch.equal(tissue, module.references.position) for tissue in tissues)
    for angle in torch.linspace(0, torch.pi, 5):
        way = torch.stack([angle.cos(), angle.sin()])
        assert wasserstein_distance(spread_out @ way, module.references.position @ way) < 0.1


def test_before_training_draws_follow_the_priors(make_module: Callable, make_given: Callable) -> None:
    """Mean and scatter of independent draws, whether among the anchors or after them."""
    module = make_module(n_window=64, begin=True)
    module.places.log_sharpness.fill_(2.0)
    given = make_given(400, placed=False, shown=False)
    given = replace(given, genes=given.genes[:1].expand(400, -1) * given.told[:, None])
    position, latent = drawn(module, given, How(20))
    told, places = given.told, module.places
    weights = torch.stack([module.probabilities(given.genes[:1], given.panel)[0], places.log_share.exp()])
    means, seconds = weights @ places.position, weights @ (places.position.square() + places.log_variance.exp())
    for own, mean, variance in zip((told, ~told), means, seconds - means.square(), strict=True):
        np.testing.assert_allclose(position[own].mean(0), mean, atol=0.2)
        np.testing.assert_allclose(position[own].std(0), variance.sqrt(), rtol=0.15)
    assert (means[0] - means[1]).abs().max() > 0.4
    np.testing.assert_allclose(latent[~told].mean(0), 0, atol=0.2)
    np.testing.assert_allclose(latent[~told].std(0), 1, rtol=0.15)


@pytest.mark.parametrize("drawn_", ["position", "expression"])
def test_guidance_is_away_from_what_is_said_without_the_condition(
    make_module: Callable, make_given: Callable, drawn_: str
) -> None:
    """Independent cells of whom nothing is given are expected in the middle: what is expected is stretched from it."""
    module = make_module(begin=True, n_window=32)
    kind = int(drawn_ == "expression")
    given = make_given(20, placed=True, near=True) if kind else make_given(20, told=True)
    ways = {"position": kind == 0, "expression": kind == 1}
    plain, guided = (
        Drawing(module, given, How(**ways, guidance=g)).expect(torch.Generator().manual_seed(0), 1)[kind]
        for g in (0.0, 0.5)
    )
    asked = ~given.told if kind else ~given.placed
    middle = torch.zeros(4) if kind else module.places.log_share.exp() @ module.places.position
    torch.testing.assert_close(guided[asked] - middle, 1.5 * (plain[asked] - middle), atol=0.02, rtol=0)
    assert (plain[asked] - middle).abs().max() > 0.2
    assert torch.equal(guided[~asked], plain[~asked])  # landmarks stay


def test_a_network_that_is_told_what_it_found_before(make_module: Callable, make_given: Callable) -> None:
    module = make_module(self_conditioning=True, n_window=WINDOW)
    given, seen = make_given(7), []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].earlier))
    outputs: list[Tensor] = []
    denoise = module.denoise

    def watched(*arguments: Any) -> Any:
        found = denoise(*arguments)
        outputs.append(torch.cat(found[:2], -1))
        return found

    module.denoise = watched  # type: ignore[method-assign]
    one = drawn(module, given, How(3))[0]
    assert seen[0] is None
    for told, before in zip(seen[1:], outputs, strict=False):
        assert torch.equal(told, before)
    with torch.no_grad():
        module.network.earlier.weight.zero_()
        module.network.earlier.bias.zero_()
    assert not torch.equal(drawn(module, given, How(3))[0], one)
