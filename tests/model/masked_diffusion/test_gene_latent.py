from __future__ import annotations

import numpy as np
import pytest
import torch

from stomics_tools.model.masked_diffusion._latent import GeneLatent

N, G = 400, 12


def expression(seed: int = 0, n: int = N, n_genes: int = G) -> np.ndarray:
    """Standardised, of three programmes."""
    rng = np.random.default_rng(seed)
    genes = rng.normal(size=(n, 3)) @ rng.normal(size=(3, n_genes)) + 0.7 * rng.normal(size=(n, n_genes))
    return (genes - genes.mean(0)) / genes.std(0)


def fitted(n_latent: int, genes: np.ndarray) -> GeneLatent:
    latent = GeneLatent(genes.shape[1], n_latent).double()
    latent.fit(genes)
    return latent


def dense(latent: GeneLatent) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of the genes, and weights of the latent values."""
    loadings, variance, noise = latent.loadings.numpy(), latent.variance.numpy(), float(latent.noise)
    covariance = loadings @ np.diag(variance - noise) @ loadings.T + noise * np.eye(len(loadings))
    return covariance, (loadings / np.sqrt(variance)).T


def conditional(latent: GeneLatent, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gain ``(L, seen genes)`` and variance ``(L,)`` of the latent values of a normal cell given some of its genes."""
    covariance, weights = dense(latent)
    gain = weights @ covariance[:, seen] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    return gain, np.diag(weights @ covariance @ weights.T - gain @ covariance[seen] @ weights.T)


@pytest.mark.parametrize("n_latent", [3, 7, G])
def test_components_and_noise_are_those_of_the_covariance(n_latent: int) -> None:
    genes = expression()
    latent = fitted(n_latent, genes)
    values, vectors = np.linalg.eigh(genes.T @ genes / N)
    values, vectors = values[::-1], vectors[:, ::-1]
    np.testing.assert_allclose(latent.variance, values[:n_latent], rtol=1e-6)
    np.testing.assert_allclose(np.abs((latent.loadings.numpy() * vectors[:, :n_latent]).sum(0)), 1, rtol=1e-6)
    if n_latent < G:  # maximum likelihood: mean of what is left
        np.testing.assert_allclose(float(latent.noise), values[n_latent:].mean(), rtol=1e-6)
    assert 0 < float(latent.noise) < float(latent.variance[-1])


def test_latent_values_are_white() -> None:
    genes = expression()
    code = fitted(5, genes).encode(torch.as_tensor(genes)).numpy()
    np.testing.assert_allclose(code.T @ code / N, np.eye(5), atol=1e-8)


def test_as_many_numbers_as_genes_lose_nothing() -> None:
    genes = torch.as_tensor(expression())
    latent = fitted(G, genes.numpy())
    torch.testing.assert_close(latent.decode(latent.encode(genes)), genes)
    code = torch.randn(2, 30, G, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(latent.encode(latent.decode(code)), code)


def test_fewer_numbers_keep_the_principal_components() -> None:
    genes = expression()
    latent = fitted(4, genes)
    rows = np.linalg.svd(genes, full_matrices=False)[2][:4]
    found = latent.decode(latent.encode(torch.as_tensor(genes)))
    np.testing.assert_allclose(found, genes @ rows.T @ rows, atol=1e-6)


@pytest.mark.parametrize("n_latent", [2, 5, G])
def test_given_genes_tell_the_normal_conditional(n_latent: int) -> None:
    genes = expression()
    latent = fitted(n_latent, genes)
    seen = np.random.default_rng(1).random((3, G)) < [[0.2], [0.5], [0.9]]
    assert (seen.any(1) & ~seen.all(1)).all()
    shown = torch.as_tensor(genes[:60].reshape(3, 20, G) * seen[:, None])
    mean, variance = latent.given(shown, torch.as_tensor(seen, dtype=torch.float64))
    assert mean.shape == (3, 20, n_latent)
    assert variance.shape == (3, 1, n_latent)
    for i in range(3):
        gain, left = conditional(latent, np.flatnonzero(seen[i]))
        np.testing.assert_allclose(mean[i], shown[i].numpy()[:, seen[i]] @ gain.T, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(variance[i, 0], left.clip(1e-4), rtol=1e-6)


def test_the_conditional_is_that_of_cells_drawn() -> None:
    latent = fitted(4, expression())
    covariance, _ = dense(latent)
    cells = np.random.default_rng(2).multivariate_normal(np.zeros(G), covariance, size=100_000)
    seen = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1], dtype=torch.float64)
    mean, variance = latent.given(torch.as_tensor(cells) * seen, seen[None])
    error = (latent.encode(torch.as_tensor(cells)) - mean[0]).numpy()
    np.testing.assert_allclose(np.square(error).mean(0), variance[0, 0], rtol=5 * (2 / len(cells)) ** 0.5)
    np.testing.assert_allclose((error * mean[0].numpy()).mean(0), 0, atol=5 / len(cells) ** 0.5)  # nothing left to tell


