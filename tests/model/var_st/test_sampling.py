from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from stomics_tools.model.var_st._module import VarSTModule
from stomics_tools.model.var_st._sampling import Drawn, Sampling, draw_codes

Make = Callable[..., VarSTModule]


def drawn(networks: VarSTModule, condition: Tensor, seed: int = 0, **how: Any) -> Drawn:
    return draw_codes(networks, condition, Sampling(**how), torch.Generator().manual_seed(seed))


@torch.no_grad()
def at_once(networks: VarSTModule, condition: Tensor, codes: Tensor) -> Tensor:
    """Logits of all tokens, the coarser scales given."""
    return networks.transformer(condition, networks._pooled(codes))


@torch.no_grad()
def likeliest(networks: VarSTModule, logits: Tensor) -> Tensor:
    if not networks.settings.factorized:
        return logits.argmax(-1)
    quantizer = networks.stage1.quantizer
    parts = logits.split(list(quantizer.levels), dim=-1)
    return quantizer.join(torch.stack([part.argmax(-1) for part in parts], dim=-1))


@pytest.mark.parametrize("head", ["factorized", "joint"])
def test_likeliest_codes_are_those_of_all_scales_at_once(make_networks: Make, head: str) -> None:
    networks = make_networks(head=head)
    condition = torch.randn(7, 16)
    codes = drawn(networks, condition, temperature=0.0).codes
    assert torch.equal(codes, likeliest(networks, at_once(networks, condition, codes)))
    assert len(codes.unique(dim=0)) > 1  # they follow the condition


@pytest.mark.parametrize("head", ["factorized", "joint"])
def test_the_field_is_what_the_codes_stand_for(make_networks: Make, head: str) -> None:
    networks = make_networks(head=head)
    codes, field, _ = drawn(networks, torch.randn(7, 16))
    scales = networks.stage1.scales
    total = sum(networks.stage1.lookup(codes[:, tokens], scale) for scale, tokens in enumerate(scales.slices()))
    torch.testing.assert_close(field, total)
    assert codes.shape == (7, 10)
    assert codes.dtype == torch.int64


def test_one_pass_a_scale(make_networks: Make, tree: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    for scales in (tree, tree[1:], tree[2:]):
        networks = make_networks(scales)
        calls: list[int] = []
        step = networks.transformer.step

        def counted(*args: Any, calls: list[int] = calls, step: Any = step) -> Any:
            calls.append(args[2])
            return step(*args)

        monkeypatch.setattr(networks.transformer, "step", counted)
        for guidance in (0.0, 2.0):
            calls.clear()
            assert drawn(networks, torch.randn(2, 16), guidance=guidance).n_passes == len(scales)
            assert calls == list(range(len(scales)))


def test_codes_that_the_transformer_meets_are_pooled_as_in_training(make_networks: Make) -> None:
    networks = make_networks()
    condition = torch.randn(3, 16)
    codes = drawn(networks, condition, seed=4).codes
    seen: list[Tensor] = []
    step = networks.transformer.step
    networks.transformer.step = lambda c, pooled, *rest: seen.append(pooled) or step(c, pooled, *rest)  # type: ignore
    assert torch.equal(drawn(networks, condition, seed=4).codes, codes)
    torch.testing.assert_close(torch.cat(seen[1:], dim=1), networks._pooled(codes))
    assert seen[0] is None


def test_same_seed_same_draws(make_networks: Make) -> None:
    networks = make_networks()
    condition = torch.randn(9, 16)
    state = torch.get_rng_state()
    for how in ({}, {"top_k": 5}, {"top_p": 0.9}, {"guidance": 1.0}, {"temperature": 0.7}):
        first = drawn(networks, condition, **how)
        assert torch.equal(first.codes, drawn(networks, condition, **how).codes)
        assert not torch.equal(first.codes, drawn(networks, condition, seed=1, **how).codes)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("how", [{}, {"top_k": 5}])
def test_no_guidance_is_guidance_of_zero(make_networks: Make, how: dict[str, Any]) -> None:
    networks = make_networks()
    condition = torch.randn(9, 16)
    first = drawn(networks, condition, guidance=0.0, **how)
    networks.no_condition.data.add_(5)  # is not looked at
    second = drawn(networks, condition, guidance=0.0, **how)
    tiny = drawn(networks, condition, guidance=1e-9, **how)  # takes the path of guidance
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(first.codes, tiny.codes)


@pytest.mark.parametrize("head", ["factorized", "joint"])
@pytest.mark.parametrize("guidance", [0.5, 4.0])
def test_guidance_moves_logits_away_from_those_without_a_condition(
    make_networks: Make, head: str, guidance: float
) -> None:
    networks = make_networks(head=head)
    condition = torch.randn(30, 16)
    codes = drawn(networks, condition, temperature=0.0, guidance=guidance).codes
    given = at_once(networks, condition, codes)
    free = at_once(networks, networks.no_condition.expand(30, -1), codes)
    logits = given.clone()
    for scale, tokens in enumerate(networks.stage1.scales.slices()):
        rise = guidance * scale / 2
        logits[:, tokens] = (1 + rise) * given[:, tokens] - rise * free[:, tokens]
    assert torch.equal(codes, likeliest(networks, logits))
    plain = drawn(networks, condition, temperature=0.0).codes
    assert torch.equal(codes[:, :2], plain[:, :2])  # none at the first scale
    assert not torch.equal(codes, plain)


def test_guidance_acts_where_there_is_one_scale(make_networks: Make, tree: Tensor) -> None:
    networks = make_networks(tree[2:])
    condition = torch.randn(30, 16)
    codes = drawn(networks, condition, temperature=0.0, guidance=3.0).codes
    nothing = torch.zeros(30, 0, networks.settings.n_field)
    given, free = (networks.transformer(c, nothing).detach() for c in (condition, networks.no_condition.expand(30, -1)))
    assert torch.equal(codes, likeliest(networks, 4 * given - 3 * free))
    assert not torch.equal(codes, drawn(networks, condition, temperature=0.0).codes)


@pytest.mark.parametrize("head", ["factorized", "joint"])
def test_draws_follow_the_law_of_codes_given_the_coarser_scales(make_networks: Make, head: str) -> None:
    networks = make_networks(head=head)
    n = 4000
    condition = torch.randn(1, 16).expand(n, -1)
    codes = drawn(networks, condition).codes
    coarse, count = codes[:, :2].unique(dim=0, return_counts=True)
    likely = coarse[count.argmax()]
    same = codes[(codes[:, :2] == likely).all(1)]
    logits = at_once(networks, condition[:1], same[:1])[0]
    law = logits.softmax(-1)
    if head == "factorized":
        a, b = (part.softmax(-1) for part in logits.split([4, 4], dim=-1))
        law = (a[:, :, None] * b[:, None, :]).flatten(1)
    for token, rows in ((0, codes), (2, same), (4, same)):
        seen = rows[:, token].bincount(minlength=16).double()
        expected = law[token].double() / law[token].double().sum() * len(rows)
        assert len(rows) > 40
        assert chisquare(seen.numpy(), expected.numpy()).pvalue > 1e-3


def test_arguments_are_checked() -> None:
    assert Sampling(0.5, 10, 0.9, 2.0).checked() == Sampling(0.5, 10, 0.9, 2.0)
    for bad in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"guidance": -0.1}):
        with pytest.raises(ValueError, match=f"`{next(iter(bad))}`"):
            Sampling(**bad).checked()
