from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm, spearmanr
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from stomics_tools.model.masked_diffusion import _priors
from stomics_tools.model.masked_diffusion._layout import expected_layout
from stomics_tools.model.masked_diffusion._mixture import Mixture
from stomics_tools.model.masked_diffusion._module import MaskedDiffusionModule
from stomics_tools.model.masked_diffusion._places import n_places
from stomics_tools.model.masked_diffusion._priors import fit_neighbor_prior, fit_position_prior
from stomics_tools.model.masked_diffusion._slices import Slice, around, nearest

FOLDS = 3


def make_slices(
    n_obs: int = 250, *, told: bool = True, like_sides: bool = False, sizes: tuple[int, ...] | None = None
) -> list[Slice]:
    """Slices of one tissue: genes follow from position (if `told`; from its sides alike), and so do smooth latent values."""
    rng = np.random.default_rng(0)
    loading, slices = rng.normal(size=(2, 12)), []
    for n in sizes or (n_obs, n_obs):
        position = rng.uniform(-1.7, 1.7, size=(n, 2))
        there = np.column_stack([np.abs(position[:, 0]) if like_sides else position[:, 0], position[:, 1]])
        genes = (np.sin(there @ loading) if told else 0) + (0.1 if like_sides else 0.3) * rng.normal(size=(n, 12))
        smooth = np.stack([np.sin(position[:, 0]), np.cos(2 * position[:, 1]), position.prod(1) / 2], 1)
        values = [genes, np.ones(12), np.column_stack([genes[:, :3], smooth[:, :1]]), position]
        slices.append(
            Slice(
                *(torch.as_tensor(value, dtype=torch.float32) for value in values),
                near=nearest(position, 12),
                fold=torch.as_tensor(rng.integers(FOLDS, size=n)),
            )
        )
    return slices


def fitted(make_settings: Callable, slices: list[Slice]) -> MaskedDiffusionModule:
    settings = make_settings(n_regression_hidden=32, regression_dropout=0.1, mixup=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n = sum(one.n_obs for one in slices)
        sizes = {"n_places": n_places(n), "n_references": min(n, 300)}
        module = MaskedDiffusionModule(settings, n_genes=12, n_dims=2, n_folds=FOLDS, **sizes)
        fit_position_prior(module, slices)
    return module


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_priors, "_VISITS", 20_000)
    monkeypatch.setattr(_priors, "_EPOCHS", (6, 400))


# ---------------------------------------------------------------- positions


def prior_of(module: MaskedDiffusionModule, genes: Tensor) -> Mixture:
    """Of cells that are not of training."""
    return module.position_prior(given(genes))


def given(genes: Tensor) -> dict[str, Tensor]:
    """All genes of cells, as one set."""
    return {"genes": genes[None], "panel": torch.ones(1, 12), "told": torch.ones(1, len(genes), dtype=torch.bool)}


def cells_of(slices: list[Slice]) -> tuple[Tensor, Tensor, Tensor]:
    """Genes, positions, folds."""
    genes, position, fold = (torch.cat([getattr(s, name) for s in slices]) for name in ("genes", "position", "fold"))
    return genes, position, fold


def test_positions_are_learnt_from_genes(make_settings: Callable) -> None:
    module = fitted(make_settings, make_slices())
    unseen = make_slices(sizes=(250, 250, 100))[2]
    prior = prior_of(module, unseen.genes)
    assert (prior.expected()[0] - unseen.position).square().mean() < 0.2 * unseen.position.square().mean()
    assert not module.regression.training
    assert not any(parameter.requires_grad for parameter in module.regression.parameters())
    # Nats above a normal distribution at large.
    at_large = norm.logpdf(unseen.position).sum(1).mean()
    assert prior.log_density(unseen.position[None]).mean() > at_large + 0.8


def test_width_and_sharpness_are_those_of_new_cells(make_settings: Callable) -> None:
    """Not those of cells that the classifier learnt, or that the places were laid on: these are nearer to a place."""
    module = fitted(make_settings, make_slices())
    unseen = make_slices(sizes=(250, 250, 3000))[2]
    places, said = module.places, module.said(unseen.genes, torch.ones(12)).double().numpy()

    def density(wider: float = 0.0, sharper: float = 0.0) -> float:
        """Logarithm of that of new cells, by scipy, from places and what is said of them."""
        weights = np.exp(places.log_sharpness.numpy() + sharper)
        weight = places.log_share.numpy() + np.einsum("nsp,s->np", said, weights)
        weight -= logsumexp(weight, axis=1, keepdims=True)
        sd = np.exp((places.log_variance.numpy() + wider) / 2)
        return logsumexp(weight + norm.logpdf(unseen.position[:, None], places.position, sd).sum(-1), axis=1).mean()

    fitted_ = density()
    changes = np.linspace(-1.5, 1.5, 13)
    assert max(density(wider=change) for change in changes) < fitted_ + 0.03
    assert max(density(sharper=change) for change in changes / 3) < fitted_ + 0.03
    assert density(wider=-1.5) < fitted_ - 0.1
    assert density(wider=1.5) < fitted_ - 0.1


