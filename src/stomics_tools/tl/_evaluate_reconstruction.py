"""Reconstructions of tissue that a model was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stomics_tools import _keys, _validate
from stomics_tools.metrics import mean_squared_error, pearson_per_gene, spatial_blocks
from stomics_tools.model import GraphST
from stomics_tools.tl._compare_stage import about_slice_means


def evaluate_reconstruction(
    adata: AnnData,
    models: Mapping[str, Mapping[str, Any]],
    *,
    layer: str | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    genes: str | Sequence[str] | None = None,
    n_top_genes: int | None = 3000,
    n_folds: int = 5,
    n_blocks: int = 20,
    seeds: int | Sequence[int] = 1,
) -> pd.DataFrame:
    """Train :class:`~stomics_tools.model.GraphST` without some blocks of tissue and let it reconstruct them.

    Genes are chosen and everything is fitted on the training part alone. A held-out spot is reconstructed from its own
    expression and that of its neighbours among those held out: it is the weights that are judged. Nothing is written.

    Parameters
    ----------
    adata
        Annotated data.
    models
        Name to the arguments of :class:`~stomics_tools.model.GraphST`; ``"train"`` among them holds those of
        :meth:`~stomics_tools.model.GraphST.train`.
    layer, spatial_key, batch_key, genes, n_top_genes
        See :meth:`~stomics_tools.model.GraphST.setup_anndata`.
    n_folds
        Parts that the blocks are dealt out to; each is held out once.
    n_blocks
        See :func:`~stomics_tools.metrics.spatial_blocks`.
    seeds
        Of blocks and training: the seeds, or how many.

    Returns
    -------
    One row a model, seed and fold: ``model``, ``seed``, ``fold``, ``n_obs``; ``mse``, the mean squared error of the
    reconstruction, which is about the means of the spots held out in each slice; ``variance``, that of these means as
    prediction; ``pcc``, the mean over genes of the correlation of reconstruction and expression over spots, within slices;
    ``n_genes``, those that vary in both.

    Raises
    ------
    ValueError
        If there are fewer blocks than folds, or the data cannot be used.
    """
    _validate.check_annotated(adata, mudata=False)
    _validate.check_integer(n_folds, argument="n_folds", minimum=2)
    _validate.check_key(spatial_key, adata.obsm, argument="spatial_key", where="adata.obsm")
    batch = None
    if batch_key is not None:
        _validate.check_key(batch_key, adata.obs, argument="batch_key", where="adata.obs")
        batch = adata.obs[batch_key].astype(str).to_numpy()
    rows = []
    for seed in _validate.check_seeds(seeds):
        fold = _folds(adata.obsm[spatial_key], batch, n_folds, n_blocks, seed)
        for k in range(n_folds):
            training, held_out = adata[fold != k].copy(), adata[fold == k].copy()
            GraphST.setup_anndata(
                training, layer, spatial_key=spatial_key, batch_key=batch_key, genes=genes, n_top_genes=n_top_genes
            )
            for name, given in models.items():
                arguments = dict(given)
                how = {"enable_progress_bar": False, **arguments.pop("train", {})}
                model = GraphST(training, **arguments)
                model.train(seed=seed, key_added=None, **how)
                rows.append({"model": name, "seed": seed, "fold": k, **_scores(model, held_out, batch_key)})
    return pd.DataFrame(rows)


def _folds(coordinates: Any, batch: np.ndarray | None, n_folds: int, n_blocks: int, seed: int) -> np.ndarray:
    blocks = spatial_blocks(coordinates, n_blocks, batch=batch, seed=seed)
    n_found = int(blocks.max()) + 1
    if n_found < n_folds:
        raise ValueError(f"`n_blocks={n_blocks}` makes {n_found} blocks for {n_folds} folds. Raise it.")
    dealt = np.random.default_rng(seed).permutation(np.arange(n_found) % n_folds)
    return dealt[blocks]


def _scores(model: GraphST, adata: AnnData, batch_key: str | None) -> dict[str, float]:
    truth, found = model.get_expression(adata).to_numpy(), model.get_reconstruction(adata)
    batch = np.zeros(len(truth)) if batch_key is None else pd.factorize(adata.obs[batch_key])[0]
    within = about_slice_means(truth, batch)
    correlation = pearson_per_gene(within, about_slice_means(found, batch))
    return {
        "n_obs": len(truth),
        "mse": mean_squared_error(truth, found),
        "variance": float(np.square(within).mean()),
        "pcc": float(np.nanmean(correlation)),
        "n_genes": int(np.isfinite(correlation).sum()),
    }
