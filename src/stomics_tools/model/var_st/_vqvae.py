"""Stage 1: the multi-scale vector-quantized auto-encoder of expression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stomics_tools.model.var_st._scales import GeneGroups, Scales
from stomics_tools.nn import FSQ, RunningWhitening, VectorQuantizer


class Field(NamedTuple):
    """An expression profile in codes.

    ``codes`` int64 ``(b, n_tokens)``, coarse scales first; ``prefixes`` ``(n_scales, b, s, width)``: the field as the
    scales up to each one tell it; ``loss`` of the quantizer.
    """

    codes: Tensor
    prefixes: Tensor
    loss: Tensor


class GeneVQVAE(nn.Module):
    """Expression to codes at several scales, and back.

    A profile becomes a field: a vector for each group of genes of the finest scale. Scale by scale, what is left of the
    field is pooled over the gene tree, quantized, spread over the groups and taken off (residual quantization across
    scales, Tian et al. 2024, algorithms 1 and 2, with a tree of genes in place of image resolutions). Codes lie in a
    space of few dimensions that is whitened for each scale, so that one set of codes serves all of them. Each gene has
    weights of its own on the way in and out.

    Parameters
    ----------
    tree
        int64 ``(n_scales, n_genes)``: nested groups of the genes, coarse to fine.
    quantizer
        Codes that all scales share.
    width
        Of the field.
    n_context
        Numbers in which the whole profile is told to every group.
    likelihood
        ``"normal"``: outputs are means of standardised expression; ``"nb"``: logits of the share of each gene.
    """

    def __init__(
        self, tree: Tensor, quantizer: FSQ | VectorQuantizer, *, width: int, n_context: int, likelihood: str
    ) -> None:
        super().__init__()
        n_genes = tree.shape[1]
        self.likelihood = likelihood
        self.genes = GeneGroups(tree[-1])
        self.scales = Scales(tree)
        self.quantizer = quantizer
        n_groups, n_scales = self.scales.sizes[-1], len(self.scales.sizes)

        self.value_weight = nn.Parameter(torch.randn(n_genes, width) / width**0.5)
        self.missing_weight = nn.Parameter(torch.randn(n_genes, width) / width**0.5)
        self.identity = nn.Parameter(torch.randn(n_groups, width) / width**0.5)
        self.context = nn.Sequential(nn.Linear(n_genes, n_context), nn.GELU(), nn.Linear(n_context, 2 * width))
        self.encode_block = Block(width)

        self.project = nn.Linear(width, quantizer.dim)
        self.unproject = nn.Linear(quantizer.dim, width)
        self.whitening = nn.ModuleList(RunningWhitening(quantizer.dim) for _ in range(n_scales))
        self.spread = nn.ModuleList(nn.Linear(width, width) for _ in range(n_scales))

        self.output_identity = nn.Parameter(torch.randn(n_groups, width) / width**0.5)
        self.decode_block = Block(width)
        self.output_weight = nn.Parameter(torch.randn(n_genes, width) / width**0.5)
        self.output_bias = nn.Parameter(torch.zeros(n_genes))
        if likelihood == "nb":
            self.log_dispersion = nn.Parameter(torch.zeros(n_genes))

    def encode(self, x: Tensor, measured: Tensor) -> Tensor:
        """Field ``(b, s, width)`` of standardised expression ``(b, n_genes)``, zero where `measured` (0 or 1) is 0."""
        share = measured.mean(1, keepdim=True).clamp(min=1e-3)
        tokens = self.genes.to_groups(x, self.value_weight) + self.genes.to_groups(1 - measured, self.missing_weight)
        scale, shift = self.context(x / share).chunk(2, dim=-1)
        return self.encode_block(tokens + self.identity * (1 + scale[:, None]) + shift[:, None])

    def quantize(self, field: Tensor) -> Field:
        """Codes of a field, and the field that they stand for, after each scale."""
        known = torch.zeros_like(field)
        codes, prefixes, loss = [], [], field.new_zeros(())
        for scale in range(len(self.scales.sizes)):
            pooled = self.project(self.scales.down(field - known, scale))
            quantized = self.quantizer(self.whitening[scale](pooled))
            known = known + self._spread(self._whitening(scale).inverse(quantized.values), scale)
            codes.append(quantized.codes)
            prefixes.append(known)
            loss = loss + quantized.loss
        return Field(torch.cat(codes, 1), torch.stack(prefixes), loss / len(codes))

    def lookup(self, codes: Tensor, scale: int) -> Tensor:
        """What the codes ``(b, n_groups)`` of one scale add to the field, ``(b, s, width)``."""
        return self._spread(self._whitening(scale).inverse(self.quantizer.lookup(codes)), scale)

    @torch.no_grad()
    def initialise(self, x: Tensor, measured: Tensor) -> None:
        """Begin the codebook of a vector quantizer with the groups of all scales of some profiles."""
        if isinstance(self.quantizer, VectorQuantizer):
            field = self.encode(x, measured)
            pooled = [self.project(self.scales.down(field, scale)) for scale in range(len(self.scales.sizes))]
            rows = [self.whitening[scale](part).flatten(0, 1) for scale, part in enumerate(pooled)]
            self.quantizer.initialise(torch.cat(rows))

    def _whitening(self, scale: int) -> RunningWhitening:
        whitening = self.whitening[scale]
        assert isinstance(whitening, RunningWhitening)
        return whitening

    def _spread(self, values: Tensor, scale: int) -> Tensor:
        return self.scales.up(self.spread[scale](self.unproject(values)), scale)

    def decode(self, field: Tensor) -> Tensor:
        """Outputs ``(..., n_genes)`` of a field ``(..., s, width)``, of all scales or of the first ones."""
        tokens = self.decode_block(field.flatten(0, -3) + self.output_identity)
        outputs = self.genes.to_genes(tokens, self.output_weight) + self.output_bias
        return outputs.unflatten(0, field.shape[:-2])

    def losses(self, x: Tensor, measured: Tensor, counts: Tensor | None, *, hide: float) -> dict[str, Tensor]:
        """Losses of one step.

        Half of the spots are to be told by the codes of all scales. The other half, by those up to a scale drawn for
        each, and with a share of the genes, up to `hide`, hidden from the encoder: so that coarse codes tell what
        genes have in common.

        Parameters
        ----------
        x, measured
            See :meth:`encode`.
        counts
            ``(b, n_genes)`` for the negative binomial likelihood.
        hide
            Largest share of the genes that is hidden.
        """
        device, n_scales = x.device, len(self.whitening)
        partly = torch.rand(len(x), device=device) < 0.5
        rate = hide * partly * torch.rand(len(x), device=device)
        shown = measured * (torch.rand_like(x) >= rate[:, None])
        field = self.quantize(self.encode(x * shown, shown))
        last = torch.where(partly, torch.randint(n_scales, (len(x),), device=device), n_scales - 1)
        outputs = self.decode(field.prefixes[last, torch.arange(len(x), device=device)])
        error = self._errors(outputs, x, measured, counts) * measured
        reconstruction = error.sum() / measured.sum()
        return {
            "train_loss": reconstruction + field.loss,
            "reconstruction_loss": reconstruction,
            "quantizer_loss": field.loss,
        }

    def _errors(self, outputs: Tensor, x: Tensor, measured: Tensor, counts: Tensor | None) -> Tensor:
        if self.likelihood == "normal":
            return (outputs - x).square()
        assert counts is not None
        share = outputs.masked_fill(measured == 0, -torch.inf).log_softmax(-1).masked_fill(measured == 0, 0.0)
        log_mean = share + counts.sum(1, keepdim=True).clamp(min=1).log()
        return negative_binomial_nll(counts, log_mean, self.log_dispersion)


class Block(nn.Module):
    """Residual perceptron of every group of genes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 2, 1)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same."""
        return x + self.layers(x)


def negative_binomial_nll(counts: Tensor, log_mean: Tensor, log_dispersion: Tensor) -> Tensor:
    """Negative log-likelihood of counts with mean mu and variance ``mu + mu^2 / theta``, elementwise."""
    theta = log_dispersion.exp()
    log_total = torch.logaddexp(log_dispersion, log_mean)
    return (
        torch.lgamma(theta)
        + torch.lgamma(counts + 1)
        - torch.lgamma(counts + theta)
        - theta * (log_dispersion - log_total)
        - counts * (log_mean - log_total)
    )
