"""Scores of a trained model on slices that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stomics_tools import metrics
from stomics_tools._paths import replacing
from stomics_tools.metrics._matrices import mean_of_defined
from stomics_tools.model import MaskedDiffusion
from stomics_tools.model.masked_diffusion._preparation import normalized

_NEIGHBORS = 100


def position_scores(
    model: MaskedDiffusion, adata: AnnData, *, num_samples: int, num_steps: int, unit_scale: float, seed: int
) -> pd.DataFrame:
    """One row a slice for the consensus (beside two draws or more) and one for each draw.

    Fewer neighbours than 100 are compared in slices of 200 cells and less.
    """
    cells = model._read(adata, coordinates=True)
    assert cells.coordinates is not None
    draws = model.sample(adata, mode="expr_to_pos", n_samples=num_samples, n_steps=num_steps, seed=seed)
    draws = np.asarray(draws).reshape(num_samples, cells.n_obs, -1)
    predictions = [("draw", number, draw) for number, draw in enumerate(draws)]
    if num_samples > 1:
        agreed = model.consensus(adata, n_samples=1, n_steps=num_steps, seed=seed).position
        predictions.insert(0, ("consensus", -1, agreed))
    rows: list[dict[str, Any]] = []
    for own, name in zip(cells.rows(), cells.batch_names, strict=True):
        k = min(_NEIGHBORS, (len(own) - 1) // 2)
        for prediction, number, values in predictions:
            scores = metrics.score_positions(
                cells.coordinates[own], values[own], unit_scale=unit_scale, n_neighbors=k, seed=seed
            )
            rows.append({**_head(name, prediction, number, len(own)), "n_neighbors": k, **scores})
    return pd.DataFrame(rows).astype({"draw": "Int64"})


def expression_scores(
    model: MaskedDiffusion, adata: AnnData, *, num_samples: int, num_steps: int, hidden_share: float, seed: int
) -> pd.DataFrame:
    """One row a slice for the expression expected of cells that are hidden at random, and one for each draw of it.

    ``pearson`` and ``rmse`` are means over genes; ``morans_i_error`` and ``gene_correlation_error`` as in metrics.
    """
    cells = model._read(adata, coordinates=True)
    assert cells.coordinates is not None
    hidden = np.zeros(cells.n_obs, dtype=bool)
    rng = np.random.default_rng(seed)
    for own in cells.rows():
        hidden[rng.choice(own, max(round(hidden_share * len(own)), 3), replace=False)] = True
    truth = normalized(cells, model._state)
    draws = model.sample(adata, mode="pos_to_expr", n_samples=num_samples, n_steps=num_steps, hidden=hidden, seed=seed)
    draws = np.asarray(draws).reshape(num_samples, *truth.shape)
    predictions = [("expected", -1, model.impute(adata, hidden=hidden, seed=seed))]
    predictions += [("draw", number, draw) for number, draw in enumerate(draws)]
    rows: list[dict[str, Any]] = []
    for whole, name in zip(cells.rows(), cells.batch_names, strict=True):
        own = whole[hidden[whole]]
        for prediction, number, values in predictions:
            pair = truth[own], values[own]
            scores = {
                "pearson": float(mean_of_defined(metrics.pearson_per_gene(*pair))),
                "rmse": float(mean_of_defined(metrics.rmse_per_gene(*pair))),
                "morans_i_error": metrics.morans_i_error(
                    *pair, cells.coordinates[own], n_neighbors=min(6, len(own) - 1)
                ),
                "gene_correlation_error": metrics.gene_correlation_error(*pair),
            }
            rows.append({**_head(name, prediction, number, len(own)), **scores})
    return pd.DataFrame(rows).astype({"draw": "Int64"})


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table of scores whole or not at all."""
    with replacing(path) as part:
        table.to_csv(part, index=False)


def summary(table: pd.DataFrame) -> str:
    """Means over the draws, to be printed."""
    kinds = table.drop(columns="draw").groupby(["slice", "prediction"], sort=False).mean()
    whole = [str(name) for name in kinds if str(name).startswith("n_")]
    return kinds.astype(dict.fromkeys(whole, int)).to_string(float_format="{:.3f}".format)


def _head(name: str, prediction: str, number: int, n_cells: int) -> dict[str, Any]:
    return {"slice": name, "prediction": prediction, "draw": None if number < 0 else number, "n_cells": n_cells}
