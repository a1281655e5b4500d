"""A trained model as LazySlide's ``zs.tl.feature_prediction`` takes it, without an import of LazySlide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from anndata import AnnData

from stomics_tools import _keys
from stomics_tools._validate import check_integer


class ExpressionModel(Protocol):
    """What the predictor needs of a model."""

    @property
    def gene_names(self) -> Sequence[str]:
        """Names of the genes, in the order of the columns of predictions."""

    @property
    def uses_coordinates(self) -> bool:
        """Whether predictions of a tile depend on where it and others lie."""

    def predict(self, adata: AnnData) -> np.ndarray:
        """Expression ``(n_obs, n_genes)`` from features in ``X`` and, if used, places in ``obsm``."""


class LazySlidePredictor:
    """Predict the expression of the tiles of a slide through LazySlide.

    It follows the protocol of feature prediction models of LazySlide 0.13: ``predict`` gets features and, as
    ``needs_coords`` asks for, the upper left corners of the tiles; it returns a mapping of gene to values. A model
    that looks at places or neighbours is given the whole slide in one call (``whole_slide``).

    Parameters
    ----------
    model
        Trained model.
    features_model_name
        Encoder whose features the model was trained on, as LazySlide calls it, such as ``"uni"``: then
        ``feature_prediction`` finds the table of features by itself.
    name
        LazySlide writes to ``wsi.tables["<name>_tiles"]``.
    spatial_key
        Key of the coordinates in ``obsm`` that the model was set up with.
    batch_size
        Tiles that are handed to the model at once, if it does not need the whole slide.

    Raises
    ------
    ValueError
        If names of genes repeat.

    Examples
    --------
    >>> import lazyslide as zs
    >>> zs.tl.feature_extraction(wsi, "uni")
    >>> zs.tl.feature_prediction(wsi, LazySlidePredictor(model, features_model_name="uni"))
    >>> wsi.tables["var_st_tiles"].to_df()
    """

    def __init__(
        self,
        model: ExpressionModel,
        *,
        features_model_name: str | None = None,
        name: str = "var_st",
        spatial_key: str = _keys.SPATIAL,
        batch_size: int = 4096,
    ) -> None:
        genes = list(model.gene_names)
        if len(set(genes)) < len(genes):
            raise ValueError(f"`model`: names of genes must not repeat, found {len(genes) - len(set(genes))} repeats.")
        self.model = model
        self.name = name
        self.features_model_name = features_model_name
        self.spatial_key = spatial_key
        self.batch_size = check_integer(batch_size, argument="batch_size")
        self.needs_coords = self.whole_slide = bool(model.uses_coordinates)

    def predict(self, features: Any, coords: Any = None) -> dict[str, np.ndarray]:
        """Predict the expression of tiles.

        Parameters
        ----------
        features
            Features of the tiles ``(n_tiles, n_features)``, of the encoder of training.
        coords
            Places of the tiles ``(n_tiles, 2)``, all shifted alike or not; needed if ``needs_coords``.

        Returns
        -------
        Gene to its values ``(n_tiles,)`` float32, in the unit of the model's predictions.

        Raises
        ------
        ValueError
            If features are no table, or places are needed and do not fit them.
        """
        if np.ndim(features) != 2:
            raise ValueError(f"`features` must be of shape (n_tiles, n_features), found {np.shape(features)}.")
        n_tiles = len(features)
        if self.needs_coords and (coords is None or np.shape(coords) != (n_tiles, 2)):
            found = None if coords is None else np.shape(coords)
            raise ValueError(f"`coords` must be of shape ({n_tiles}, 2) since the model uses places, found {found}.")
        block = n_tiles if self.whole_slide else self.batch_size
        values = np.empty((len(self.model.gene_names), n_tiles), dtype=np.float32)
        for start in range(0, n_tiles, block):
            rows = slice(start, start + block)
            adata = AnnData(np.asarray(features[rows], dtype=np.float32))
            if self.needs_coords:
                adata.obsm[self.spatial_key] = np.asarray(coords, dtype=np.float64)
            values[:, rows] = self.model.predict(adata).T
        return dict(zip(self.model.gene_names, values, strict=True))

    def to(self, device: Any) -> LazySlidePredictor:
        """Do nothing: the model predicts where it was trained or loaded.

        Parameters
        ----------
        device
            Of no effect.
        """
        return self

    def get_transform(self) -> None:
        """There is no transform of images, since features are the input."""

    def try_compile(self, **kwargs: Any) -> None:
        """Do nothing: the model is used as it is.

        Parameters
        ----------
        kwargs
            Of no effect.
        """
