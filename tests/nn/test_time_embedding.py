"""Embedding of times against the formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stomics_tools.nn import TimeEmbedding


@pytest.mark.parametrize(("max_period", "n"), [(10_000.0, 256), (100.0, 7), (5.0, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sinusoids_follow_the_formula(max_period, n, dtype):
    t = torch.rand(4, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    angles = 1000 * t.double().numpy()[..., None] * max_period ** (-np.arange(n) / n)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    found = TimeEmbedding(8, max_period=max_period, n_frequencies=n).sinusoids(t)
    assert found.dtype == dtype
    # The angle reaches 1000 radians: float32 holds it to 3e-5.
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_any_leading_shape(shape):
    embedding, t = TimeEmbedding(6), torch.rand(shape, generator=torch.Generator().manual_seed(0))
    found = embedding(t)
    assert found.shape == (*shape, 6)
    torch.testing.assert_close(found.reshape(-1, 6)[-1], embedding(t.reshape(-1)[-1]))


def test_each_of_a_thousand_steps_has_an_embedding_of_its_own():
    embedding = TimeEmbedding(16)
    t = torch.linspace(0, 1, 1001)
    assert torch.pdist(embedding.sinusoids(t)).min() > 0.1
    assert torch.pdist(embedding(t)).min() > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_outcome_has_the_type_of_the_weights_and_times_keep_theirs(dtype):
    embedding, t = TimeEmbedding(16), torch.linspace(0, 1, 50, dtype=torch.float64)
    exact, cast = embedding(t), embedding.to(dtype)(t)
    assert exact.dtype == torch.float32
    assert cast.dtype == dtype
    assert (cast - exact).norm() < 0.02 * exact.norm()


def test_autocast():
    embedding, t = TimeEmbedding(16), torch.linspace(0, 1, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedding.sinusoids(t), embedding.sinusoids(t).float())
        found = embedding(t)
    assert found.dtype == torch.bfloat16
    assert (found - embedding(t)).norm() < 0.02 * embedding(t).norm()


def test_whole_numbers_are_steps_not_times():
    with pytest.raises(ValueError, match=r"`t` must be floats in \[0, 1\], found torch.int64"):
        TimeEmbedding(8)(torch.arange(3))


@pytest.mark.parametrize(("name", "value"), [("n_frequencies", 0), ("max_period", 1.0)])
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .* found {value}"):
        TimeEmbedding(8, **{name: value})
