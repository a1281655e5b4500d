"""What a trained VARST says of spots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Literal

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from stomics_tools import _validate
from stomics_tools.model.var_st._sampling import Sampling, draw_codes
from stomics_tools.model.var_st._training import VarSTTraining

logger = logging.getLogger("stomics_tools")


class VarSTPredictions(VarSTTraining):
    """Predictions of :class:`~stomics_tools.model.VARST`."""

    @property
    def gene_names(self) -> list[str]:
        """Genes that are predicted, in the order of training."""
        return list(self._state["gene_names"])

    @torch.no_grad()
    def predict(
        self,
        adata: AnnData | None = None,
        *,
        method: Literal["mean", "samples"] = "mean",
        n_samples: int = 20,
        batch_size: int = 1024,
        seed: int = 0,
    ) -> np.ndarray:
        """Expected expression of every spot, from its image features; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or any other one with the same features: in ``obsm``, or in ``X`` as in the
            feature tables of LazySlide. It needs no expression.
        method
            ``"mean"``, the mean head; or ``"samples"``, the mean of draws, for comparison.
        n_samples
            Draws of ``method="samples"``.
        batch_size
            Spots at a time: memory beside the result grows with it and not with the number of spots.
        seed
            Of the draws.

        Returns
        -------
        float32 ``(n_obs, n_genes)`` in the order of :attr:`gene_names` and the units of training.
        """
        _validate.check_option(method, ["mean", "samples"], argument="method")
        if method == "samples":
            _validate.check_integer(n_samples, argument="n_samples")
            return reduce(np.add, self._draws(adata, n_samples, Sampling(), seed, batch_size)) / np.float32(n_samples)
        return self._of_inputs(
            adata, batch_size, len(self.gene_names), lambda x: self.module.restore(self.module.expectation(x))
        )

    def sample(
        self,
        adata: AnnData | None = None,
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 0.0,
        seed: int = 0,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Expression profiles drawn given the image; nothing is written.

        Of a calibrated generator one draw is noisier than the mean by what the image does not tell: for a point
        prediction see :meth:`predict`.

        Parameters
        ----------
        adata
            See :meth:`predict`.
        n
            Draws of every spot.
        temperature
            Divides the logits of the codes; 0 takes the likeliest.
        top_k, top_p
            Only the `top_k` likeliest codes; only the likeliest that together have probability `top_p`.
        guidance
            Classifier-free guidance: how far logits move on from those without a condition.
        seed
            Same seed and `batch_size`, same draws.
        batch_size
            Spots at a time.

        Returns
        -------
        float32 ``(n, n_obs, n_genes)`` in the order of :attr:`gene_names` and the units of training.
        """
        _validate.check_integer(n, argument="n")
        how = Sampling(temperature, top_k, top_p, guidance).checked()
        return np.stack(list(self._draws(adata, n, how, seed, batch_size)))

    def interval(
        self, adata: AnnData | None = None, level: float = 0.8, *, batch_size: int = 1024
    ) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the expression of every spot and gene; nothing is written.

        Around the expectation lie the residuals seen on patients (or sections, where there was one patient) that were
        left out of training, so that a new one is covered as these were.

        Parameters
        ----------
        adata
            See :meth:`predict`.
        level
            Share of the values that lie inside, between 0 and 1.
        batch_size
            Spots at a time.

        Returns
        -------
        Lower and upper bound, float32 ``(n_obs, n_genes)`` each.

        Warns
        -----
        If the model was trained on one patient: the difference between patients is then not in the interval.
        """
        _validate.check_number(level, argument="level", low=0, high=1, open_low=True)
        expected = torch.as_tensor(self.predict(adata, batch_size=batch_size))
        kind = self._train_args["folds"]
        if kind != "patient":
            what = {"section": "sections", "block": "parts of one section"}[kind]
            logger.warning(
                "Intervals were calibrated on %s, for want of a second patient: a new patient may differ by more. "
                "Name `patient_key` in `setup_anndata` where there are several.",
                what,
            )
        low = self.module.gene_low.cpu()
        lower, upper = (bound.cpu() for bound in self.module.residuals.bounds(level))
        return torch.maximum(expected + lower, low).numpy(), torch.maximum(expected + upper, low).numpy()

    @torch.no_grad()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        source: Literal["expression", "features"] = "features",
        batch_size: int = 512,
    ) -> np.ndarray:
        """Latent representation of every spot; nothing is written.

        Parameters
        ----------
        adata
            See :meth:`predict`; ``source="expression"`` needs the genes of training as well.
        source
            ``"features"``: the condition of the transformer; ``"expression"``: the field of stage 1, averaged over the
            groups of genes of its second coarsest scale, side by side.
        batch_size
            Spots at a time.

        Returns
        -------
        float32 ``(n_obs, n_condition)`` or ``(n_obs, n_groups * n_field)``.
        """
        _validate.check_option(source, ["expression", "features"], argument="source")
        if source == "features":
            self._require_trained()
            return self._of_inputs(adata, batch_size, self._settings.n_condition, self.module.conditions)
        self._require_stage1()
        stage1 = self.module.stage1
        scale = min(1, len(stage1.scales.sizes) - 1)
        parts = []
        for x, measured in self._profiles(adata, batch_size):
            parts.append(stage1.scales.down(stage1.encode(x, measured), scale).flatten(1).cpu())
        return torch.cat(parts).numpy()

    @torch.no_grad()
    def reconstruct(
        self, adata: AnnData | None = None, *, n_scales: int | None = None, batch_size: int = 512
    ) -> np.ndarray:
        """Expression as the codes of stage 1 tell it; those of the coarse scales alone leave out noise.

        Parameters
        ----------
        adata
            The object of setup by default, or another one with the same genes.
        n_scales
            Coarsest scales whose codes are used. Default: all.
        batch_size
            Spots at a time.

        Returns
        -------
        float32 ``(n_obs, n_genes)``.
        """
        self._require_stage1()
        n_all = len(self.module.stage1.scales.sizes)
        used = n_all if n_scales is None else _validate.check_integer(n_scales, argument="n_scales")
        if used > n_all:
            raise ValueError(f"`n_scales` must be at most {n_all}, the number of scales, found {used}.")
        stage1, parts = self.module.stage1, []
        for x, measured in self._profiles(adata, batch_size):
            parts.append(self.module.decoded(stage1.quantize(stage1.encode(x, measured)).prefixes[used - 1]).cpu())
        return torch.cat(parts).numpy()

    def _of_inputs(
        self, adata: AnnData | None, batch_size: int, width: int, function: Callable[[Tensor], Tensor]
    ) -> np.ndarray:
        """What `function` says of the inputs of every spot, float32 ``(n_obs, width)``.

        Every block goes to its place at once: beside the result, memory does not grow with the number of spots.
        """
        self._require_trained()
        _validate.check_integer(batch_size, argument="batch_size")
        spots = self._read(adata, expression=False)
        result = np.empty((spots.n_obs, width), dtype=np.float32)
        for rows, inputs in self._inputs(spots).blocks(batch_size):
            result[rows] = function(inputs.to(self.device)).cpu().numpy()
        return result

    def _profiles(self, adata: AnnData | None, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Standardised expression and what of it was measured, block by block."""
        _validate.check_integer(batch_size, argument="batch_size")
        expression = torch.as_tensor(self._expression(self._read(adata, expression=True))[0])
        for block in expression.split(batch_size):
            yield self.module.standardize(block.to(self.device))

    @torch.no_grad()
    def _draws(self, adata: AnnData | None, n: int, how: Sampling, seed: int, batch_size: int) -> Iterator[np.ndarray]:
        """Profiles of all spots, one draw after the other."""
        self._require_trained()
        generator = torch.Generator(self.device).manual_seed(_validate.check_integer(seed, argument="seed", minimum=0))

        def profile(inputs: Tensor) -> Tensor:
            drawn = draw_codes(self.module, self.module.conditions(inputs), how, generator)
            return self.module.decoded(drawn.field)

        for _ in range(n):
            yield self._of_inputs(adata, batch_size, len(self.gene_names), profile)
