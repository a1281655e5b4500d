"""The VARST model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from stomics_tools import _keys, _validate
from stomics_tools._params import plain_arguments, plain_params
from stomics_tools.data import ImageSpec, decide_counts, read_image_spots
from stomics_tools.data._feature_types import warn_of_kinds
from stomics_tools.data._image_field import ImageSpotsField
from stomics_tools.data._matrix import dense_matrix
from stomics_tools.model._objects import own_data, write_expression
from stomics_tools.model.var_st._module import VarSTModule
from stomics_tools.model.var_st._parameters import parameter_table
from stomics_tools.model.var_st._predictions import VarSTPredictions
from stomics_tools.model.var_st._settings import Head, Likelihood, Quantization, Size, Tree, resolve

logger = logging.getLogger("stomics_tools")


class VARST(VarSTPredictions):
    """Gene expression from histology, by next-scale prediction of expression codes.

    Stage 1 turns an expression profile into codes at several scales of a gene tree, from one code for all genes to one
    for each (a multi-scale VQ-VAE). Stage 2 predicts, from the image features of a spot, all codes of a scale at once
    given the coarser ones (a next-scale transformer), from which whole profiles are drawn; and beside it the expected
    expression (the mean head), which is the best point prediction. Intervals are calibrated on patients, or sections,
    that were left out.

    Parameters
    ----------
    adata
        AnnData after :meth:`setup_anndata`. Counts are taken as log(1 + counts per 10,000), which is then the unit of
        all predictions; other values are taken as they are, and NaN says that a gene was not measured in a spot.
    size
        ``"small"``; ``"paper"``, the dimensions of the published model; or ``"tiny"``, for tests. Arguments that are
        None take the value of the size.
    scales
        Tokens of each scale, ascending; with fewer genes than tokens, a scale is one token a gene.
    gene_tree
        What groups genes: ``"correlation"`` in the training data, or ``"order"`` in the list of genes, as published.
    quantizer
        ``"fsq"`` (finite scalar quantization), ``"ema"`` (codebook of running means, dead codes are restarted) or
        ``"vq"`` (codebook learnt by gradients).
    n_codes
        Vocabulary; a power of two for ``"fsq"``.
    n_field
        Width of stage 1.
    n_components
        Numbers, below `n_field`, in which the whole profile is told to every group of genes in stage 1.
    hide_genes
        Largest share of the genes hidden from stage 1 in training, for codes that tell what genes have in common.
    likelihood
        ``"normal"`` or ``"nb"`` (negative binomial, needs counts), of stage 1.
    n_condition
        Width of the transformer and its condition.
    n_heads, n_layers, n_hidden, dropout
        Of the transformer; `n_hidden` is the width of its perceptrons.
    head
        ``"factorized"``: logits of the levels of a code, for ``quantizer="fsq"``; ``"joint"``: one a code.
    label_softness
        Squared distance of codes over which the targets of the transformer decay by e; 0 for the true code alone.
    condition_dropout
        Share of the spots that the transformer sees without their condition, for guidance.
    n_members, n_mean_hidden, mean_dropout
        Perceptrons of the mean head, the width of their hidden layers, and their dropout.
    mixup
        Spots are mixed in pairs in training of the mean head, with shares from Beta(`mixup`, `mixup`); 0 for none.
    n_neighbors
        Nearest spots of the section whose mean features are added to those of a spot.
    use_coordinates
        Whether the place in the section is seen. Places do not transfer between patients.
    registry
        Record of setup of a saved model, see :meth:`load`.

    Examples
    --------
    >>> import stomics_tools as st
    >>> adata = st.datasets.simulate_histology()
    >>> st.model.VARST.setup_anndata(adata, patient_key="patient", section_key="section")
    >>> model = st.model.VARST(adata)
    >>> model.train()
    >>> expected = model.predict()
    >>> lower, upper = model.interval(level=0.8)
    >>> profiles = model.sample(n=10)
    """

    _key: ClassVar[str] = "var_st"
    _field_key: ClassVar[str] = ImageSpotsField.registry_key

    def __init__(
        self,
        adata: AnnData | None,
        *,
        size: Size = "small",
        scales: Sequence[int] | None = None,
        gene_tree: Tree | None = None,
        quantizer: Quantization | None = None,
        n_codes: int | None = None,
        n_field: int | None = None,
        n_components: int | None = None,
        hide_genes: float | None = None,
        likelihood: Likelihood | None = None,
        n_condition: int | None = None,
        n_heads: int | None = None,
        n_layers: int | None = None,
        n_hidden: int | None = None,
        dropout: float | None = None,
        head: Head | None = None,
        label_softness: float | None = None,
        condition_dropout: float | None = None,
        n_members: int | None = None,
        n_mean_hidden: int | None = None,
        mean_dropout: float | None = None,
        mixup: float | None = None,
        n_neighbors: int | None = None,
        use_coordinates: bool | None = None,
        registry: dict[str, Any] | None = None,
    ) -> None:
        given = plain_arguments(locals())
        del given["size"]
        super().__init__(adata, registry)
        self._spec = _spec(self.registry["setup_args"])
        self._settings = resolve(size, given)
        self._size = size
        n_genes, n_features = len(self._state["gene_names"]), self._state["n_features"]
        self._model_summary_string = f"VARST of {n_genes} genes from {n_features} image features, size: {size}"
        if (self._settings.n_neighbors or self._settings.use_coordinates) and self._spec.spatial_key is None:
            raise ValueError(
                "`n_neighbors` and `use_coordinates` need coordinates. Name them in `setup_anndata(spatial_key=...)`."
            )
        if self.adata is not None:
            self._expression(self._read(expression=True))  # raises where it cannot be used

    # ------------------------------------------------------------------ setup

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        features_key: str = _keys.IMAGE,
        *,
        layer: str | None = None,
        spatial_key: str | None = _keys.SPATIAL,
        patient_key: str | None = None,
        section_key: str | None = None,
        covariate_keys: Sequence[str] | None = None,
        counts: bool | None = None,
    ) -> None:
        """Say where in an AnnData the data lie. Everything is checked; if that fails, nothing has changed.

        A view becomes an object of its own, so that its parent is not written.

        Parameters
        ----------
        adata
            Spots of one or more sections, with the genes to be predicted.
        features_key
            ``obsm`` key of the image features, an array or a DataFrame ``(n_obs, n_features)``.
        layer
            Layer of the expression, counts or normalised. Default: ``X``.
        spatial_key
            ``obsm`` key of the coordinates, in any unit of length; None if there are none.
        patient_key
            ``obs`` column of the patients. Give it where there are several: intervals, and the share of the parts of
            the mean, are then found on patients that were left out.
        section_key
            ``obs`` column of the sections. Default: patients.
        covariate_keys
            ``obs`` columns of further conditions, clinical or technical: numbers are continuous, all else categorical.
        counts
            True: the expression is counts, whole or corrected (for background, say). False: values are taken as they are.
            By default whole, non-negative values are counts, and what was decided is logged.

        Raises
        ------
        KeyError
            If a key is not there; the message lists those that are.
        TypeError
            If `adata` is not an AnnData.
        ValueError
            If the data cannot be used; the message names the key, what was found, and what to do.
        """
        args = cls._get_setup_method_args(**locals())
        keys = (covariate_keys,) if isinstance(covariate_keys, str) else tuple(covariate_keys or ())
        spec = ImageSpec(features_key, layer, spatial_key, patient_key, section_key, keys, counts)
        if not isinstance(adata, AnnData):
            raise TypeError(f"Expected AnnData, found {type(adata).__name__}.")
        spots = read_image_spots(adata, spec, expression=True)
        where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
        warn_of_kinds(adata.var)
        decide_counts(spots.expression, counts, argument="layer", where=where)
        own_data(adata)
        args["setup_args"]["covariate_keys"] = list(keys)
        cls._register(adata, ImageSpotsField(spec), args)

    def _setup_arguments(self) -> dict[str, Any]:
        return {**vars(self._spec), "covariate_keys": list(self._spec.covariate_keys)}

    def _arguments(self) -> dict[str, Any]:
        return {"size": self._size, **self._settings.plain()}

    # ---------------------------------------------------------------- results

    def write_results(self, adata: AnnData | None = None, *, key_added: str | None = None, level: float = 0.8) -> None:
        """Write predictions into an object.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`predict`.
        key_added
            Name of the outputs. Default: ``"var_st"``.
        level
            Of the interval.

        Sets the following fields:

        ``adata.layers["<key>"]``, ``adata.layers["<key>_lower"]``, ``adata.layers["<key>_upper"]``
            Expected expression and its interval, float32, where the genes of `adata` are those of training. Otherwise
            arrays ``(n_obs, n_genes)`` of the same names in ``adata.obsm``.
        ``adata.obsm["X_<key>"]``
            Condition embedding, float32 ``(n_obs, n_condition)``.
        ``adata.obsm["<key>_tokens_<size>"]``
            Codes of the expression at each scale, int32 ``(n_obs, size)``, if the expression of every spot is there.
        ``adata.uns["<key>"]``
            ``"params"``: settings, seed and versions; ``"codebook"``: the table of :meth:`codebook_report`;
            ``"gene_names"``, if there are arrays in ``obsm``: the genes of their columns.
        """
        self._require_trained()
        data = self._data(adata)
        key = self._key if key_added is None else _validate.check_new_key(key_added, argument="key_added")
        self.check_level(level)
        expected = self.predict(data)
        lower, upper = self.interval(data, level)
        latent = self.get_latent_representation(data)
        same_genes = data.var_names.astype(str).tolist() == self.gene_names
        tokens = self._tokens(data) if same_genes and self._measured(data) else {}
        own_data(data)
        tables = {key: expected, f"{key}_lower": lower, f"{key}_upper": upper}
        names = write_expression(data, tables, self.gene_names)
        data.obsm[_keys.latent(key)] = latent
        for size, codes in tokens.items():
            data.obsm[_keys.table(key, f"tokens_{size}")] = codes
        data.uns[key] = {"params": plain_params({**self._description(), "level": level}), **names}
        if self.adata is not None:
            data.uns[key]["codebook"] = self.codebook_report()
        logger.info(
            "Wrote `%s[%r]`, `obsm[%r]` and `uns[%r]`.", "layers" if same_genes else "obsm", key, f"X_{key}", key
        )

    def _measured(self, data: AnnData) -> bool:
        """Whether there is expression of every spot."""
        layer = self._spec.layer
        raw = data.X if layer is None else data.layers.get(layer)
        return raw is not None and not np.isnan(dense_matrix(raw, argument="layer", where="")).all(axis=1).any()

    def _tokens(self, data: AnnData) -> dict[int, np.ndarray]:
        scales = self.module.stage1.scales
        codes = torch.cat([self._codes(x, measured).cpu() for x, measured in self._profiles(data, 512)])
        return {
            size: codes[:, tokens].numpy().astype(np.int32)
            for size, tokens in zip(scales.sizes, scales.slices(), strict=True)
        }

    def _description(self) -> dict[str, Any]:
        return {"model": type(self).__name__, **self._setup_arguments(), **self._arguments(), **self._train_args}

    def parameter_table(self) -> pd.DataFrame:
        """Parameters of every part, counted, beside those of the published model.

        Returns
        -------
        Rows by part, columns ``parameters``, ``published`` (0 where the published model has no such part) and ``why``.
        """
        self._require_trained()
        return parameter_table(self.module)

    # ------------------------------------------------- what the base asks for

    @classmethod
    def _register_like(cls, data: AnnData, registry: dict[str, Any]) -> None:
        spec = _spec(registry["setup_args"])
        state = registry["field_registries"][cls._field_key]["state_registry"]
        read_image_spots(data, spec, expression=True, state=state)
        own_data(data)
        setup = {name: registry[name] for name in ("model_name", "setup_method_name", "setup_args")}
        cls._register(data, ImageSpotsField(spec), setup, source=registry)

    def _module_of(self, tensors: Mapping[str, torch.Tensor]) -> VarSTModule:
        self._stage1_trained = self._stage2_begun = True
        n_folds = tensors["mean.layers.1.weight"].shape[0] - self._settings.n_members
        return self._make_module(n_folds, len(tensors["smooth.landmarks"]), tensors["tree"])


def _spec(setup: dict[str, Any]) -> ImageSpec:
    return ImageSpec(**{**setup, "covariate_keys": tuple(setup["covariate_keys"] or ())})
