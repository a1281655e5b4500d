"""GraphST as a torch module on edge lists."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stomics_tools.model._canonical import canonical_axes, covariance, neighbor_means
from stomics_tools.model._centers import add_centers
from stomics_tools.model.graphst._contrast import Discriminator, contrast_loss
from stomics_tools.model.graphst._inputs import Inputs
from stomics_tools.model.graphst._settings import GraphSTSettings

_RANK_TOLERANCE = 1e-12


class GraphSTModule(nn.Module):
    """A linear auto-encoder between two steps on a graph, and contrast with a corrupted view.

    ``Z = A^h X W1`` with h = `n_hops`, reconstruction ``H = A Z W2``, spots ``e = ReLU(Z)``, neighbourhoods
    ``g = sigmoid(e' / |e'|)`` with ``e'`` the mean of ``e`` over a spot and its neighbours. The expression ``X`` enters
    products with ``W1`` and ``W2^T`` alone:

    - ``A^h X W1 = A^h (X W1)``, and a permutation of the rows of ``X`` is one of the rows of ``X W1``;
    - ``|X - S W2|^2 = |X|^2 - 2 <X W2^T, S> + <S^T S, W2 W2^T>`` with ``S = A Z``,

    so that a step takes two products of ``(n_obs, n_genes)`` with ``2 n_latent`` columns and makes no other array of that
    size.

    Parameters
    ----------
    center, scale
        Means of the genes ``(n_genes,)`` and scale of the data, kept for the preparation of others.
    settings
        See :class:`~stomics_tools.model.GraphST`.

    Source: GraphST (Long et al., Nature Communications 2023) and the code published with it.
    """

    center: Tensor
    scale: Tensor
    axes: Tensor

    def __init__(self, center: Tensor, scale: Tensor, settings: GraphSTSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        self.register_buffer("axes", torch.eye(settings.n_latent))
        n_genes, n_latent = len(center), settings.n_latent
        self.encoder = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_genes, n_latent)))
        self.decoder = None
        if not settings.tie_weights:
            self.decoder = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_latent, n_genes)))
        self.discriminator = Discriminator(n_latent)

    @property
    def output(self) -> Tensor:
        """Weights of the decoder, ``(n_latent, n_genes)``."""
        return self.encoder.T if self.decoder is None else self.decoder

    def loss(self, inputs: Inputs) -> dict[str, Tensor]:
        """Losses of one training step."""
        s = self.settings
        encoded, against = self._products(inputs.values)
        corrupted = self._corrupted(inputs, encoded)
        latent, corrupted = self._aggregated(inputs, torch.cat([encoded, corrupted], 1)).chunk(2, dim=1)
        smooth = inputs.spatial[0](latent, inputs.spatial[1])
        weights = self.output
        error = ((smooth.T @ smooth) * (weights @ weights.T)).sum() - 2 * (against * smooth).sum()
        reconstruction = inputs.size + error / inputs.values.numel()
        contrast = latent.new_zeros(())
        if s.contrast_weight > 0:
            spots, corrupted = F.relu(latent), F.relu(corrupted)
            means = inputs.readout[0](torch.cat([spots, corrupted], 1), inputs.readout[1]).chunk(2, dim=1)
            around, around_corrupted = (torch.sigmoid(F.normalize(part, dim=1)) for part in means)
            contrast = contrast_loss(self.discriminator, spots, corrupted, around, around_corrupted, s)
        return {
            "train_loss": s.reconstruction_weight * reconstruction + s.contrast_weight * contrast,
            "reconstruction_loss": reconstruction,
            "contrast_loss": contrast,
        }

    def _aggregated(self, inputs: Inputs, x: Tensor) -> Tensor:
        """``A^h x``."""
        for _ in range(self.settings.n_hops):
            x = inputs.spatial[0](x, inputs.spatial[1])
        return x

    def _products(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``X W1`` (of ``X`` after dropout) and ``X W2^T``, ``(n_obs, n_latent)`` each."""
        if self.settings.dropout > 0:
            return self._dropped(x), x @ self.output.T
        if self.decoder is None:
            product = x @ self.encoder
            return product, product
        first, second = (x @ torch.cat([self.encoder, self.decoder.T], dim=1)).chunk(2, dim=1)
        return first, second

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.settings.dropout, self.training) @ self.encoder

    def _corrupted(self, inputs: Inputs, encoded: Tensor) -> Tensor:
        """``X' W1`` of the corrupted expression ``X'``, ``(n_obs, n_latent)``."""
        s = self.settings
        if s.dropout > 0:
            encoded = self._dropped(inputs.values)
        if s.corruption == "permutation":
            ends = zip(inputs.segments[:-1], inputs.segments[1:], strict=True)
            return encoded[torch.cat([first + torch.randperm(last - first) for first, last in ends]).to(encoded.device)]
        if s.corruption == "masking":
            return encoded * (torch.rand(len(encoded), 1) >= s.corruption_rate).to(encoded)
        # (X + E) W1 with normal E: of E only the part in the span of W1 counts, and it is normal in any basis of it.
        basis = torch.linalg.qr(self.encoder.detach()).Q
        noise = torch.randn(len(encoded), basis.shape[1], dtype=encoded.dtype).to(encoded.device)
        return encoded + s.corruption_rate * noise @ (basis.T @ self.encoder)

    @torch.no_grad()
    def orient(self, inputs: Inputs) -> None:
        """After training: give the latent representation the distances of what it tells of expression beside noise.

        ``X W1``, in coordinates in which the rows of ``W2`` are orthonormal, is replaced by its least-squares prediction of
        the mean over the neighbours, ``S^-1 G`` with the covariance S of spots and G of spots and neighbours: a direction
        in which spots are no more like their neighbours than like others is noise of single spots, and vanishes. Columns
        are those of principal components, the largest variance first.
        """
        inner = torch.linalg.qr(self.output.T).R.T
        encoded = inputs.values @ self.encoder @ inner
        encoded -= encoded.mean(0)
        common = covariance(encoded, neighbor_means(inputs.neighbors, encoded))
        spread = covariance(encoded, encoded)
        likeness, basis, inverse = canonical_axes(spread, (common + common.T) / 2)
        smooth = basis * likeness.clamp(min=0) @ inverse
        variance, principal = torch.linalg.eigh(smooth.T @ spread @ smooth)
        principal = (principal * (variance > _RANK_TOLERANCE * variance[-1])).flip(1)
        self.axes.zero_()
        self.axes[:, : inner.shape[1]] = inner @ (smooth @ principal).to(inner)

    @torch.no_grad()
    def latent(self, inputs: Inputs, batch_size: int | None = None) -> Tensor:
        """``Z``, along the axes of :meth:`orient` if there are any, ``(n_obs, n_latent)``, encoded in batches."""
        weight = self.encoder @ self.axes
        batches = inputs.values.split(batch_size or max(inputs.n_obs, 1))
        return self._aggregated(inputs, torch.cat([values @ weight for values in batches]))

    @torch.no_grad()
    def reconstruction(self, inputs: Inputs) -> Tensor:
        """``H``, ``(n_obs, n_genes)``, in the units of the data and about the means of the slice."""
        smooth = inputs.spatial[0](self._aggregated(inputs, inputs.values @ self.encoder), inputs.spatial[1])
        result = smooth @ self.output
        if self.settings.normalize_output:
            return F.normalize(result, dim=1)
        return add_centers(result.mul_(self.scale), inputs.centers, inputs.segments)
