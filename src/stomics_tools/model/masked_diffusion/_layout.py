"""One layout of cells of which each may lie in several places."""

from __future__ import annotations

import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._poses import pose_of

_N_STEPS, _LR = 300, 0.1
_N_OTHERS = 64
_LEAST_DISTANCE = 0.1
_NEWTON_STEPS = 50
_TOLERANCE = 1e-5


def expected_layout(probability: Tensor, place: Tensor, generator: torch.Generator) -> Tensor:
    r"""Positions whose distances are those to be expected of the cells, near ones above all.

    The mean position of a cell that lies on either of two like sides is between them, where no such cell lies, and all
    that is told of its distance from the middle is lost. This is instead the minimum of the expected stress

    .. math::
        \sum_{i,j} \mathbb E\left[ w(D_{ij})\, (\lVert z_i - z_j\rVert - D_{ij})^2 \right], \qquad
        w(D) = (D^2 + 0.1^2)^{-1/4}

    over the distance :math:`D_{ij}` of two cells, each in a place drawn by itself (stress: Kruskal 1964; weights that count
    errors of near cells more: Sammon 1969). Cells that may be near one another come together: two like sides are folded
    onto one. It begins as the leading principal components of the mean embeddings of the cells by the energy distance, and goes on by
    steps on pairs with 64 cells drawn at random: O(n) time and memory.

    Parameters
    ----------
    probability
        Of places, for each cell: ``(n, n_places)``.
    place
        ``(n_places, d)``, of unit variance about.
    generator
        Of the pairs.

    Returns
    -------
    ``(n, d)``, in the pose in which it is nearest the mean positions.
    """
    mean = probability @ place
    n, n_dims = mean.shape
    between = torch.cdist(place, place)  # at most 200 x 200
    weight = (between.square() + _LEAST_DISTANCE**2) ** -0.25
    weighted, distances = probability @ weight, probability @ (weight * between)
    start = _embedding(probability, between, n_dims)
    layout = (start * _size(mean) / _size(start).clamp(min=1e-12)).requires_grad_(True)
    optimizer = torch.optim.Adam([layout], lr=_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _N_STEPS)
    with torch.enable_grad():
        for _ in range(_N_STEPS):
            others = torch.randint(n, (min(_N_OTHERS, n),), generator=generator)
            opposite = probability[others].T
            weights = weighted @ opposite
            wanted = (distances @ opposite) / weights
            apart = ((layout[:, None] - layout[others]).square().sum(-1) + 1e-6).sqrt()
            loss = (weights * (apart - wanted).square()).mean() / weights.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    found = layout.detach() - layout.detach().mean(0)
    centred = mean - mean.mean(0)
    return found @ torch.as_tensor(pose_of(found.numpy(), centred.numpy())) + mean.mean(0)


def with_mean(probability: Tensor, place: Tensor, mean: Tensor) -> Tensor:
    """The probabilities nearest those given, by relative entropy, that have another mean position.

    They are those given times the exponential of a linear function of the place (Csiszár 1975), found by Newton's steps.

    Parameters
    ----------
    probability
        ``(n, n_places)``.
    place
        ``(n_places, d)``.
    mean
        ``(n, d)``. Outside of where the places are it is approached only.

    Returns
    -------
    ``(n, n_places)``.
    """
    log_probability = probability.clamp(min=1e-12).log()
    slope = torch.zeros_like(mean)
    eye = torch.eye(mean.shape[1])
    found = probability
    for _ in range(_NEWTON_STEPS):
        now = found @ place
        missing = mean - now
        if missing.abs().max() < _TOLERANCE:
            break
        second = torch.einsum("nm,md,me->nde", found, place, place) - now[:, :, None] * now[:, None]
        step = torch.linalg.solve(second + 1e-3 * eye, missing)
        slope = slope + step / step.norm(dim=1, keepdim=True).clamp(min=1)
        found = (log_probability + slope @ place.T).softmax(1)
    return found


def _embedding(probability: Tensor, between: Tensor, n_dims: int) -> Tensor:
    """Leading principal components ``(n, n_dims)`` of the mean embeddings of the cells by the energy distance.

    Its kernel is the centred ``-D`` (Sejdinovic et al. 2013), which has no width to be chosen.
    """
    kernel = -between.double()
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    values, vectors = torch.linalg.eigh(kernel)
    features = probability.double() @ (vectors * values.clamp(min=0).sqrt())
    features = features - features.mean(0)
    axes = torch.linalg.eigh(features.T @ features)[1].flip(1)[:, :n_dims]
    return torch.nn.functional.pad(features @ axes, (0, n_dims - axes.shape[1])).float()


def _size(position: Tensor) -> Tensor:
    return (position - position.mean(0)).square().mean().sqrt()
