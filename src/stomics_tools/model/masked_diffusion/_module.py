"""The networks of MaskedDiffusion: what is expected of cells, and the diffusion around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stomics_tools.model.masked_diffusion._latent import GeneLatent
from stomics_tools.model.masked_diffusion._mixture import Mixture, mixture_posterior
from stomics_tools.model.masked_diffusion._network import Cells, DiffusionTransformer, Found
from stomics_tools.model.masked_diffusion._places import Places
from stomics_tools.model.masked_diffusion._retrieval import Alike, References
from stomics_tools.model.masked_diffusion._schedule import (
    Level,
    Posterior,
    Schedule,
    clean,
    gaussian_posterior,
    loss_weight,
    wanted,
)
from stomics_tools.model.masked_diffusion._settings import DiffusionSettings
from stomics_tools.nn import PerceptronEnsemble, RouterLosses

Batch = dict[str, Tensor]
HELD_OUT = 0  # the fold of the cells of training that the transformer is never asked for
_LEAST_SD = 0.25
_ROWS = 4096


class Prior(NamedTuple):
    """Mean, and variance that broadcasts to it."""

    mean: Tensor
    variance: Tensor


class _Answer(NamedTuple):
    """Outputs of the network, their targets and weights ``(b, n, ...)``; cells asked for, and held out, ``(b, n)``."""

    output: Tensor
    target: Tensor
    weight: Tensor
    asked: Tensor
    held_out: Tensor


class MaskedDiffusionModule(nn.Module):
    """All networks of :class:`~stomics_tools.model.MaskedDiffusion`.

    What a cell's own genes say of its position (how likely each place of the tissue is), what its given genes say of
    its latent expression (probabilistic principal components), and what its neighbours say of its expression (ridge regression)
    are normal distributions and mixtures of them, whose posteriors given the noised values are in closed form. The
    transformer corrects these: it begins as zero, hence the diffusion as that of independent cells, and counts as much
    as it helps cells that it was not trained on.

    Parameters
    ----------
    settings
        Dimensions.
    n_genes, n_dims, n_folds, n_places, n_references
        Of the data; the last two are the places of the tissue, and the cells of training that are kept.
    """

    gene_mean: Tensor
    gene_sd: Tensor
    around_weight: Tensor
    around_variance: Tensor
    unit: Tensor
    share: Tensor

    def __init__(
        self,
        settings: DiffusionSettings,
        *,
        n_genes: int,
        n_dims: int,
        n_folds: int,
        n_places: int,
        n_references: int,
    ) -> None:
        super().__init__()
        s, n_latent = settings, min(settings.n_latent, n_genes)
        self.settings, self.schedule = settings, Schedule(s.objective, s.diffusion_steps)
        self.register_buffer("gene_mean", torch.zeros(n_genes))
        self.register_buffer("gene_sd", torch.ones(n_genes))
        self.register_buffer("unit", torch.ones(()))  # of positions, in those of the coordinates
        self.register_buffer("share", torch.ones(2))  # that the outputs of the network count, see `weigh`
        self.latent = GeneLatent(n_genes, n_latent)
        self.regression = PerceptronEnsemble(
            n_genes,
            n_places,
            n_members=s.n_members,
            n_folds=n_folds,
            width=s.n_regression_hidden,
            dropout=s.regression_dropout,
        )
        self.places = Places(n_places, n_dims)
        self.references = References(n_references, n_latent, n_dims)
        self.register_buffer("around_weight", torch.zeros(3 * n_latent, n_latent))
        self.register_buffer("around_variance", torch.ones(n_latent))
        self.network = DiffusionTransformer(s, n_dims, n_latent)

    # ----------------------------------------------------------------- priors

    @torch.no_grad()
    def said(self, genes: Tensor, panel: Tensor, fold: Tensor | None = None) -> Tensor:
        """What genes say of places ``(n, 2, n_places)``, as :class:`Places` takes it: by the classifier, and by cells alike.

        Parameters
        ----------
        genes
            ``(n, n_genes)``, zero where not given.
        panel
            The genes given, 0 or 1 ``(n_genes,)``.
        fold
            ``(n,)``, of cells of training: to ask a member that has not seen the cell, and cells of other folds.
        """
        training = self.regression.training
        self.regression.eval()
        classified = self.regression(genes) if fold is None else self.regression.left_out(genes, fold)
        self.regression.train(training)
        alike = self._alike(self.latent.given(genes[None], panel[None])[0][0], panel, fold)
        return torch.stack([classified, self.places.among(alike, self.references.position)], dim=1)

    def probabilities(self, genes: Tensor, panel: Tensor) -> Tensor:
        """Of the places of the tissue, by the genes of cells ``(n, n_genes)``: ``(n, n_places)``."""
        parts = [self.places(self.said(part, panel)).log_weight for part in genes.split(_ROWS)]
        return torch.cat(parts).exp()

    @torch.no_grad()
    def position_prior(self, given: Batch) -> Mixture:
        """Positions expected of cells ``(b, n)`` whose genes are told; of others, those of the tissue at large.

        `given` holds ``genes``, ``panel``, ``told``, and of cells of training ``fold``.
        """
        folds = given.get("fold", [None] * len(given["genes"]))
        sets = zip(given["genes"], given["panel"], folds, strict=True)
        found = torch.stack([self.said(genes, panel, fold) for genes, panel, fold in sets])
        return self.places(found * given["told"][..., None, None])

    def expression_prior(self, given: Batch) -> Prior:
        """Latent expression ``(b, n, L)`` expected: by the genes given, else by the neighbours, else at large."""
        told, beside = given["told"][..., None], given["beside"][..., None]
        by_genes = self.latent.given(given["genes"], given["panel"])
        by_neighbors = (given["around"] @ self.around_weight) * beside
        return Prior(
            torch.where(told, by_genes[0], by_neighbors),
            torch.where(told, by_genes[1], torch.where(beside, self.around_variance, 1.0)),
        )

    @torch.no_grad()
    def retrieved(self, mean: Tensor, panel: Tensor) -> Tensor:
        """Mean latent expression ``(n, L)`` of the cells of training that are alike in the genes of `panel` ``(n_genes,)``.

        `mean` ``(n, L)`` is what these genes tell. Of the genes that they do not tell this says more than `mean`, in which
        there is the noise of those given.
        """
        found = [self._alike(part, panel) for part in mean.split(_ROWS)]
        total = torch.cat([alike.sum(self.references.scores) / alike.number for alike in found])
        return total / self.latent.variance.sqrt()

    def _alike(self, mean: Tensor, panel: Tensor, fold: Tensor | None = None) -> Alike:
        """The cells of training most alike in the genes of `panel`, which tell the latent expression `mean` ``(n, L)``."""
        sd = self.latent.variance.sqrt()
        return self.references.alike(mean * sd, lambda scores: self.latent.told(scores / sd, panel) * sd, fold)

    # --------------------------------------------------------------- training

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch of :class:`~stomics_tools.model.masked_diffusion._windows.Windows`.

        Where residuals are learnt, cells of the fold `HELD_OUT` are seen among the others and asked for nothing.
        """
        answers, router = self._answers(batch)
        losses = [_mean(((a.output - a.target).square() * a.weight).mean(-1), a.asked & ~a.held_out) for a in answers]
        s = self.settings
        return {
            "train_loss": losses[0] + losses[1] + s.balance_weight * router.balance + s.router_z_weight * router.z,
            "position_loss": losses[0],
            "expression_loss": losses[1],
        }

    @torch.no_grad()
    def weigh(self, batches: Iterable[Batch]) -> None:
        """Find the share of the network's outputs that makes the error of the cells held out the smallest, 0 to 1.

        What a network learns of few slices may not hold of another one: the closed form it corrects is then better alone.
        """
        if self.settings.target != "residual":
            return
        both, own = torch.zeros(2), torch.zeros(2)
        for batch in batches:
            here = {name: value.to(self.unit.device) for name, value in batch.items()}
            for kind, a in enumerate(self._answers(here)[0]):
                weight = a.weight * (a.asked & a.held_out)[..., None]
                both[kind] += (weight * a.output * a.target).sum().cpu()
                own[kind] += (weight * a.output.square()).sum().cpu()
        self.share.copy_(torch.where(own > 0, (both / own.clamp(min=1e-12)).clamp(0, 1), 1.0))

    def _answers(self, batch: Batch) -> tuple[list[_Answer], RouterLosses]:
        s, position = self.settings, batch["position"]
        with torch.no_grad():
            expected = self.expression_prior(batch)
            places = self.position_prior(batch)
            if s.augment_pose:
                pose = random_poses(len(position), position.shape[-1]).to(position)
                variance = places.variance.mean(-1, keepdim=True).expand_as(places.variance)
                position, places = position @ pose, Mixture((places.mean @ pose)[:, None], variance, places.log_weight)
            known = torch.stack([batch["placed"], batch["shown"]], dim=-1)
            time = batch["time"].masked_fill(known, 0.0)
        levels = self._levels(time)
        noised, posteriors, targets = [], [], []
        priors: tuple[Mixture, Prior] = (places, expected)
        for kind, x in enumerate((position, batch["latent"])):
            level, eps = levels[kind], torch.randn_like(x)
            values = level.signal * x + level.noise * eps
            after = _posterior(values, level, priors[kind])
            noised.append(values)
            posteriors.append(after)
            targets.append(wanted(x, values, eps, level, after, s.target))
        cells = self._cells(batch, noised, time, posteriors, expected)
        if s.self_conditioning and torch.rand(()) < 0.5:
            with torch.no_grad():
                cells = cells._replace(
                    earlier=torch.cat(self._clean(self.network(cells), noised, levels, posteriors), -1)
                )
        found = self.network(cells)
        weights = (torch.ones_like(position[0, 0]), self.latent.variance / self.latent.variance.mean())
        answers = [
            _Answer(
                output,
                targets[kind],
                weights[kind] * loss_weight(levels[kind], s.target, s.min_snr),
                batch["real"] & ~known[..., kind],
                (batch["fold"] == HELD_OUT) & (s.target == "residual"),
            )
            for kind, output in enumerate((found.position, found.expression))
        ]
        return answers, found.router

    # ---------------------------------------------------------------- drawing

    def denoise(
        self,
        noised: tuple[Tensor, Tensor],
        time: Tensor,
        given: Batch,
        priors: tuple[Mixture, Prior],
        earlier: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Found]:
        """Clean position and latent expression expected of every cell, itself where it is known (time 0).

        Parameters
        ----------
        noised
            Positions ``(b, n, d)`` and latent expression ``(b, n, L)``.
        time
            Of each, ``(b, n, 2)``.
        given
            ``told``, ``placed``, ``beside`` (bool ``(b, n)``: genes, position, neighbours given), ``around``
            ``(b, n, 3 L)``, and ``real``.
        priors
            See :meth:`position_prior` and :meth:`expression_prior`.
        earlier
            What was found a step before.
        """
        levels = self._levels(time)
        posteriors = [_posterior(noised[k], levels[k], priors[k]) for k in (0, 1)]
        cells = self._cells(given, list(noised), time, posteriors, priors[1])
        found = self.network(cells if earlier is None else cells._replace(earlier=torch.cat(earlier, -1)))
        position, expression = self._clean(found, noised, levels, posteriors)
        return position, expression, found

    def _clean(
        self, found: Found, noised: Sequence[Tensor], levels: list[Level], posteriors: list[Posterior]
    ) -> tuple[Tensor, Tensor]:
        outputs, target = (self.share[0] * found.position, self.share[1] * found.expression), self.settings.target
        position, expression = (clean(outputs[k], noised[k], levels[k], posteriors[k], target) for k in (0, 1))
        return position, expression

    def _levels(self, time: Tensor) -> list[Level]:
        return [Level(*(part[..., None] for part in self.schedule.level(one))) for one in time.unbind(-1)]

    def _cells(
        self,
        given: Batch,
        noised: list[Tensor],
        time: Tensor,
        posteriors: list[Posterior],
        expression_prior: Prior,
    ) -> Cells:
        expression, expected = noised[1], posteriors[1].mean
        # Of expression that is known the leading components only: from more, few slices would be learnt by heart.
        read = torch.arange(expression.shape[-1], device=expression.device) < self.settings.n_read
        seen = (time[..., 1:] > 0) | read
        return Cells(
            noised[0],
            expression * seen,
            time,
            posteriors[0].mean,
            posteriors[0].sd,
            expected * seen,
            expression_prior.variance.sqrt().expand_as(expected),
            given["around"],
            torch.stack([given["told"], given["placed"], given["beside"]], dim=-1).to(expression),
            None,
            given["real"],
        )


def _posterior(noised: Tensor, level: Level, prior: Mixture | Prior) -> Posterior:
    if isinstance(prior, Mixture):
        mean, sd = mixture_posterior(noised, level, prior)
        # A mixture that is sure of the wrong place would make residuals without bounds.
        return Posterior(mean, torch.maximum(sd, _LEAST_SD * level.noise))
    return gaussian_posterior(noised, level, *prior)


def random_poses(n: int, n_dims: int) -> Tensor:
    """Random rotations and reflections, uniform, ``(n, n_dims, n_dims)``."""
    q, r = torch.linalg.qr(torch.randn(n, n_dims, n_dims))
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
