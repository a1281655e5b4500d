from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.linear_model import Ridge, RidgeCV

from stomics_tools.model.masked_diffusion import _priors
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._priors import fit_neighbor_prior, fit_position_prior
from stomics_tools.model.masked_diffusion._slices import Slice, around, nearest

FOLDS = 3


def make_slices(n_obs: int = 250, *, told: bool = True, sizes: tuple[int, ...] | None = None) -> list[Slice]:
    """Slices of one tissue: genes follow from position (if `told`), and so do smooth latent values."""
    rng = np.random.default_rng(0)
    loading, slices, first = rng.normal(size=(2, 12)), [], 0
    for number, n in enumerate(sizes or (n_obs, n_obs)):
        position = rng.uniform(-1.7, 1.7, size=(n, 2))
        genes = (np.sin(position @ loading) if told else 0) + 0.3 * rng.normal(size=(n, 12))
        smooth = np.stack([np.sin(position[:, 0]), np.cos(2 * position[:, 1]), position.prod(1) / 2], 1)
        values = [genes, np.ones(12), np.column_stack([genes[:, :3], smooth[:, :1]]), position]
        slices.append(
            Slice(
                *(torch.as_tensor(value, dtype=torch.float32) for value in values),
                near=nearest(position, 12),
                fold=torch.as_tensor(rng.integers(FOLDS, size=n)),
                number=torch.arange(n) + first,
                slice_of=torch.full((n,), number),
            )
        )
        first += n
    return slices


def fitted(make_settings: Callable, slices: list[Slice]) -> MaskedDiffusionModule:
    settings = make_settings(n_regression_hidden=32, regression_dropout=0.1, mixup=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n = sum(one.n_obs for one in slices)
        module = MaskedDiffusionModule(settings, n_genes=12, n_dims=2, n_folds=FOLDS, n_references=n)
        fit_position_prior(module, slices)
    return module


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_priors, "_VISITS", 20_000)
    monkeypatch.setattr(_priors, "_EPOCHS", (6, 400))


# ---------------------------------------------------------------- positions


def test_positions_are_learnt_from_genes(make_settings: Callable) -> None:
    slices = make_slices()
    module = fitted(make_settings, slices)
    unseen = make_slices(sizes=(250, 250, 100))[2]
    found = module.regressed(unseen.genes)
    assert (found - unseen.position).square().mean() < 0.25 * unseen.position.square().mean()
    assert not module.regression.training
    assert not any(parameter.requires_grad for parameter in module.regression.parameters())
    # The mixture of both is at least as good, and its density is: nats above a normal distribution at large.
    given = {"genes": unseen.genes[None], "told": torch.ones(1, 100, dtype=torch.bool)}
    latent = (unseen.latent / module.latent.variance.sqrt())[None]
    prior = module.position_prior(given, latent)
    error = (prior.expected()[0] - unseen.position).square().mean()
    assert error < 1.2 * (found - unseen.position).square().mean()
    at_large = norm.logpdf(unseen.position).sum(1).mean()
    assert prior.log_density(unseen.position[None]).mean() > at_large + 0.8


def test_widths_are_those_of_cells_left_out(make_settings: Callable) -> None:
    """Those of the largest likelihood of members that have not seen a cell, at which its gradient is zero."""
    slices = make_slices()
    module, alike = (found := fitted(make_settings, slices)), found.alike
    genes, fold, position = (torch.cat([getattr(s, name) for s in slices]) for name in ("genes", "fold", "position"))
    left_out = module.regressed(genes, fold)
    scores = torch.cat([s.latent for s in slices]) * module.latent.variance.sqrt()
    cell = (torch.arange(500), torch.cat([s.slice_of for s in slices]))

    def loss(**shift: float) -> float:
        """By scipy, from references and weights."""
        distance, index = alike._alike(torch.cat([scores, left_out], dim=1), cell)
        weight = -distance * torch.exp(alike.log_sharpness + shift.get("log_sharpness", 0))
        logit = alike.regression_logit + shift.get("regression_logit", 0)
        weight = torch.cat(
            [weight.log_softmax(1) + torch.log(1 - logit.sigmoid()), logit.sigmoid().log().expand(500, 1)], 1
        )
        sd = torch.exp(torch.stack([alike.log_variance, alike.log_regression_variance]) / 2)
        sd = sd * torch.tensor([[shift.get("own", 0.0)], [shift.get("regression", 0.0)]]).exp()
        near = norm.logpdf(position[:, None], alike.position[index], sd[0]).sum(-1)
        far = norm.logpdf(position, left_out, sd[1]).sum(-1)
        return -float(logsumexp(weight.numpy() + np.column_stack([near, far]), axis=1).mean())

    best = loss()
    for name, step in (("log_sharpness", 0.3), ("regression_logit", 0.3), ("own", 0.2), ("regression", 0.2)):
        for sign in (-1, 1):
            assert loss(**{name: sign * step}) > best, name


