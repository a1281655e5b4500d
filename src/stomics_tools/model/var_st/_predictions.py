"""What a trained VARST says of spots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Literal

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from stomics_tools import _validate
from stomics_tools._intervals import check_level, largest_level
from stomics_tools.model.var_st._sampling import Sampling, draw_codes
from stomics_tools.model.var_st._training import VarSTTraining
from stomics_tools.train import yielding

logger = logging.getLogger("stomics_tools")


class VarSTPredictions(VarSTTraining):
    """Predictions of :class:`~stomics_tools.model.VARST`."""

    @property
    def gene_names(self) -> list[str]:
        """Genes that are predicted, in the order of training."""
        return list(self._state["gene_names"])

    @torch.no_grad()
    @yielding()
    def predict(
        self,
        adata: AnnData | None = None,
        *,
        method: Literal["mean", "samples"] = "mean",
        n_samples: int | None = None,
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
            Draws of ``method="samples"``, by default 20.
        batch_size
            Spots at a time: memory beside the result grows with it and not with the number of spots.
        seed
            Of the draws.

        Returns
        -------
        float32 ``(n_obs, n_genes)`` in the order of :attr:`gene_names` and the units of training.
        """
        _validate.check_option(method, ["mean", "samples"], argument="method")
        if method == "mean" and n_samples is not None:
            raise ValueError(f"`n_samples={n_samples!r}` has no effect unless `method='samples'`. Leave it out.")
        if method == "samples":
            n_samples = _validate.check_integer(20 if n_samples is None else n_samples, argument="n_samples")
            return reduce(np.add, self._draws(adata, n_samples, Sampling(), seed, batch_size)) / np.float32(n_samples)
        return self._of_inputs(
            adata, batch_size, len(self.gene_names), lambda x: self.module.restore(self.module.expectation(x))
        )

    @yielding()
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

        It is made for a patient who was not in training. Every patient was left out of the training of a part of the
        model once; from the residuals of these come the spread between patients, for which few patients allow by wider
        intervals (quantiles of t with one degree of freedom fewer), and the spread between spots within a patient. Over
        many genes and new patients the share `level` of the values lies inside. With 2 patients that holds if effects
        of patients are normal, and intervals are twice as wide as with many. A single new patient may be covered by far
        more or less.

        Where there was one patient, sections are left out, or parts of one section: the interval then holds within that
        patient, and the difference between patients is not in it.

        Parameters
        ----------
        adata
            See :meth:`predict`.
        level
            Share of the values that lie inside: above 0, and at most :attr:`largest_level`.
        batch_size
            Spots at a time.

        Returns
        -------
        Lower and upper bound, float32 ``(n_obs, n_genes)`` each.

        Raises
        ------
        ValueError
            If the patients and spots of training are too few for `level`.

        Warns
        -----
        If the model was trained on one patient, and if some genes were measured in too few patients for `level`.
        """
        self._require_trained()
        lower, upper = self.module.residuals.bounds(level)
        expected = torch.as_tensor(self.predict(adata, batch_size=batch_size))
        kind = self._train_args["folds"]
        if kind != "patient":
            what = {"section": "sections", "block": "parts of one section"}[kind]
            logger.warning(
                "Intervals hold within the patient: they were calibrated on %s, for want of a second patient, and a new "
                "patient may differ by more. Name `patient_key` in `setup_anndata` where there are several.",
                what,
            )
        few = self.module.residuals.unsupported(level)
        if few.any():
            genes = [gene for gene, one in zip(self.gene_names, few, strict=True) if one]
            logger.warning(
                "Intervals of %d genes rest on too few left-out %s for a level of %g, since they were not measured in "
                "the others (first: %s).",
                len(genes),
                {"patient": "patients", "section": "sections", "block": "parts of the section"}[kind],
                level,
                ", ".join(genes[:3]),
            )
        # A new patient may lie below all of training, but not below zero where nothing does, as in logarithms of counts.
        least = 0.0 if bool((self.module.gene_low >= 0).all()) else -torch.inf
        return (expected + lower).clamp(min=least).numpy(), (expected + upper).clamp(min=least).numpy()

    def check_level(self, level: float) -> None:
        """Raise ``ValueError`` if the patients and spots of training are too few for intervals of a level.

        Parameters
        ----------
        level
            See :meth:`interval`.
        """
        if self.is_trained_:
            self.module.residuals.check_level(level)
        else:
            spots, folds = self._training_spots()
            check_level(level, len(np.unique(folds.group)), spots.n_obs)

    @property
    def largest_level(self) -> float:
        """Largest level of :meth:`interval` that the patients and spots of training support.

        It is known before training: 0.85 for 2 patients, 0.97 for 3, 0.99 for 4 and 0.995 for more; less with fewer than
        399 spots.
        """
        if self.is_trained_:
            return self.module.residuals.largest_level
        spots, folds = self._training_spots()
        return largest_level(len(np.unique(folds.group)), spots.n_obs)

    @torch.no_grad()
    @yielding()
    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        source: Literal["expression", "features"] = "features",
        batch_size: int = 512,
    ) -> np.ndarray:
        """Latent representation of every spot; nothing is written.

        Parameters
        ----------
        adata
            See :meth:`predict`; ``source="expression"`` needs the genes of training as well.
        indices
            Rows of the object that are wanted, by default all. The others are read all the same, as neighbours of these.
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
            rows = _validate.check_indices(indices, self._data(adata).obs_names)
            return self._of_inputs(adata, batch_size, self._settings.n_condition, self.module.conditions)[rows]
        self._require_stage1()
        rows = _validate.check_indices(indices, self._data(adata).obs_names)
        stage1 = self.module.stage1
        scale = min(1, len(stage1.scales.sizes) - 1)
        parts = []
        for x, measured in self._profiles(adata, batch_size):
            parts.append(stage1.scales.down(stage1.encode(x, measured), scale).flatten(1).cpu())
        return torch.cat(parts).numpy()[rows]

    @torch.no_grad()
    @yielding()
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
        if adata is not None:
            self.module.scaling.warn_unlike(spots.features)
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
