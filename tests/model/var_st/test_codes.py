from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from stomics_tools.model.var_st._codes import cross_entropy, draw, n_logits
from stomics_tools.nn import FSQ, VectorQuantizer

FINITE = FSQ((4, 3, 2))  # uneven on purpose
N = 24


def how(**given: Any) -> dict[str, Any]:
    plain = {"factorized": False, "temperature": 1.0, "top_k": None, "top_p": None}
    return {**plain, "generator": torch.Generator().manual_seed(0), **given}


def joint_law(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities ``(..., 24)`` of codes whose levels are independent, in the order of the codes."""
    a, b, c = (part.div(temperature).softmax(-1) for part in logits.split([4, 3, 2], dim=-1))
    return torch.einsum("...i,...j,...k->...ijk", a, b, c).flatten(-3)


def test_number_of_logits() -> None:
    assert n_logits(FINITE, factorized=False) == 24
    assert n_logits(FINITE, factorized=True) == 9
    assert n_logits(VectorQuantizer(10, 2), factorized=False) == 10
    with pytest.raises(ValueError, match="head='joint'"):
        n_logits(VectorQuantizer(10, 2), factorized=True)


@pytest.mark.parametrize("quantizer", [FINITE, VectorQuantizer(N, 3)], ids=["fsq", "ema"])
def test_hard_targets_give_the_usual_cross_entropy(quantizer: FSQ | VectorQuantizer) -> None:
    logits, codes = torch.randn(3, 5, N), torch.randint(N, (3, 5))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(3, 5)
    torch.testing.assert_close(cross_entropy(logits, codes, quantizer, factorized=False, softness=0.0), expected)


def test_factorized_loss_is_that_of_the_product_law() -> None:
    logits, codes = torch.randn(3, 5, 9), torch.randint(N, (3, 5))
    expected = -joint_law(logits).log().gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(cross_entropy(logits, codes, FINITE, factorized=True, softness=0.0), expected)


@pytest.mark.parametrize("softness", [0.1, 2.0])
def test_soft_targets_decay_with_the_distance_of_codes(softness: float) -> None:
    logits, codes = torch.randn(3, 5, N), torch.randint(N, (3, 5))
    levels = torch.randn(3, 5, 9)
    table = FINITE.codebook()
    targets = torch.stack([torch.exp(-(table - table[code]).square().sum(1) / softness) for code in codes.flatten()])
    targets = (targets / targets.sum(1, keepdim=True)).view(3, 5, N)
    assert targets.amax(-1).max() < 1  # they are soft
    expected = -(targets * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(cross_entropy(logits, codes, FINITE, factorized=False, softness=softness), expected)
    factorized = -(targets * joint_law(levels).log()).sum(-1)
    torch.testing.assert_close(cross_entropy(levels, codes, FINITE, factorized=True, softness=softness), factorized)


@pytest.mark.parametrize("factorized", [False, True])
def test_loss_has_a_finite_gradient_also_with_uneven_levels(factorized: bool) -> None:
    logits = torch.randn(2, 4, n_logits(FINITE, factorized=factorized), requires_grad=True)
    for softness in (0.0, 0.5):
        cross_entropy(
            logits, torch.randint(N, (2, 4)), FINITE, factorized=factorized, softness=softness
        ).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("top", [{}, {"top_k": 3}, {"top_p": 0.5}])
def test_temperature_zero_takes_the_likeliest(top: dict[str, Any]) -> None:
    joint, levels = torch.randn(4, 6, N), torch.randn(4, 6, 9)
    assert torch.equal(draw(joint, FINITE, **how(temperature=0, **top)), joint.argmax(-1))
    drawn = draw(levels, FINITE, **how(temperature=0, factorized=True, **top))
    assert torch.equal(drawn, joint_law(levels).argmax(-1))


def drawn_often(logits: Tensor, n: int = 20_000, **given: Any) -> np.ndarray:
    """How often each code is drawn from the same logits, as two tokens of many spots."""
    drawn = draw(logits.expand(n // 2, 2, -1), FINITE, **how(**given))
    assert drawn.shape == (n // 2, 2)
    assert drawn.dtype == torch.int64
    return np.bincount(drawn.flatten().numpy(), minlength=N)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("factorized", [False, True])
def test_frequencies_follow_the_softmax(factorized: bool, temperature: float) -> None:
    logits = torch.randn(n_logits(FINITE, factorized=factorized))
    law = joint_law(logits, temperature) if factorized else (logits / temperature).softmax(-1)
    seen = drawn_often(logits, factorized=factorized, temperature=temperature)
    assert chisquare(seen, law.double().numpy() / law.double().sum().item() * seen.sum()).pvalue > 1e-3


@pytest.mark.parametrize("top", [{"top_k": 5}, {"top_p": 0.6}, {"top_k": 6, "top_p": 0.7}, {"top_k": 100}])
@pytest.mark.parametrize("factorized", [False, True])
def test_truncated_draws_are_the_softmax_of_the_likeliest(factorized: bool, top: dict[str, Any]) -> None:
    logits = torch.randn(n_logits(FINITE, factorized=factorized))
    temperature = 0.8
    law = joint_law(logits, temperature) if factorized else (logits / temperature).softmax(-1)
    order = np.argsort(-law.numpy())
    order = order[: top.get("top_k", N)]
    share = law.double().numpy()[order]
    share = share / share.sum()
    if "top_p" in top:
        last = int(np.flatnonzero(np.cumsum(share) >= top["top_p"])[0])
        order, share = order[: last + 1], share[: last + 1] / share[: last + 1].sum()
    seen = drawn_often(logits, factorized=factorized, temperature=temperature, **top)
    assert set(np.flatnonzero(seen)) <= set(order)
    assert chisquare(seen[order], share * seen.sum()).pvalue > 1e-3


@pytest.mark.parametrize("top", [{"top_k": 1}, {"top_p": 1e-6}])
def test_the_likeliest_always_stays(top: dict[str, Any]) -> None:
    logits = torch.randn(4, 6, N)
    assert torch.equal(draw(logits, FINITE, **how(**top)), logits.argmax(-1))


def test_top_p_of_one_leaves_all() -> None:
    logits = torch.randn(50, 6, N)
    assert torch.equal(draw(logits, FINITE, **how(top_p=1.0)), draw(logits, FINITE, **how()))


@pytest.mark.parametrize("factorized", [False, True])
def test_same_seed_same_draws(factorized: bool) -> None:
    logits = torch.randn(20, 6, n_logits(FINITE, factorized=factorized))
    state = torch.get_rng_state()
    first = draw(logits, FINITE, **how(factorized=factorized))
    assert torch.equal(first, draw(logits, FINITE, **how(factorized=factorized)))
    other = torch.Generator().manual_seed(1)
    assert not torch.equal(first, draw(logits, FINITE, **how(factorized=factorized, generator=other)))
    assert torch.equal(torch.get_rng_state(), state)
