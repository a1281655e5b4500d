"""The networks of VARST: both stages, the mean, and what is learnt of residuals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stomics_tools.model.var_st._codes import cross_entropy, n_logits
from stomics_tools.model.var_st._inputs import InputScaling
from stomics_tools.model.var_st._residuals import Residuals
from stomics_tools.model.var_st._settings import VarSTSettings
from stomics_tools.model.var_st._smooth import SmoothRegression
from stomics_tools.model.var_st._transformer import NextScaleTransformer
from stomics_tools.model.var_st._vqvae import GeneVQVAE
from stomics_tools.nn import FSQ, PerceptronEnsemble, VectorQuantizer

MAX_LANDMARKS = 1500


class VarSTModule(nn.Module):
    """All networks of :class:`~stomics_tools.model.VARST`.

    Parameters
    ----------
    settings
        Dimensions.
    tree
        int64 ``(n_scales, n_genes)``, see :func:`~stomics_tools.model.var_st._gene_tree.gene_tree`.
    n_features
        Image features of a spot.
    n_inputs
        All that the networks see of a spot.
    n_folds
        Folds of the training data.
    n_landmarks
        Spots that the smooth regression keeps.
    """

    gene_mean: Tensor
    gene_sd: Tensor
    gene_low: Tensor
    tree: Tensor
    smooth_share: Tensor

    def __init__(
        self,
        settings: VarSTSettings,
        tree: Tensor,
        *,
        n_features: int,
        n_inputs: int,
        n_folds: int,
        n_landmarks: int,
    ) -> None:
        super().__init__()
        s, n_genes = settings, tree.shape[1]
        self.settings = settings
        self.register_buffer("tree", tree)
        for name, value in (("gene_mean", 0.0), ("gene_sd", 1.0), ("gene_low", 0.0)):
            self.register_buffer(name, torch.full((n_genes,), value))
        self.scaling = InputScaling(n_features)

        quantizer: FSQ | VectorQuantizer
        if s.quantizer == "fsq":
            quantizer = FSQ.for_vocabulary(s.n_codes)
        else:
            quantizer = VectorQuantizer(s.n_codes, mode=s.quantizer)
        self.stage1 = GeneVQVAE(tree, quantizer, width=s.n_field, n_components=s.n_components, likelihood=s.likelihood)

        self.mean = PerceptronEnsemble(
            n_inputs,
            n_genes,
            n_members=s.n_members,
            n_folds=n_folds,
            width=s.n_mean_hidden,
            dropout=s.mean_dropout,
        )
        self.smooth = SmoothRegression(n_landmarks, n_inputs, n_genes)
        self.register_buffer("smooth_share", torch.tensor(0.0))
        self.residuals = Residuals(n_genes)

        self.condition = nn.Sequential(
            nn.Dropout(s.mean_dropout),
            nn.Linear(n_inputs, s.n_condition),
            nn.GELU(),
            nn.Dropout(s.mean_dropout),
            nn.Linear(s.n_condition, s.n_condition),
        )
        self.expected = nn.Linear(n_genes, s.n_condition)
        self.no_condition = nn.Parameter(torch.zeros(s.n_condition))
        self.transformer = NextScaleTransformer(
            self.stage1.scales.sizes,
            s.n_field,
            n_logits(quantizer, factorized=s.factorized),
            width=s.n_condition,
            n_heads=s.n_heads,
            n_layers=s.n_layers,
            n_hidden=s.n_hidden,
            dropout=s.dropout,
        )

    # ------------------------------------------------------------------ units

    def standardize(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised expression, zero where it was not measured, and where it was (0 or 1): ``(b, n_genes)`` each."""
        measured = ~expression.isnan()
        return ((expression - self.gene_mean) / self.gene_sd).masked_fill(~measured, 0.0), measured.to(expression)

    def restore(self, standardized: Tensor) -> Tensor:
        """Expression in the units of training, not below the least value seen of each gene."""
        return torch.maximum(standardized * self.gene_sd + self.gene_mean, self.gene_low)

    def decoded(self, field: Tensor) -> Tensor:
        """Expression, in the units of training, that a field ``(..., s, n_field)`` of stage 1 stands for."""
        outputs = self.stage1.decode(field)
        if self.settings.likelihood == "nb":
            return torch.log1p(1e4 * outputs.softmax(-1))
        return self.restore(outputs)

    # --------------------------------------------------------------- the mean

    def expectation(self, inputs: Tensor) -> Tensor:
        """Standardised expression expected given the inputs, ``(b, n_genes)``.

        The smooth regression has a share of it that was found on spots left out, and all of it where a spot is
        stranger than those were.
        """
        share = self.smooth_share + (1 - self.smooth_share) * self.smooth.novelty(inputs)
        return torch.lerp(self.mean(inputs), self.smooth(inputs), share)

    # ---------------------------------------------------------- the generator

    def embed(self, inputs: Tensor, expected: Tensor) -> Tensor:
        """Condition ``(b, n_condition)`` of the transformer, from the inputs and what is expected given them."""
        return self.condition(inputs) + self.expected(expected)

    def conditions(self, inputs: Tensor) -> Tensor:
        """Conditions of spots that were not trained on."""
        return self.embed(inputs, torch.lerp(self.mean(inputs), self.smooth(inputs), self.smooth.novelty(inputs)))

    def generator_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of the codes, mean over the tokens of a scale and over the scales.

        The condition holds what the mean head and the smooth regression say of a spot without having been fitted to
        it, as it will be later.
        """
        inputs, codes = batch["inputs"], batch["codes"]
        s, stage1 = self.settings, self.stage1
        with torch.no_grad():
            mode = self.mean.training
            left_out = self.mean.eval().left_out(inputs, batch["fold"])
            self.mean.train(mode)
            left_out = left_out.to(batch["smooth"])  # mixed precision halves it
            expected = torch.lerp(left_out, batch["smooth"], batch["novelty"])
            pooled = self._pooled(codes)
        condition = self.embed(inputs, expected)
        if s.condition_dropout:
            dropped = torch.rand(len(inputs), 1, device=inputs.device) < s.condition_dropout
            condition = torch.where(dropped, self.no_condition, condition)
        logits = self.transformer(condition, pooled)
        loss = cross_entropy(logits, codes, stage1.quantizer, factorized=s.factorized, softness=s.label_softness)
        return torch.stack([loss[:, tokens].mean() for tokens in stage1.scales.slices()]).mean()

    def _pooled(self, codes: Tensor) -> Tensor:
        """What the coarser codes tell, pooled to each scale but the first: ``(b, n_tokens - n_first, n_field)``."""
        scales = self.stage1.scales
        known, pooled = torch.zeros((), device=codes.device), []
        for scale, tokens in enumerate(scales.slices()[:-1]):
            known = known + self.stage1.lookup(codes[:, tokens], scale)
            pooled.append(scales.down(known, scale + 1))
        if not pooled:
            return self.gene_mean.new_zeros(len(codes), 0, self.settings.n_field)
        return torch.cat(pooled, dim=1)


class Stage1(nn.Module):
    """Stage 1 as it is trained, inside all networks."""

    def __init__(self, networks: VarSTModule) -> None:
        super().__init__()
        self.networks = networks

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """See :meth:`GeneVQVAE.loss`."""
        networks = self.networks
        return networks.stage1.loss(
            batch["expression"], batch["measured"], batch.get("counts"), hide=networks.settings.hide_genes
        )


class Stage2(nn.Module):
    """Stage 2 as it is trained, inside all networks: the mean head and the transformer, stage 1 as it is."""

    def __init__(self, networks: VarSTModule) -> None:
        super().__init__()
        self.networks = networks

    def train(self, mode: bool = True) -> Stage2:
        """Dropout and the like, but not in stage 1."""
        super().train(mode)
        self.networks.stage1.eval()
        return self

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Loss of the mean head, and cross-entropy of the codes."""
        networks = self.networks
        mean = networks.mean.loss(
            batch["inputs"], batch["expression"], batch["measured"], batch["fold"], mixup=networks.settings.mixup
        )
        codes = networks.generator_loss(batch)
        return {"train_loss": mean + codes, "mean_loss": mean, "code_loss": codes}