@pytest.mark.parametrize("n_latent", [5, G])
def test_everything_given_is_the_latent_value_itself(n_latent: int) -> None:
    genes = torch.as_tensor(expression())
    latent = fitted(n_latent, genes.numpy())
    mean, variance = latent.given(genes[None], torch.ones(1, G, dtype=torch.float64))
    torch.testing.assert_close(mean[0], latent.encode(genes), rtol=1e-8, atol=1e-8)
    assert (variance == 1e-4).all()  # never certain


def test_nothing_given_is_the_prior() -> None:
    latent = fitted(5, expression())
    mean, variance = latent.given(torch.zeros(2, 6, G, dtype=torch.float64), torch.zeros(2, G, dtype=torch.float64))
    assert mean.shape == (2, 6, 5)
    assert (mean == 0).all()
    assert (variance == 1).all()


def test_genes_that_tell_the_same_keep_single_precision() -> None:
    genes = expression()
    genes = np.concatenate([genes, genes[:, :3]], axis=1)  # three directions without variance
    single = GeneLatent(G + 3, G + 3)
    single.fit(genes.astype(np.float32))
    seen = np.arange(G + 3) >= 4
    shown = torch.as_tensor(genes * seen, dtype=torch.float32)
    mean, variance = single.given(shown[None], torch.as_tensor(seen, dtype=torch.float32)[None])
    gain, left = conditional(single.double(), np.flatnonzero(seen))
    np.testing.assert_allclose(mean[0], shown.numpy()[:, seen] @ gain.T, atol=2e-3)
    np.testing.assert_allclose(variance[0, 0], left.clip(1e-4), atol=1e-4)


@pytest.mark.parametrize("n", [1, 5, 8])
def test_fewer_cells_than_numbers(n: int) -> None:
    genes = expression(n=40)[:n]
    latent = fitted(8, genes)
    values = torch.as_tensor(genes)
    code = latent.encode(values)
    assert code.shape == (n, 8)
    torch.testing.assert_close(latent.decode(code), values)  # as many components as cells lose nothing
    mean, variance = latent.given(values[None], torch.ones(1, G, dtype=torch.float64))
    torch.testing.assert_close(mean[0], code, rtol=1e-6, atol=1e-6)
    assert variance.isfinite().all()
    assert float(latent.noise) < float(latent.variance.min())


def test_fit_touches_no_global_generator_and_is_repeatable() -> None:
    torch.manual_seed(3)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    genes = expression(n_genes=40)
    one, again = fitted(6, genes), fitted(6, genes)
    assert np.array_equal(np.random.get_state()[1], before_numpy)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), again.buffers(), strict=True))
    assert set(one.state_dict()) == {"loadings", "variance", "noise"}


def test_what_genes_would_tell_of_a_cell_without_noise() -> None:
    latent, generator = GeneLatent(10, 4), torch.Generator().manual_seed(0)
    mixing = torch.randn(10, 10, generator=generator)
    latent.fit((torch.randn(300, 10, generator=generator) @ mixing).numpy())
    values = torch.randn(6, 4, generator=generator)
    panel = torch.tensor([1.0, 0, 1, 1, 1, 0, 1, 1, 0, 1])
    genes = latent.decode(values) * panel
    torch.testing.assert_close(latent.told(values, panel), latent.given(genes[None], panel[None])[0][0])
    torch.testing.assert_close(latent.told(values, torch.ones(10)), values, atol=1e-4, rtol=0)
