"""Setup of the models that take any number of modalities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from stomics_tools import _validate
from stomics_tools.data import SpotsSpec
from stomics_tools.data._modality_keys import named_modalities
from stomics_tools.data._origin import recipes_of
from stomics_tools.model._full_graph import FullGraphModel, restored
from stomics_tools.model._outputs import chosen_features
from stomics_tools.train import yielding


class ModalitiesModel(FullGraphModel):
    """A model of the modalities of an AnnData or MuData."""

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        modalities: Mapping[str, str] | Sequence[str] | str | None = None,
        *,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        spatial_graph_key: str | None = None,
        feature_graph_keys: Mapping[str, str] | None = None,
    ) -> None:
        """Say where in an AnnData the data lie. Everything is checked; if that fails, nothing has changed.

        A row of an array that is NaN throughout marks a spot that lacks the modality. A view becomes an object of its
        own, so that its parent is not written.

        Parameters
        ----------
        adata
            Spots or cells, dense or sparse, in memory or backed.
        modalities
            Name of each modality to its ``obsm`` key, layer, or ``"X"``, for example
            ``{"rna": "X_pca", "protein": "X_protein"}``. A key alone is one modality. By default the one array that
            :mod:`stomics_tools.pp` has written (``"X_pca"``, ``"X_protein"`` or ``"X_lsi"``).
        spatial_key
            ``obsm`` key of the coordinates ``(n_obs, 2 or 3)``, in any unit of length.
        batch_key
            ``obs`` column of slices or patients; no graph joins two of them.
        spatial_graph_key
            ``obsp`` key of a ready spatial graph, instead of the nearest spots.
        feature_graph_keys
            Modality to the ``obsp`` key of a ready feature graph, instead of the most similar spots.

        Raises
        ------
        KeyError
            If a key is not there; the message lists those that are.
        TypeError
            If `adata` is not an AnnData.
        ValueError
            If the data cannot be used; the message names the key, what was found, and what to do.
        """
        if not isinstance(adata, AnnData):
            raise TypeError(f"`adata` must be an AnnData, found {type(adata).__name__}; see `setup_mudata`.")
        modalities = named_modalities(adata, modalities)
        args = cls._get_setup_method_args(**locals())
        spec = SpotsSpec(modalities, spatial_key, batch_key, spatial_graph_key, feature_graph_keys)
        cls._setup(adata, spec, args)

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str] | Sequence[str] | str | None = None,
        *,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        spatial_graph_key: str | None = None,
        feature_graph_keys: Mapping[str, str] | None = None,
    ) -> None:
        """Say where in a MuData the data lie, as :meth:`setup_anndata` does for an AnnData.

        Spots that are not in all modalities are welcome: each is trained on, and placed by, what it has.

        Parameters
        ----------
        mdata
            Spots or cells; observation names join the modalities.
        modalities
            Name of each modality of `mdata` to be used, to its ``obsm`` key, layer, or ``"X"``; or their names alone, for
            the array that :mod:`stomics_tools.pp` has written in each. By default all.
        spatial_key
            ``obsm`` key of the coordinates, in `mdata` or else in its modalities, which must then agree.
        batch_key
            ``obs`` column of slices or patients, looked up in the same way.
        spatial_graph_key
            ``mdata.obsp`` key of a ready spatial graph.
        feature_graph_keys
            Modality to the ``mdata.obsp`` key of a ready feature graph.
        """
        if not isinstance(mdata, MuData):
            raise TypeError(f"`mdata` must be a MuData, found {type(mdata).__name__}; see `setup_anndata`.")
        modalities = named_modalities(mdata, modalities)
        args = cls._get_setup_method_args(**locals())
        spec = SpotsSpec(modalities, spatial_key, batch_key, spatial_graph_key, feature_graph_keys)
        cls._setup(mdata, spec, args)

    # --------------------------------------------------------------- results

    @abstractmethod
    def _latent(self, inputs: Any, *, trained_on: bool, modality: str | None, batch_size: int) -> torch.Tensor:
        """Latent representation ``(n_obs, n_latent)``, rows in the order of the inputs."""

    @abstractmethod
    def _denoised(self, inputs: Any, *, trained_on: bool) -> dict[str, torch.Tensor]:
        """Modalities as the model sees them, ``(n_obs, n_features)`` each, rows in the order of the inputs."""

    @yielding()
    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        modality: str | None = None,
        batch_size: int = 8192,
    ) -> np.ndarray:
        """Latent representation of every spot; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or another one with the same keys, modalities and features. A representation
            must be made by the recipe of training (``reference=`` of :mod:`stomics_tools.pp`); where it is not there, the
            raw counts are prepared by that recipe. A slice gets the same rows alone, beside other slices and in any
            order; it may lack a modality. Spots of another object get a graph of their own. PRAGA, and PRAGASpike with
            ``edges="free"``, learn a weight of every edge in the object of setup: there, edges have the weights that
            training starts from, and a slice of the object of setup has other rows by itself than in it.
        indices
            Rows of the object that are wanted, by default all. The others are read all the same, as neighbours of these.
        modality
            Of one modality instead of all together.
        batch_size
            Spots whose neighbours are aggregated at a time; memory grows with it, the result does not depend on it.

        Returns
        -------
        float32 ``(n_obs, n_latent)``.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the modalities or features differ from those of setup, or a representation was made by another fit.
        """
        self._require_trained()
        _validate.check_integer(batch_size, argument="batch_size")
        if modality is not None:
            _validate.check_option(modality, list(self._spec.modalities), argument="modality")
        rows = _validate.check_indices(indices, self._data(adata).obs_names)
        inputs, known = self._inputs(adata)
        return restored(inputs, self._latent(inputs, trained_on=known, modality=modality, batch_size=batch_size))[rows]

    @yielding()
    def get_denoised(self, adata: AnnData | MuData | None = None) -> dict[str, np.ndarray]:
        """Every modality as the model reconstructs it from the latent representation; nothing is written.

        Parameters
        ----------
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.

        Returns
        -------
        Modality to float32 ``(n_obs, n_features)``, in the units of the array of setup and about the means of each slice;
        spots that lack a modality are imputed. The means of a slice that lacks it altogether are not known: its values
        are about those of training.
        """
        self._require_trained()
        inputs, known = self._inputs(adata)
        return {name: restored(inputs, x) for name, x in self._denoised(inputs, trained_on=known).items()}

    def get_expression(
        self,
        modality: str,
        adata: AnnData | MuData | None = None,
        *,
        features: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """One modality by its features, as the model reconstructs it: denoised, and imputed in spots that lack it.

        Nothing is written. Components that :func:`~stomics_tools.pp.rna` or :func:`~stomics_tools.pp.protein` made are
        brought back to genes or proteins by their loadings.

        Parameters
        ----------
        modality
            Name of the modality.
        adata
            The object of setup by default, or another one, see :meth:`get_latent_representation`.
        features
            Features to be returned, in this order; by default all.

        Returns
        -------
        float32 ``(n_obs, n_features)``, rows by ``obs_names`` and columns by feature: names of genes or proteins where the
        modality has them, else ``"X_pca_0"`` and so on for the columns of ``obsm["X_pca"]``. Units are those of the array
        of setup, of components those of the values that they were made of (logarithms). Values are about the means of each
        slice, as those of :meth:`get_denoised`.

        Raises
        ------
        KeyError
            If there is no such feature.
        RuntimeError
            If the model is not trained.
        ValueError
            If there is no such modality.
        """
        self._require_trained()
        _validate.check_option(modality, list(self._spec.modalities), argument="modality")
        recipe = recipes_of(self._state).get(modality)
        names = self._state["modalities"][modality]["feature_names"]
        if recipe is not None and recipe.kind == "atac":  # each spot was standardised: no way back
            recipe = None
        if recipe is not None:
            names = recipe.features
        elif names is None:
            key = self._spec.modalities[modality]
            names = [f"{key}_{i}" for i in range(self._state["modalities"][modality]["n_features"])]
        columns = chosen_features(names, features, where=f"modality {modality!r}")
        inputs, known = self._inputs(adata)
        values = restored(inputs, self._denoised(inputs, trained_on=known)[modality])
        values = values[:, columns] if recipe is None else recipe.features_of(values, columns)
        index = self._data(adata).obs_names
        return pd.DataFrame(values, index=index, columns=[names[i] for i in columns])


def weights_by_name(given: Mapping[str, float] | Sequence[float] | None, names: Sequence[str]) -> dict[str, float]:
    """Weight of each modality, given by name or in the order of setup (`names`); 1 each by default."""
    if given is None:
        return dict.fromkeys(names, 1.0)
    if isinstance(given, Mapping):
        if set(given) != set(names):
            raise ValueError(f"`loss_weights` names {sorted(given)}, the modalities are {sorted(names)}.")
        given = [given[name] for name in names]
    if len(given) != len(names):
        raise ValueError(f"`loss_weights` has {len(given)} values for {len(names)} modalities {list(names)}.")
    return {
        name: _validate.check_number(weight, argument="loss_weights", low=0)
        for name, weight in zip(names, given, strict=True)
    }


def check_ready_graphs(given: Mapping[str, Any], spec: SpotsSpec, *, feature_graphs: bool = True) -> None:
    """Raise ``ValueError`` where ready graphs of setup and arguments of the model leave each other without effect.

    Parameters
    ----------
    given
        Arguments of the user.
    spec
        Where the data lie.
    feature_graphs
        Whether the model has feature graphs.
    """
    effects: tuple[_validate.Effect, ...] = (
        (("n_spatial_neighbors",), lambda s: s.spatial_graph_key is None, "there is no `spatial_graph_key` in setup"),
        (
            ("n_feature_neighbors",),
            lambda s: len(s.feature_graph_keys or {}) < len(s.modalities),
            "a modality has no graph among the `feature_graph_keys` of setup",
        ),
        (
            ("feature_graph_keys",),
            lambda _: feature_graphs,
            "`use_fusion=True` and `n_feature_neighbors` is above 0",
        ),
    )
    _validate.check_effects({**given, "feature_graph_keys": spec.feature_graph_keys}, spec, effects)
