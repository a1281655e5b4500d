"""Where cells alike lie: a mixture of positions for each cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stomics_tools.model.masked_diffusion._mixture import Mixture

MAX_REFERENCES = 8192
_MAX_ALIKE = 32
_N_AVERAGED = 50
_MAX_FITTED = 4000
_N_STEPS = 400
_LEAST_VARIANCE = 1e-4


class PositionMixture(nn.Module):
    """Positions expected of a cell by its expression, as a mixture of normal distributions.

    One lies around each cell of training most alike, weighted by the distance in principal components and in what a
    regression says of the positions of both, and one around what the regression says. So tissue with two like sides has two places for a cell, where a regression
    alone would have the middle. Widths and weights are those of the largest likelihood of cells that are left out.

    Parameters
    ----------
    n_references, n_latent, n_dims
        Cells of training that are kept, and widths.
    """

    traits: Tensor
    trait_scale: Tensor
    position: Tensor
    slice_of: Tensor
    number: Tensor
    elsewhere: Tensor

    def __init__(self, n_references: int, n_latent: int, n_dims: int) -> None:
        super().__init__()
        self.n_alike = min(_MAX_ALIKE, max(n_references - 1, 1))
        self.register_buffer("traits", torch.zeros(n_references, n_latent + n_dims))
        self.register_buffer("trait_scale", torch.ones(n_latent + n_dims))
        self.register_buffer("position", torch.zeros(n_references, n_dims))
        self.register_buffer("slice_of", torch.zeros(n_references, dtype=torch.int64))
        self.register_buffer("number", torch.arange(n_references))  # of the cell among all of training
        self.register_buffer("elsewhere", torch.tensor(False))  # whether cells of training look at other slices only
        self.log_variance = nn.Parameter(torch.full((n_dims,), -2.0), requires_grad=False)
        self.log_regression_variance = nn.Parameter(torch.zeros(n_dims), requires_grad=False)
        self.log_sharpness = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.regression_logit = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def forward(self, scores: Tensor, regression: Tensor, cell: tuple[Tensor, Tensor] | None = None) -> Mixture:
        """Mixture of each of ``n`` cells.

        Parameters
        ----------
        scores
            Principal components ``(n, L)``.
        regression
            Positions ``(n, d)`` that the regression says.
        cell
            Of cells of training, their number and slice ``(n,)``: such a cell is not its own reference, and neither is
            its slice where there are others.
        """
        distance, index = self._alike(torch.cat([scores, regression], dim=1), cell)
        return self._mixture(distance, self.position[index], regression)

    def fit(self, scores: Tensor, position: Tensor, slice_of: Tensor, regression: Tensor, n_slices: int) -> None:
        """Keep references, and find widths and weights; `regression` is of members that have not seen the cell."""
        traits = torch.cat([scores, regression], dim=1)
        for own in (slice(None, scores.shape[1]), slice(scores.shape[1], None)):  # both count alike
            self.trait_scale[own] = traits[:, own].square().sum(1).mean().sqrt().clamp(min=1e-6)
        chosen = torch.randperm(len(scores))[: len(self.traits)]
        self.traits.copy_(traits[chosen] / self.trait_scale)
        self.position.copy_(position[chosen])
        self.slice_of.copy_(slice_of[chosen])
        self.number.copy_(chosen)
        self.elsewhere.fill_(n_slices > 1)
        asked = torch.randperm(len(scores))[:_MAX_FITTED]
        distance, index = self._alike(traits[asked], (asked, slice_of[asked]))
        around, truth = self.position[index], position[asked]
        parameters = [self.log_variance, self.log_regression_variance, self.log_sharpness, self.regression_logit]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, lr=0.05)
        with torch.enable_grad():
            for _ in range(_N_STEPS):
                loss = -self._mixture(distance, around, regression[asked]).log_density(truth).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for parameter in parameters:
            parameter.requires_grad_(False)

    def mean_scores(self, scores: Tensor, of_references: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean principal components ``(n, L)`` of the cells of training most alike in what is known of both.

        Parameters
        ----------
        scores
            As some genes tell them, ``(n, L)``.
        of_references
            Principal components ``(m, L)`` to what the same genes would tell of them.
        """
        n_latent = scores.shape[1]
        references = self.traits[:, :n_latent] * self.trait_scale[:n_latent]
        distance = torch.cdist(scores, of_references(references))  # at most 8,192 references, and cells by blocks
        return references[distance.topk(min(_N_AVERAGED, len(references)), dim=1, largest=False).indices].mean(1)

    def _alike(self, traits: Tensor, cell: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Squared distances to the cells most alike, and which these are, ``(n, k)`` each."""
        # At most 8,192 references, and two windows of cells at a time (4,000 cells while fitting).
        distance = torch.cdist(traits / self.trait_scale, self.traits).square()
        if cell is not None:
            number, slice_of = cell
            own = number[:, None] == self.number
            if self.elsewhere:
                own = own | (slice_of[:, None] == self.slice_of)
            distance = distance.masked_fill(own, torch.inf)
        return distance.topk(self.n_alike, dim=1, largest=False)

    def _mixture(self, distance: Tensor, around: Tensor, regression: Tensor) -> Mixture:
        # A reference that may not be used is infinitely far, hence weighs nothing; infinity times sharpness would have
        # no gradient.
        barred = distance.isinf()
        nearness = -distance.masked_fill(barred, 0.0) * self.log_sharpness.exp()
        nearness = nearness.masked_fill(barred & ~barred.all(1, keepdim=True), -torch.inf)
        weight = nearness.log_softmax(1) + nn.functional.logsigmoid(-self.regression_logit)
        last = nn.functional.logsigmoid(self.regression_logit).expand(len(weight), 1)
        variance = torch.cat([self.log_variance.expand(around.shape[1], -1), self.log_regression_variance[None]]).exp()
        return Mixture(
            torch.cat([around, regression[:, None]], dim=1),
            variance.clamp(min=_LEAST_VARIANCE),
            torch.cat([weight, last], dim=1).clamp(min=-1e4),
        )
