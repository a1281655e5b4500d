from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import minimize
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import ortho_group, spearmanr
from torch import Tensor

from stomics_tools.model.masked_diffusion._layout import expected_layout, with_mean

DIMENSIONS = pytest.mark.parametrize("n_dims", [2, 3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def somewhere(n: int, n_dims: int = 2, seed: int = 0) -> Tensor:
    """Uniform in a square or cube of unit variance."""
    return (torch.rand(n, n_dims, generator=generator(seed)) * 2 - 1) * 3**0.5


def around(cells: Tensor, place: Tensor, blur: float = 0.3) -> Tensor:
    """Probabilities of places near cells."""
    return (-(torch.cdist(cells, place) / blur).square() / 2).softmax(1)


def moments(probability: Tensor, place: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense expectations of w, w D, w D^2 over the places of two cells, each drawn by itself, ``(n, n)`` each."""
    p, distance = probability.double().numpy(), cdist(place.double().numpy(), place.double().numpy())
    weight = (distance**2 + 0.1**2) ** -0.25
    return p @ weight @ p.T, p @ (weight * distance) @ p.T, p @ (weight * distance**2) @ p.T


def stress(layout: Tensor | np.ndarray, probability: Tensor, place: Tensor) -> float:
    """The expected stress of the docstring, of a pair of cells."""
    first, second, third = moments(probability, place)
    apart = squareform(pdist(np.asarray(layout, dtype=np.float64)))
    return float((first * apart**2 - 2 * second * apart + third).mean())


def least_stress(start: Tensor, probability: Tensor, place: Tensor) -> float:
    """The minimum that scipy finds with all pairs of cells."""
    first, second, third = moments(probability, place)

    def stress_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        layout = flat.reshape(start.shape)
        gap = layout[:, None] - layout
        apart = np.sqrt(np.square(gap).sum(-1) + 1e-12)
        slope = 4 * (first - second / apart) / apart.size
        value = (first * apart**2 - 2 * second * apart + third).mean()
        return value, (slope[..., None] * gap).sum(1).ravel()

    begin = start.double().numpy().ravel()
    return float(minimize(stress_and_gradient, begin, jac=True, method="L-BFGS-B").fun)


# -------------------------------------------------------------------- layouts


@DIMENSIONS
@pytest.mark.parametrize("tissue", ["square", "normal"])
def test_cells_whose_places_are_known_lie_there(n_dims: int, tissue: str) -> None:
    place = somewhere(100, n_dims) if tissue == "square" else torch.randn(100, n_dims, generator=generator(3))
    own = torch.randint(100, (250,), generator=generator(1))
    found = expected_layout(torch.eye(100)[own], place, generator())
    torch.testing.assert_close(found, place[own], atol=0.01, rtol=0)
    np.testing.assert_allclose(pdist(found), pdist(place[own]), atol=0.01)


@DIMENSIONS
def test_stress_is_as_small_as_scipy_makes_it(n_dims: int) -> None:
    place = somewhere(80, n_dims)
    probability = around(somewhere(150, n_dims, seed=1), place)
    found = expected_layout(probability, place, generator())
    own, mean = stress(found, probability, place), probability @ place
    least = min(least_stress(start, probability, place) for start in (found, mean))
    assert own < 1.001 * least
    assert own < stress(mean, probability, place)
    for seed in range(5):
        for size in (0.03, 0.3):
            moved = found + size * torch.randn(found.shape, generator=generator(seed))
            assert own < stress(moved, probability, place)
    centred = found - found.mean(0)
    for scale in (0.95, 1.05):
        assert own < stress(scale * centred, probability, place)


def test_two_cells_lie_at_the_distance_of_least_error() -> None:
    place = somewhere(30)
    probability = around(somewhere(2, seed=1), place, blur=0.6)
    found = expected_layout(probability, place, generator())
    first, second, _ = moments(probability, place)
    assert float(pdist(found)[0]) == pytest.approx(second[0, 1] / first[0, 1], abs=1e-2)


def like_sides(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of the right half of a tissue, of which nobody knows whether they are of the left, and places of both."""
    right = torch.tensor([1.6, 3.0])
    half, cells = (
        torch.rand(m, 2, generator=generator(s)) * right + torch.tensor([0.2, -1.5]) for m, s in ((60, seed), (n, 9))
    )
    there = around(cells, half)
    return cells, torch.cat([there, there], dim=1) / 2, torch.cat([half, half * torch.tensor([-1.0, 1.0])])


@pytest.mark.parametrize("seed", range(3))
def test_two_like_sides_are_folded_onto_one(seed: int) -> None:
    """Neighbours stay neighbours, and positions tell how far from the middle a cell lies; mean positions do not."""
    cells, probability, place = like_sides(200, seed)
    mean, found = probability @ place, expected_layout(probability, place, generator())
    assert mean[:, 0].abs().max() < 1e-5
    own, of_mean = (stress(layout, probability, place) for layout in (found, mean))
    assert own < 0.7 * of_mean
    assert own < 1.003 * least_stress(cells, probability, place)
    folded, wanted = found - found.mean(0), cells - cells.mean(0)
    along = torch.linalg.lstsq(folded, wanted).solution
    assert spearmanr((folded @ along)[:, 0], cells[:, 0]).statistic > 0.9
    assert spearmanr(pdist(found), pdist(cells)).statistic > 0.93 > spearmanr(pdist(mean), pdist(cells)).statistic
    near, here, there = (cdist(layout, layout).argsort(1)[:, 1:11] for layout in (cells, found, mean))
    kept, left = (np.mean([len(set(a) & set(b)) for a, b in zip(near, one, strict=True)]) for one in (here, there))
    assert kept > 7.5 > 2 * left
    told, lost = (spearmanr(cells[:, 0].numpy()[one].mean(1), cells[:, 0]).statistic for one in (here, there))
    assert told > 0.95
    assert lost < 0.3


@DIMENSIONS
def test_pose_is_that_nearest_the_mean_positions(n_dims: int) -> None:
    place = somewhere(60, n_dims) + 2
    probability = around(somewhere(90, n_dims, seed=1) + 2, place, blur=0.5)
    found, mean = expected_layout(probability, place, generator()), probability @ place
    torch.testing.assert_close(found.mean(0), mean.mean(0), atol=1e-5, rtol=0)
    turn, _ = orthogonal_procrustes(found - found.mean(0), mean - mean.mean(0))
    np.testing.assert_allclose(turn, np.eye(n_dims), atol=1e-4)


@DIMENSIONS
@pytest.mark.parametrize("mirror", [False, True])
def test_layouts_move_with_the_places(n_dims: int, mirror: bool) -> None:
    place = somewhere(60, n_dims)
    probability = around(somewhere(90, n_dims, seed=1), place)
    turn = ortho_group.rvs(n_dims, random_state=np.random.default_rng(2))
    turn[0] *= np.sign(np.linalg.det(turn)) * (-1 if mirror else 1)
    turn = torch.as_tensor(turn, dtype=torch.float32)
    found = expected_layout(probability, place @ turn + 3, generator())
    # Rounding grows in 300 steps: a hundredth is a three hundredth of the tissue.
    torch.testing.assert_close(found, expected_layout(probability, place, generator()) @ turn + 3, atol=0.01, rtol=0)


def test_neither_order_nor_seed_matter_much() -> None:
    """Pairs are drawn at random, hence not at all is too much to ask for; the tissue is 3.5 across."""
    place = somewhere(80)
    probability = around(somewhere(200, seed=1), place)
    found = expected_layout(probability, place, generator())
    torch.testing.assert_close(expected_layout(probability, place, generator(1)), found, atol=0.05, rtol=0)
    order = torch.randperm(200, generator=generator(2))
    turned = expected_layout(probability[order], place, generator())
    np.testing.assert_allclose(pdist(turned), pdist(found[order]), atol=0.05)
    order = torch.randperm(80, generator=generator(3))
    again = expected_layout(probability[:, order], place[order], generator())
    torch.testing.assert_close(again, found, atol=0.01, rtol=0)


def test_same_seed_same_bits_and_nothing_else_is_touched() -> None:
    place = somewhere(40)
    probability = around(somewhere(100, seed=1), place)
    before, state = (probability.clone(), place.clone()), torch.get_rng_state()
    one, again, other = (expected_layout(probability, place, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not one.requires_grad
    assert torch.equal(probability, before[0])
    assert torch.equal(place, before[1])
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():  # as drawing calls it
        assert torch.equal(expected_layout(probability, place, generator()), one)


@DIMENSIONS
@pytest.mark.parametrize("n", [1, 2, 5, 63])
def test_few_cells_have_a_layout(n: int, n_dims: int) -> None:
    place = somewhere(30, n_dims)
    probability = around(somewhere(n, n_dims, seed=1), place)
    found = expected_layout(probability, place, generator())
    assert found.shape == (n, n_dims)
    assert found.isfinite().all()
    torch.testing.assert_close(found.mean(0), (probability @ place).mean(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [2, 100])
def test_cells_all_alike_have_a_layout(n: int) -> None:
    place = somewhere(30)
    for own in (around(torch.zeros(1, 2), place), torch.eye(30)[:1]):
        found = expected_layout(own.expand(n, -1), place, generator())
        assert found.isfinite().all()
        torch.testing.assert_close(found.mean(0), (own @ place)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("n_places", "n_dims"), [(1, 2), (1, 3), (2, 3), (2, 2)])
def test_fewer_places_than_a_tissue_has_dimensions(n_places: int, n_dims: int) -> None:
    """As after training on ten cells in three dimensions."""
    place = somewhere(n_places, n_dims)
    probability = torch.rand(12, n_places, generator=generator()).softmax(1)
    found = expected_layout(probability, place, generator())
    assert found.shape == (12, n_dims)
    assert found.isfinite().all()


# ------------------------------------------------------- probabilities of a mean


@DIMENSIONS
def test_probabilities_tilted_along_the_tissue_are_found_by_their_mean(n_dims: int) -> None:
    """There is one such tilt to every mean, so the one of which it was made must come back."""
    place = somewhere(60, n_dims)
    probability = around(somewhere(80, n_dims, seed=1), place, blur=0.6)
    slope = 2 * torch.randn(80, n_dims, generator=generator(2))
    tilted = (probability.log() + slope @ place.T).softmax(1)
    mean = tilted @ place
    assert (mean - probability @ place).norm(dim=1).mean() > 0.3
    found = with_mean(probability, place, mean)
    torch.testing.assert_close(found.sum(1), torch.ones(80))
    torch.testing.assert_close(found @ place, mean, atol=1e-3, rtol=0)
    torch.testing.assert_close(found, tilted, atol=2e-3, rtol=0)  # as exact as the mean is
    assert (tilted - probability).abs().amax(1).mean() > 0.02


def test_probabilities_of_their_own_mean_stay_as_they_are() -> None:
    place = somewhere(40)
    probability = around(somewhere(50, seed=1), place)
    assert torch.equal(with_mean(probability, place, probability @ place), probability)
    # Also where another cell has another mean.
    mean = probability @ place
    mean[0] = 0.5 * mean[0]
    found = with_mean(probability, place, mean)
    torch.testing.assert_close(found[1:], probability[1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(found @ place, mean, atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_relative_entropy_is_the_least_there_is(seed: int) -> None:
    """Against scipy's minimum over all probabilities of that mean."""
    place = somewhere(7, seed=seed)
    rng = np.random.default_rng(seed)
    own, mean = rng.dirichlet(np.ones(7)), rng.dirichlet(np.full(7, 2.0)) @ place.double().numpy()

    def entropy(p: np.ndarray) -> float:
        return float((p * np.log(p / own)).sum())

    conditions = (
        {"type": "eq", "fun": lambda p: p.sum() - 1},
        {"type": "eq", "fun": lambda p: p @ place.double().numpy() - mean},
    )
    best = minimize(
        entropy, np.full(7, 1 / 7), method="SLSQP", bounds=[(1e-9, 1)] * 7, constraints=conditions, tol=1e-10
    )
    assert best.success
    arguments = (torch.as_tensor(value[None], dtype=torch.float32) for value in (own, mean))
    probability, wanted = arguments
    found = with_mean(probability, place, wanted)[0].double().numpy()
    np.testing.assert_allclose(found, best.x, atol=2e-3)
    # A mean that is right to a thousandth has an entropy that is right to its slope, ten at most, times that.
    assert entropy(found / found.sum()) == pytest.approx(best.fun, abs=0.01)


@DIMENSIONS
@pytest.mark.parametrize("away", [2.5, 100.0, 1e6])
def test_means_where_no_place_is_are_approached(n_dims: int, away: float) -> None:
    place = somewhere(50, n_dims)
    probability = around(somewhere(20, n_dims, seed=1), place, blur=0.5)
    mean = probability @ place
    inside = with_mean(probability, place, 0.7 * mean)
    wanted = 0.7 * mean
    wanted[:10] = away * torch.nn.functional.normalize(mean[:10])
    found = with_mean(probability, place, wanted)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(20))
    torch.testing.assert_close(found[10:], inside[10:], atol=1e-4, rtol=0)  # others are not disturbed
    before, after = ((one.double() - wanted)[:10].norm(dim=1) for one in (mean, found @ place))
    assert (after < before).all()


def test_cells_sure_of_one_place_and_a_tissue_of_one_place() -> None:
    place = somewhere(40)
    found = with_mean(torch.eye(40), place, 0.5 * place)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(1), torch.ones(40))
    assert torch.equal(with_mean(torch.ones(3, 1), torch.zeros(1, 2), torch.ones(3, 2)), torch.ones(3, 1))
