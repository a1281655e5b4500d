"""Setup of the models that take any number of modalities."""

from __future__ import annotations

from collections.abc import Mapping

from anndata import AnnData
from mudata import MuData

from stomics_tools.data import SpotsSpec
from stomics_tools.model._full_graph import FullGraphModel


class ModalitiesModel(FullGraphModel):
    """A model of the modalities of an AnnData or MuData."""

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        modalities: Mapping[str, str],
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
            ``{"rna": "X_pca", "protein": "X_protein"}``.
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
        args = cls._get_setup_method_args(**locals())
        spec = SpotsSpec(dict(modalities), spatial_key, batch_key, spatial_graph_key, feature_graph_keys)
        cls._setup(adata, spec, args)

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        modalities: Mapping[str, str],
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
            Name of each modality of `mdata` to be used, to its ``obsm`` key, layer, or ``"X"``.
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
        args = cls._get_setup_method_args(**locals())
        spec = SpotsSpec(dict(modalities), spatial_key, batch_key, spatial_graph_key, feature_graph_keys)
        cls._setup(mdata, spec, args)
