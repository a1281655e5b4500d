"""Stage 1: the multi-scale vector-quantized auto-encoder of expression."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stomics_tools.model.var_st._scales import GeneGroups, Scales
from stomics_tools.nn import FSQ, RunningGaussianization, VectorQuantizer


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

    A profile becomes a field: a vector for each group of genes of the finest scale, in which the whole profile is told
    in few numbers (its components), and what these leave of the group's own genes. Scale by scale, what is left of the
    field is pooled over the gene tree, quantized, spread over the groups and taken off (residual quantization across
    scales, Tian et al. 2024, algorithms 1 and 2, with a tree of genes in place of image resolutions). Each token reads
    a few directions of its own from the field; these are whitened for each scale, so that one set of codes serves all.

    Parameters
    ----------
    tree
        int64 ``(n_scales, n_genes)``: nested groups of the genes, coarse to fine.
    quantizer
        Codes that all scales share.
    width
        Of the field.
    n_components
        Numbers in which the whole profile is told, below `width`.
    likelihood
        ``"normal"``: outputs are means of standardised expression; ``"nb"``: logits of the share of each gene.
    """

    def __init__(
        self, tree: Tensor, quantizer: FSQ | VectorQuantizer, *, width: int, n_components: int, likelihood: str
    ) -> None:
        super().__init__()
        n_genes = tree.shape[1]
        self.likelihood = likelihood
        self.n_components = n_components
        self.genes = GeneGroups(tree[-1])
        self.scales = Scales(tree)
        self.quantizer = quantizer
        n_groups, n_tokens = self.scales.sizes[-1], sum(self.scales.sizes)

        self.components = nn.Parameter(torch.randn(n_genes, n_components) / n_genes**0.5)
        self.own_weight = nn.Parameter(torch.randn(n_genes, width - n_components) / width**0.5)
        self.encode_block = Block(n_groups, width)
        self.project = nn.Parameter(torch.randn(n_tokens, width, quantizer.dim) / width**0.5)
        self.unproject = nn.Parameter(torch.randn(n_tokens, quantizer.dim, width) / width**0.5)
        self.whitening = nn.ModuleList(RunningGaussianization(quantizer.dim) for _ in self.scales.sizes)
        self.decode_block = Block(n_groups, width)
        self.output_weight = nn.Parameter(torch.randn(n_genes, width) / width**0.5)
        self.output_bias = nn.Parameter(torch.zeros(n_genes))
        if likelihood == "nb":
            self.log_dispersion = nn.Parameter(torch.zeros(n_genes))

    def encode(self, x: Tensor, measured: Tensor) -> Tensor:
        """Field ``(b, s, width)`` of standardised expression ``(b, n_genes)``, zero where `measured` (0 or 1) is 0."""
        share = measured.mean(1, keepdim=True).clamp(min=1e-3)
        components = x @ self.components / share
        left = (x - components @ self.output_weight[:, : self.n_components].T) * measured
        own = self.genes.to_groups(left, self.own_weight)
        field = torch.cat([components[:, None].expand(-1, own.shape[1], -1), own], dim=-1)
        return self.encode_block(field)

    def quantize(self, field: Tensor) -> Field:
        """Codes of a field, and the field that they stand for, after each scale."""
        known = torch.zeros_like(field)
        codes, prefixes, loss = [], [], field.new_zeros(())
        for scale, tokens in enumerate(self.scales.slices()):
            read = torch.einsum("btc,tcd->btd", self.scales.down(field - known, scale), self.project[tokens])
            quantized = self.quantizer(self.whitening[scale](read))
            known = known + self._spread(quantized.values, scale)
            codes.append(quantized.codes)
            prefixes.append(known)
            loss = loss + quantized.loss
        return Field(torch.cat(codes, 1), torch.stack(prefixes), loss / len(codes))

    def lookup(self, codes: Tensor, scale: int) -> Tensor:
        """What the codes ``(b, n_groups)`` of one scale add to the field, ``(b, s, width)``."""
        return self._spread(self.quantizer.lookup(codes), scale)

    @torch.no_grad()
    def initialise(self, x: Tensor, measured: Tensor) -> None:
        """Begin the codebook of a vector quantizer with the groups of all scales of some profiles."""
        if isinstance(self.quantizer, VectorQuantizer):
            field = self.encode(x, measured)
            rows = []
            for scale, tokens in enumerate(self.scales.slices()):
                read = torch.einsum("btc,tcd->btd", self.scales.down(field, scale), self.project[tokens])
                rows.append(self.whitening[scale](read).flatten(0, 1))
            self.quantizer.initialise(torch.cat(rows))

    def _spread(self, values: Tensor, scale: int) -> Tensor:
        """Quantized directions ``(b, n_groups, dim)`` of a scale to the field ``(b, s, width)``."""
        whitening = self.whitening[scale]
        assert isinstance(whitening, RunningGaussianization)
        weight = self.unproject[self.scales.slices()[scale]]
        return self.scales.up(torch.einsum("btd,tdc->btc", whitening.inverse(values), weight), scale)

    def decode(self, field: Tensor) -> Tensor:
        """Outputs ``(..., n_genes)`` of a field ``(..., s, width)``, of all scales or of the first ones."""
        tokens = self.decode_block(field.flatten(0, -3))
        outputs = self.genes.to_genes(tokens, self.output_weight) + self.output_bias
        return outputs.unflatten(0, field.shape[:-2])

    def loss(self, x: Tensor, measured: Tensor, counts: Tensor | None, *, hide: float) -> dict[str, Tensor]:
        """Losses of one step.

        Half of the spots are to be told by the codes of all scales. Of the other half, genes are hidden, at random and
        at most a share of `hide`, which the codes up to a scale drawn for each spot are to tell from the other genes:
        so that coarse codes tell what genes have in common, and leave out noise (Batson & Royer 2019).

        Parameters
        ----------
        x, measured
            See :meth:`encode`.
        counts
            ``(b, n_genes)`` for the negative binomial likelihood, zero where not measured.
        hide
            Largest share of the genes that is hidden; with 0 the codes up to a scale are to tell all genes.
        """
        device, n_scales = x.device, len(self.whitening)
        partly = torch.rand(len(x), device=device) < 0.5
        rate = hide * partly * (0.5 + 0.5 * torch.rand(len(x), device=device))
        shown = measured * (torch.rand_like(x) >= rate[:, None])
        field = self.quantize(self.encode(x * shown, shown))
        last = torch.where(partly, torch.randint(n_scales, (len(x),), device=device), n_scales - 1)
        outputs = self.decode(field.prefixes[last, torch.arange(len(x), device=device)])
        error = self._errors(outputs, x, measured, counts)
        whole = _mean(error, shown * ~partly[:, None])
        hidden = _mean(error, (measured - shown if hide else measured) * partly[:, None])
        return {
            "train_loss": whole + hidden + field.loss,
            "reconstruction_loss": whole,
            "hidden_loss": hidden,
            "quantizer_loss": field.loss,
        }

    def _errors(self, outputs: Tensor, x: Tensor, measured: Tensor, counts: Tensor | None) -> Tensor:
        if self.likelihood == "normal":
            return (outputs - x).square()
        assert counts is not None
        share = outputs.masked_fill(measured == 0, -torch.inf).log_softmax(-1).masked_fill(measured == 0, 0.0)
        log_mean = share + counts.sum(1, keepdim=True).clamp(min=1).log()
        return negative_binomial_nll(counts, log_mean, self.log_dispersion)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean; zero where nothing has weight."""
    return (values * weight).sum() / weight.sum().clamp(min=1)


class Block(nn.Module):
    """Residual perceptron of every group of genes, which knows the group; it begins as the identity."""

    def __init__(self, n_groups: int, width: int) -> None:
        super().__init__()
        hidden = max(width // 2, 1)
        self.identity = nn.Parameter(torch.randn(n_groups, width) / width**0.5)
        last = nn.Linear(hidden, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """``(b, n_groups, width)`` to the same."""
        return x + self.layers(x + self.identity)


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
