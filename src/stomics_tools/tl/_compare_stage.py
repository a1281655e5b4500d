"""The data of a comparison, as each kind of contender takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stomics_tools import _keys
from stomics_tools.data import Spots
from stomics_tools.model import GraphST
from stomics_tools.tl._compare_input import Contender
from stomics_tools.tl._compare_untrained import FittedComponents, SmoothedComponents


class Stage:
    """An object of its own, with the data of a comparison and nothing else in it, on which all models are made.

    Models of several modalities find each in ``obsm``, with rows of NaN where a spot lacks it. The others find all of
    them side by side in ``X``: each centred and brought to a mean variance of one, and 0 where a spot lacks it.
    """

    def __init__(self, spots: Spots, batch_key: str | None) -> None:
        self.spots = spots
        self._modalities = {name: f"X_{name}" for name in spots.modalities}
        self._batch_key = None if batch_key is None else "batch"
        self._center, self._scale = {}, {}
        parts = []
        for name, modality in spots.modalities.items():
            measured = modality.values[modality.present].astype(np.float64)
            self._center[name] = measured.mean(axis=0)
            self._scale[name] = np.sqrt(measured.var(axis=0).mean())
            part = (modality.values - self._center[name]) / self._scale[name]
            parts.append(np.where(modality.present[:, None], part, 0.0).astype(np.float32))
            modality.values[~modality.present] = np.nan
        obsm = {key: spots.modalities[name].values for name, key in self._modalities.items()}
        batch = pd.Categorical.from_codes(spots.batch, pd.Index(spots.batch_names))
        self._data = AnnData(
            np.hstack(parts),
            obs=pd.DataFrame({"batch": batch}, index=pd.RangeIndex(spots.n_obs).astype(str)),
            obsm={**obsm, _keys.SPATIAL: spots.coordinates},
        )

    @contextmanager
    def model(self, contender: Contender) -> Iterator[Any]:
        """An untrained model; its class, which would keep the data for good, forgets them in the end."""
        if issubclass(contender.model, FittedComponents):
            yield contender.model(self.spots, **contender.arguments)
            return
        if issubclass(contender.model, SmoothedComponents):
            yield contender.model(self._data, **contender.arguments)
            return
        keys = {"spatial_key": _keys.SPATIAL, "batch_key": self._batch_key}
        if issubclass(contender.model, GraphST):
            contender.model.setup_anndata(self._data, n_top_genes=None, counts=False, **keys)
        else:
            contender.model.setup_anndata(self._data, self._modalities, **keys)
        model = contender.model(self._data, **contender.arguments)
        try:
            yield model
        finally:
            model.deregister_manager(self._data)

    def reconstruction_error(self, model: Any) -> float:
        """Squared error over the variance within slices, mean of the modalities.

        NaN if a model gives no values that could be compared.
        """
        denoised = self._denoised(model)
        errors = []
        for name, modality in self.spots.modalities.items() if denoised else ():
            values = modality.values[modality.present].astype(np.float64)
            residual = values - denoised[name][modality.present]
            within = about_slice_means(values, self.spots.batch[modality.present])
            errors.append(np.square(residual).mean() / np.square(within).mean())
        return float(np.mean(errors)) if errors else float("nan")

    def _denoised(self, model: Any) -> Mapping[str, np.ndarray]:
        """Reconstruction of each modality ``(n_obs, n_features)`` in its own units; empty if there is none."""
        if hasattr(model, "get_denoised"):
            return model.get_denoised()
        if isinstance(model, GraphST) and model._settings.normalize_output:  # rows of length one
            return {}
        ends = np.cumsum([modality.n_features for modality in self.spots.modalities.values()])
        parts = np.split(model.get_reconstruction(), ends[:-1], axis=1)
        return {
            name: part * self._scale[name] + self._center[name]
            for name, part in zip(self.spots.modalities, parts, strict=True)
        }


def about_slice_means(values: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Values ``(n_obs, n_features)`` less the means of their slices, given as codes ``(n_obs,)``: what differs within."""
    result = np.array(values, dtype=np.float64)
    for code in np.unique(batch):
        result[batch == code] -= result[batch == code].mean(axis=0)
    return result
