"""The networks of VARST and the data they are made for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stomics_tools.data import ImageSpec, ImageSpots, check_same_unit, log_cp10k, read_image_spots
from stomics_tools.data._log_counts import check_same_total, log_total
from stomics_tools.model._base import SpatialModel
from stomics_tools.model.var_st._folds import Folds, make_folds
from stomics_tools.model.var_st._gene_tree import fitting_scales, gene_tree, ordered_tree
from stomics_tools.model.var_st._inputs import Inputs, n_inputs
from stomics_tools.model.var_st._linear_start import start_linear
from stomics_tools.model.var_st._module import MAX_LANDMARKS, VarSTModule
from stomics_tools.model.var_st._settings import VarSTSettings

_FEWEST = 10


class VarSTNetworks(SpatialModel):
    """Data as the networks of :class:`~stomics_tools.model.VARST` take them, and new networks for data."""

    module: VarSTModule
    _settings: VarSTSettings
    _spec: ImageSpec

    @property
    def uses_coordinates(self) -> bool:
        """Whether predictions depend on where spots lie."""
        return bool(self._settings.n_neighbors or self._settings.use_coordinates)

    def _read(self, adata: Any = None, *, expression: bool) -> ImageSpots:
        """Spots of `adata`, by default of the object of setup; nothing is written to it.

        An object that is given needs places and sections only where predictions depend on them.
        """
        data, spec = self._data(adata), self._spec
        if adata is not None and (expression or not self.uses_coordinates):
            spec = replace(spec, spatial_key=None, patient_key=None, section_key=None)
        return read_image_spots(data, spec, expression=expression, state=self._state)

    def _expression(self, spots: ImageSpots) -> tuple[np.ndarray, np.ndarray | None]:
        """Expression as the networks take it, log-normalised if it is counts, and the counts."""
        values = spots.expression
        assert values is not None
        layer = "adata.X" if self._spec.layer is None else f"adata.layers[{self._spec.layer!r}]"
        counts, whole = self._state["counts"], self._state["whole"]
        check_same_unit(values, counts=counts, whole=whole, argument="layer", where=layer)
        if not counts:
            check_same_total(log_total(values), self._state.get("log_total"), where=layer)
        if counts:
            return log_cp10k(values), values
        if self._settings.likelihood == "nb":
            raise ValueError(
                f"`likelihood='nb'` needs counts, found other values in `{layer}` (counts are whole and not negative). "
                "Name the layer that holds the raw counts, or set `likelihood='normal'`."
            )
        return values, None

    def _inputs(self, spots: ImageSpots) -> Inputs:
        return Inputs(
            spots.features,
            self.module.scaling,
            spots.covariates,
            spots.coordinates,
            spots.section,
            n_neighbors=self._settings.n_neighbors,
            use_coordinates=self._settings.use_coordinates,
        )

    def _make_module(self, n_folds: int, n_landmarks: int, tree: Tensor) -> VarSTModule:
        state, s = self._state, self._settings
        widths = sum(
            len(covariate["categories"]) if covariate["kind"] == "categorical" else 1
            for covariate in state["covariates"]
        )
        return VarSTModule(
            s,
            tree,
            n_features=state["n_features"],
            n_inputs=n_inputs(
                state["n_features"],
                widths,
                state["n_dims"] or 0,
                n_neighbors=s.n_neighbors,
                use_coordinates=s.use_coordinates,
            ),
            n_folds=n_folds,
            n_landmarks=n_landmarks,
        )

    def _draw_module(self) -> VarSTModule:
        return self._new_module(*self._training_spots())

    def _new_module(self, spots: ImageSpots, folds: Folds) -> VarSTModule:
        """New networks, with what is known of the training data before training: scales, means, the tree of genes."""
        expression, _ = self._expression(spots)
        mean, sd = np.nanmean(expression, axis=0), np.nanstd(expression, axis=0)
        sd = np.where(sd > 1e-6, sd, 1.0)
        scales = fitting_scales(self._settings.scales, expression.shape[1])
        standardized = np.nan_to_num((expression - mean) / sd)
        if self._settings.gene_tree == "correlation":
            tree = gene_tree(standardized, scales)
        else:
            tree = ordered_tree(expression.shape[1], scales)
        # Genes that are alike throughout make fewer groups than asked for: a scale without groups of its own goes.
        tree = tree[np.append(np.diff(tree.max(axis=1)) > 0, True)]
        module = self._make_module(folds.number, min(MAX_LANDMARKS, spots.n_obs), torch.as_tensor(tree))
        start_linear(module.stage1, standardized, tree)
        module.scaling.fit(spots.features)
        for name, value in (("mean", mean), ("sd", sd), ("low", np.nanmin(expression, axis=0))):
            getattr(module, f"gene_{name}").copy_(torch.as_tensor(value))
        return module

    def _training_spots(self) -> tuple[ImageSpots, Folds]:
        spots = self._read(expression=True)
        if spots.n_obs < _FEWEST:
            raise ValueError(f"`adata`: at least {_FEWEST} spots are needed to train on, found {spots.n_obs}.")
        assert spots.expression is not None
        never = np.isnan(spots.expression).all(axis=0)
        if never.any():  # allowed in data that a saved model was loaded with
            genes = [gene for gene, missing in zip(spots.gene_names, never, strict=True) if missing]
            raise ValueError(
                f"No spot tells of {len(genes)} genes ({genes[:5]}): these data are not enough to train on."
            )
        return spots, make_folds(spots)

    @torch.no_grad()
    def _codes(self, x: Tensor, measured: Tensor, batch_size: int = 512) -> Tensor:
        """Codes int64 ``(n_obs, n_tokens)`` of standardised expression."""
        stage1 = self.module.stage1
        pairs = zip(x.split(batch_size), measured.split(batch_size), strict=True)
        return torch.cat([stage1.quantize(stage1.encode(a, b)).codes for a, b in pairs])