def test_genes_that_tell_nothing_say_nothing(make_settings: Callable) -> None:
    # Honest only if the sharpness comes from members that have not seen the cell: others learn by heart.
    slices = make_slices(60, told=False)
    module = fitted(make_settings, slices)
    genes, position, fold = cells_of(slices)
    said = (
        module.said(genes, torch.ones(12))[:, 0],
        module.said(genes, torch.ones(12), fold)[:, 0],
        torch.zeros(len(genes), len(module.places.log_share)),
    )
    target = module.places.target(position)
    seen, left_out, at_large = (float(module.places.error(one, target).sum(1).mean()) for one in said)
    assert seen < at_large - 0.3
    assert left_out > at_large
    assert (module.places.log_sharpness.exp() < 0.2).all()
    unseen = make_slices(sizes=(60, 60, 1000), told=False)[2]
    found = prior_of(module, unseen.genes).log_density(unseen.position[None]).mean()
    assert found > norm.logpdf(unseen.position).sum(1).mean() - 0.2


def test_two_like_sides_are_two_places(make_settings: Callable) -> None:
    """Either is likelier than the middle, where the expected position is; a layout tells the distance from there."""
    module = fitted(make_settings, make_slices(400, like_sides=True))
    unseen = make_slices(like_sides=True, sizes=(400, 400, 200))[2]
    far = unseen.position[:, 0].abs() > 0.8
    prior = prior_of(module, unseen.genes)
    there, mirrored, between = (
        prior.log_density((unseen.position * torch.tensor([side, 1.0]))[None])[0, far] for side in (1.0, -1.0, 0.0)
    )
    for side in (there, mirrored):
        assert (side - between).mean() > 2
        assert (side > between).double().mean() > 0.8
    assert abs((there - mirrored).mean()) < 0.3
    expected = prior.expected()[0]
    assert expected[far, 0].abs().mean() < 0.35
    assert np.corrcoef(expected[:, 1], unseen.position[:, 1])[0, 1] > 0.9
    probability = module.probabilities(unseen.genes, torch.ones(12))
    layout = expected_layout(probability, module.places.position, torch.Generator().manual_seed(0))
    from_middle = unseen.position[:, 0].abs().numpy()

    def told(position: Tensor) -> float:
        """Rank correlation of the distance from the middle with that of cells around."""
        near = NearestNeighbors(n_neighbors=8).fit(position).kneighbors(return_distance=False)
        return float(spearmanr(from_middle[near].mean(1), from_middle).statistic)

    assert told(layout) > 0.8
    assert told(layout) > told(expected) + 0.15


@pytest.mark.parametrize("sizes", [(200, 12), (12, 12), (150,), (5, 5)])
def test_slices_with_few_cells(make_settings: Callable, sizes: tuple[int, ...]) -> None:
    """Also with fewer cells than a batch, than folds would like, and with two places only: all stay numbers."""
    slices = make_slices(sizes=sizes)
    module = fitted(make_settings, slices)
    for name, value in module.state_dict().items():
        assert value.isfinite().all(), name
    genes, position, fold = cells_of(slices)
    for prior in (prior_of(module, genes), module.position_prior({**given(genes), "fold": fold[None]})):
        assert all(part.isfinite().all() for part in prior)
        assert prior.log_density(position[None]).isfinite().all()


def test_references_are_cells_of_training_each_once(make_settings: Callable) -> None:
    slices = make_slices()
    module = fitted(make_settings, slices)
    scores = torch.cat([s.latent for s in slices]) * module.latent.variance.sqrt()
    kept = torch.cat([module.references.scores, module.references.position, module.references.fold[:, None]], dim=1)
    every = torch.cat([scores, cells_of(slices)[1], cells_of(slices)[2][:, None]], dim=1)
    rows = (kept[:, None] == every).all(-1)
    assert len(kept) == 300
    assert (rows.sum(1) == 1).all()
    assert (rows.sum(0) <= 1).all()
    assert 100 < rows[:, :250].sum() < 200  # of both slices


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
