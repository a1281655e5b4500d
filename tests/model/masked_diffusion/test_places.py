from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from sklearn.cluster import KMeans
from torch import Tensor

from stomics_tools.model.masked_diffusion import _places
from stomics_tools.model.masked_diffusion._places import Places, n_places
from stomics_tools.model.masked_diffusion._retrieval import Alike

DIMENSIONS = pytest.mark.parametrize("n_dims", [2, 3])


def normals(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def laid(cells: Tensor, n: int, seed: int = 0) -> Places:
    """Places among cells."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        places = Places(n, cells.shape[1])
        places.spread_over(cells)
    return places


def any_places(n: int, n_dims: int = 2) -> Places:
    """Anywhere, with unequal shares, widths of their own along each axis, and a sharpness that is not 1."""
    places = Places(n, n_dims)
    places.position.copy_(normals(n, n_dims))
    places.log_share.copy_(normals(n, seed=1).log_softmax(0))
    places.blur.fill_(0.7)
    places.log_variance.copy_(torch.linspace(-2, -1, n_dims))
    places.log_sharpness.copy_(torch.tensor([0.4, -0.5]))
    return places


def said(*size: int, scale: float = 1.0, seed: int = 5) -> Tensor:
    """What a classifier and cells alike say of places, ``(*size[:-1], 2, size[-1])``."""
    return scale * normals(*size[:-1], 2, size[-1], seed=seed)


@pytest.mark.parametrize(("n_obs", "n"), [(1, 1), (9, 1), (10, 2), (499, 99), (1000, 200), (10**6, 200)])
def test_one_place_for_five_cells_as_far_as_200(n_obs: int, n: int) -> None:
    assert n_places(n_obs) == n


# ------------------------------------------------------------- where they lie


@DIMENSIONS
def test_places_lie_among_the_cells_and_near_every_one(n_dims: int) -> None:
    cells = normals(400, n_dims)
    cells = cells[cells.norm(dim=1) > 0.8]  # a hole
    found = laid(cells, 40).position
    assert (found.norm(dim=1) > 0.5).all()  # none in the hole
    near, own = cKDTree(found).query(cells)
    means = torch.stack([cells[own == k].mean(0) for k in range(40)])
    torch.testing.assert_close(found, means, atol=1e-4, rtol=0)
    # Far nearer than as many cells drawn at random would be, and about as near as places can be.
    drawn = [
        cKDTree(cells[np.random.default_rng(seed).permutation(len(cells))[:40]]).query(cells)[0] for seed in range(20)
    ]
    assert np.square(near).mean() < 0.75 * min(np.square(one).mean() for one in drawn)
    best = KMeans(40, n_init=20, random_state=1).fit(cells).inertia_ / len(cells)
    assert np.square(near).mean() < 1.15 * best


@DIMENSIONS
def test_blur_is_four_fifths_of_the_distance_of_places(n_dims: int) -> None:
    places = laid(normals(300, n_dims), 30)
    distance = cKDTree(places.position).query(places.position, 2)[0][:, 1]
    assert float(places.blur) == pytest.approx(0.8 * distance.mean(), rel=1e-5)
    np.testing.assert_allclose(places.log_variance.exp(), np.full(n_dims, float(places.blur) ** 2), rtol=1e-5)


@pytest.mark.parametrize("most", [10_000, 70])
def test_shares_are_those_of_all_cells(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """However many of them the places are found from, and however large the blocks are."""
    monkeypatch.setattr(_places, "_MAX_FITTED", most)
    cells = normals(300, 2)
    cells[:200] = 0.2 * cells[:200] + 3  # two thirds
    places = laid(cells, 12)
    share = places.log_share.exp()
    torch.testing.assert_close(share, places.target(cells).mean(0))
    assert share.sum() == pytest.approx(1, abs=1e-5)
    assert share[places.position.sum(1) > 4].sum() == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize("cells", [torch.ones(1, 2), torch.ones(9, 3), torch.eye(3).repeat(5, 1)], ids=len)
def test_fewer_positions_than_places(cells: Tensor) -> None:
    places = laid(cells, 7)
    where = cells.unique(dim=0)
    assert (torch.cdist(where, places.position).min(1).values < 1e-6).all()
    assert (torch.cdist(places.position, where).min(1).values < 1e-6).all()
    target = places.target(cells)
    torch.testing.assert_close(target.sum(1), torch.ones(len(cells)))
    places.calibrate(said(len(cells), 7), cells)
    assert all(value.isfinite().all() for value in places.state_dict().values())
    assert places(said(4, 7)).log_density(cells[:1]).isfinite().all()
    # Of two places at one position neither is more likely.
    same = torch.cdist(places.position, places.position) < 1e-6
    assert (same.sum(1) > 1).any()
    torch.testing.assert_close(same.float() @ target.T / same.sum(1, keepdim=True), target.T)


def test_same_seed_same_places() -> None:
    one, again = (laid(normals(200, 2), 20).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in one)


# ------------------------------------------------------- targets and their error


@DIMENSIONS
def test_targets_by_their_formula(n_dims: int) -> None:
    places, cells = any_places(15, n_dims), normals(30, n_dims, seed=3)
    gap = np.square(cells.numpy()[:, None] - places.position.numpy()).sum(-1)
    found = places.target(cells)
    np.testing.assert_allclose(found, softmax(-gap / 0.7**2 / 2, axis=1), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), gap.argmin(1))


def test_error_is_the_cross_entropy_of_each_member() -> None:
    places, target = any_places(15), any_places(15).target(normals(30, 2, seed=3))
    output = normals(4, 30, 15, seed=4)
    found = places.error(output, target)
    assert found.shape == output.shape
    for own, errors in zip(output, found, strict=True):
        expected = torch.nn.functional.cross_entropy(places.log_share + own, target, reduction="none")
        torch.testing.assert_close(errors.sum(1), expected)
    # The least of it is where the classifier says the target.
    right = target.log() - places.log_share
    least = places.error(right, target).sum(1)
    torch.testing.assert_close(least, torch.distributions.Categorical(target).entropy(), rtol=1e-4, atol=1e-5)
    assert (places.error(right + 0.1 * output, target).sum(-1) > least).all()


# ------------------------------------------------------------- what is expected


@DIMENSIONS
def test_what_is_said_is_relative_to_the_tissue_at_large(n_dims: int) -> None:
    places = any_places(15, n_dims)
    torch.testing.assert_close(places(torch.zeros(2, 4, 2, 15)).log_weight, places.log_share.expand(2, 4, -1))
    both = said(2, 4, 15)
    weights = np.exp([0.4, -0.5])
    expected = softmax(places.log_share.numpy() + np.einsum("bnsp,s->bnp", both.numpy(), weights), axis=-1)
    np.testing.assert_allclose(places(both).log_weight.exp(), expected, rtol=1e-5)
    np.testing.assert_allclose(places(both).expected(), expected @ places.position.numpy(), rtol=1e-4, atol=1e-6)


@DIMENSIONS
def test_density_against_scipy(n_dims: int) -> None:
    places, cells, both = any_places(15, n_dims), normals(30, n_dims, seed=3), said(30, 15)
    np.testing.assert_allclose(places(both).log_density(cells), log_density(places, both, cells), rtol=1e-4)


def log_density(
    places: Places, both: Tensor, cells: Tensor, first: float = 0.0, second: float = 0.0, axis: float = 0.0
) -> np.ndarray:
    """By scipy, with the weights of either and the width along an axis moved by so much."""
    own = {name: value.numpy().astype(np.float64) for name, value in places.state_dict().items()}
    weights = np.exp(own["log_sharpness"] + [first, second])
    weight = own["log_share"] + np.einsum("nsp,s->np", both.numpy().astype(np.float64), weights)
    log_variance = own["log_variance"] + np.eye(cells.shape[1])[0] * axis
    density = norm.logpdf(cells.numpy()[:, None], own["position"], np.exp(log_variance / 2)).sum(-1)
    return logsumexp(weight - logsumexp(weight, axis=1, keepdims=True) + density, axis=1)


# ------------------------------------------------------------------ calibration


class Drawn(NamedTuple):
    """What is said of cells, and cells of the mixture that it tells."""

    places: Places
    said: Tensor
    cells: Tensor


def drawn(n: int, n_dims: int) -> Drawn:
    places, both = any_places(20, n_dims), said(n, 20, scale=2, seed=6)
    generator = torch.Generator().manual_seed(7)
    place = torch.multinomial(places(both).log_weight.exp(), 1, generator=generator)[:, 0]
    noise = torch.randn(n, n_dims, generator=generator) * (places.log_variance / 2).exp()
    cells = places.position[place] + noise
    with torch.no_grad():
        places.log_variance.zero_()
        places.log_sharpness.copy_(torch.tensor([0.0, -1.2]))
    return Drawn(places, both, cells)


@DIMENSIONS
def test_width_and_weights_are_found_again(n_dims: int) -> None:
    places, both, cells = drawn(3000, n_dims)
    with torch.no_grad():  # as training calls it
        places.calibrate(both, cells)
    # Standard errors of these are about sqrt(2 / 3000) and less.
    torch.testing.assert_close(places.log_variance, torch.linspace(-2, -1, n_dims), atol=0.12, rtol=0)
    torch.testing.assert_close(places.log_sharpness, torch.tensor([0.4, -0.5]), atol=0.12, rtol=0)
    assert not any(parameter.requires_grad for parameter in places.parameters())


def test_calibration_is_the_largest_likelihood() -> None:
    places, both, cells = drawn(300, 2)
    places.calibrate(both, cells)
    best = log_density(places, both, cells).mean()
    for name in ("first", "second", "axis"):
        for step in (-0.1, 0.1):
            assert log_density(places, both, cells, **{name: step}).mean() < best, name


def test_what_tells_nothing_is_not_believed() -> None:
    """That of other cells, of which both are as sure; what is right beside it is."""
    places, both, cells = drawn(1000, 2)
    places.calibrate(both.roll(1, 0), cells)
    assert (places.log_sharpness.exp() < 0.15).all()
    at_large = log_density(places, torch.zeros_like(both), cells).mean()
    assert places(both.roll(1, 0)).log_density(cells).mean() > at_large - 0.02
    half = torch.stack([both[:, 0].roll(1, 0), both[:, 1]], dim=1)
    places.calibrate(half, cells)
    assert places.log_sharpness[0].exp() < 0.15
    assert places.log_sharpness[1].exp() > 0.3


def test_cells_that_lie_in_their_places_have_a_width() -> None:
    places = any_places(10)
    sure = 20 * torch.eye(10)[:, None].expand(-1, 2, -1)
    places.calibrate(sure.repeat(5, 1, 1), places.position.repeat(5, 1))
    assert places(sure).variance.min() == pytest.approx(1e-4)
    assert places(sure).log_density(places.position).isfinite().all()


# ------------------------------------------------------------------ cells alike


def test_cells_alike_say_where_they_lie() -> None:
    """As many as count, and one that lies anywhere; none of them nothing."""
    places, position = any_places(15), normals(8, 2, seed=3)
    rows, counted = torch.tensor([[0, 3, 5], [7, 1, 2], [4, 6, 0]]), torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 0]])
    found = places.among(Alike(rows, counted), position)
    share, target = places.log_share.exp(), places.target(position)
    expected = [(target[[0, 3, 5]].sum(0) + share) / 4, (target[7] + share) / 2, share]
    torch.testing.assert_close(found, torch.stack([one / share for one in expected]).log(), atol=1e-5, rtol=1e-4)