def test_genes_that_tell_nothing_say_nothing(make_settings: Callable) -> None:
    # Honest only if the width comes from members that have not seen the cell: others learn by heart.
    slices = make_slices(60, told=False)
    slices = [Slice(**{**vars(one), "latent": torch.zeros(60, 4)}) for one in slices]
    module = fitted(make_settings, slices)
    genes, position = (torch.cat([getattr(s, name) for s in slices]) for name in ("genes", "position"))
    seen = (module.regressed(genes) - position).square().mean()
    fold = torch.cat([s.fold for s in slices])
    left_out = (module.regressed(genes, fold) - position).square().mean()
    assert seen < 0.7 * position.square().mean()
    assert left_out > 0.9 * position.square().mean()
    unseen = make_slices(sizes=(60, 60, 100), told=False)[2]
    prior = module.position_prior(
        {"genes": unseen.genes[None], "told": torch.ones(1, 100, dtype=torch.bool)}, torch.zeros(1, 100, 4)
    )
    assert prior.log_density(unseen.position[None]).mean() > norm.logpdf(unseen.position).sum(1).mean() - 0.2


@pytest.mark.parametrize("sizes", [(200, 12), (12, 12), (150,)])
def test_slices_with_few_cells(make_settings: Callable, sizes: tuple[int, ...]) -> None:
    """Fewer cells of other slices than a cell would look at: weights stay numbers, and cells never find themselves."""
    slices = make_slices(sizes=sizes)
    module = fitted(make_settings, slices)
    for name, parameter in module.alike.named_parameters():
        assert parameter.isfinite().all(), name
    for one in slices:
        prior = module.alike(
            one.latent * module.latent.variance.sqrt(), module.regressed(one.genes), (one.number, one.slice_of)
        )
        assert all(part.isfinite().all() for part in prior)
        used = prior.log_weight[:, :-1] > -100
        itself = (prior.mean[:, :-1] == one.position[:, None]).all(-1)
        assert not (used & itself).any()
        if len(sizes) > 1:
            own_slice = (prior.mean[:, :-1, None] == one.position).all(-1).any(-1)
            assert not (used & own_slice).any()


def test_same_seed_same_prior(make_settings: Callable) -> None:
    slices = make_slices(60)
    one, again = (fitted(make_settings, slices).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)


# --------------------------------------------------------------- neighbours


def sets_of_neighbours(slices: list[Slice], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What the regression is fitted to, drawn as it draws it."""
    inputs, outputs = [], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for one in slices:
            for share in (0.3, 0.6):
                hidden = torch.rand(one.n_obs) < share
                inputs.append(around(one.latent, one.near[hidden], ~hidden, 3))
                outputs.append(one.latent[hidden])
    return torch.cat(inputs).double().numpy(), torch.cat(outputs).double().numpy()


def test_neighbours_against_scikit_learn(make_module: Callable) -> None:
    module, slices = make_module(), make_slices()
    with torch.random.fork_rng():
        torch.manual_seed(4)
        fit_neighbor_prior(module, slices)
    x, y = sets_of_neighbours(slices, 4)
    penalties = (10.0, 100.0, 1e3, 1e4)

    def best(inputs: np.ndarray, outputs: np.ndarray) -> float:
        return float(RidgeCV(penalties, fit_intercept=False).fit(inputs, outputs).alpha_)

    penalty = best(x, y)
    said = Ridge(penalty, fit_intercept=False, solver="svd").fit(x, y).predict(x)
    for k in range(4):
        own = x[:, [k, 4 + k, 8 + k]]
        said[:, k] += Ridge(best(own, y[:, k]), fit_intercept=False, solver="svd").fit(own, y[:, k]).predict(own)
    np.testing.assert_allclose(x @ module.around_weight.numpy(), said / 2, atol=1e-4)
    error = np.square(y - said / 2).mean(0)
    np.testing.assert_allclose(module.around_variance, error, rtol=1e-3)
    # The penalty with the smallest error of cells left out, one by one.
    left_out = []
    for other in penalties:
        hat = x @ np.linalg.solve(x.T @ x + other * np.eye(12), x.T)
        left_out.append((np.square(y - hat @ y) / np.square(1 - hat.diagonal()[:, None])).mean())
    assert penalties[int(np.argmin(left_out))] == penalty


def test_smooth_values_are_told_by_neighbours_and_noise_is_not(make_module: Callable) -> None:
    module, slices = make_module(), make_slices()
    rng = torch.Generator().manual_seed(0)
    parts = [torch.column_stack([s.latent[:, 3:] * 1.5, torch.randn(s.n_obs, 3, generator=rng)]) for s in slices]
    fit_neighbor_prior(module, [Slice(**{**vars(s), "latent": part}) for s, part in zip(slices, parts, strict=True)])
    assert module.around_variance[0] < 0.15
    assert (module.around_variance[1:] > 0.85).all()
    assert module.around_weight[:, 0].abs().sum() > 0.5 > module.around_weight[:, 1:].abs().max()


def test_one_latent_dimension(make_module: Callable) -> None:
    module = make_module(n_latent=1)
    fit_neighbor_prior(module, [Slice(**{**vars(s), "latent": s.latent[:, 3:]}) for s in make_slices(60)])
    assert module.around_weight.abs().max() > 0.1
    assert 0 < module.around_variance < 1
