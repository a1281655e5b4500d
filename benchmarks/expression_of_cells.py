"""Expression of cells and genes that were hidden in a held-out section, by method and seed. See README.md."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from _runs import Runs, in_a_process
from _sections import HELD_OUT, features, split, trained
from tables import RESULTS, print_tables

from stomics_tools import baselines
from stomics_tools.metrics import pearson_per_gene
from stomics_tools.model import MaskedDiffusion

DEFAULT_OUT = RESULTS / "expression_of_cells.csv"
DATA = ("starmap_1", "starmap_2", "starmap_3", "merfish")
COLUMNS = ("pcc",)
SHARE = 0.3

CELLS: dict[str, Callable[[int], Any]] = {
    "hidden: spatial_knn_30": lambda seed: baselines.SpatialKNN(30),
    "hidden: random_fourier_ridge": lambda seed: baselines.RandomFourierRidge(seed=seed),
}
TOLD_THE_TYPE = "hidden: cell_type_mean, told the type"
GENES: dict[str, Callable[[int], Any]] = {
    "missing genes: ridge": lambda seed: baselines.PCARidge(seed=seed),
    "missing genes: knn_retrieval": lambda seed: baselines.KNNRetrieval(),
    "missing genes: mlp": lambda seed: baselines.MLP(seed=seed),
}
DIFFUSION = ("hidden: diffusion", "missing genes: diffusion", "missing genes: diffusion without positions")
METHODS = (*CELLS, TOLD_THE_TYPE, *GENES, "diffusion")


def hidden(n: int, seed: int) -> np.ndarray:
    """Which of `n` cells or genes are hidden."""
    return np.random.default_rng(seed).permutation(n) < round(SHARE * n)


def pcc(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    return {"pcc": float(np.nanmean(pearson_per_gene(truth, prediction)))}


def baseline(dataset: str, method: str, seed: int) -> dict[str, float]:
    training, test = split(dataset)
    x, y = features(training, test)
    if method in GENES:
        missing = hidden(test.n_vars, seed)
        seen = features(training[:, ~missing], test[:, ~missing])  # of totals that leave out the missing genes
        sections = training.obs["section"].astype(str).to_numpy()
        found = GENES[method](seed).fit(seen[0], x[:, missing], groups=sections).predict(seen[1])
        return pcc(y[:, missing], found)
    asked = hidden(test.n_obs, seed)
    if method == TOLD_THE_TYPE:
        estimator, known = baselines.CellTypeMean(), test.obs["cell_type"].astype(str).to_numpy()
    else:
        estimator, known = CELLS[method](seed), np.asarray(test.obsm["spatial"])[:, :2]
    return pcc(y[asked], estimator.fit(known[~asked], y[~asked]).predict(known[asked]))


def diffusion(dataset: str, label: str, seed: int, model: Callable[[], MaskedDiffusion]) -> dict[str, float]:
    training, test = split(dataset)
    _, truth = features(training, test)
    if label == DIFFUSION[0]:
        asked = hidden(test.n_obs, seed)
        return pcc(truth[asked], model().impute(test, hidden=asked, seed=seed)[asked])
    missing = hidden(test.n_vars, seed)
    found = model().impute(test[:, ~missing].copy(), use_positions=label == DIFFUSION[1], seed=seed)
    return pcc(truth[:, missing], found[:, missing])


def run(out: Path, dataset: str, labels: Sequence[str], seed: int, models: Path | None) -> None:
    runs = Runs(out, COLUMNS)
    model = cache(partial(trained, dataset, seed, models, {}))  # the first label asks for it, in its own time
    for label in labels:
        if label in DIFFUSION:
            runs.run(dataset, label, seed, partial(diffusion, dataset, label, seed, model))
        else:
            runs.run(dataset, label, seed, partial(baseline, dataset, label, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=HELD_OUT, default=list(DATA))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of what is hidden and of what is random")
    parser.add_argument("--models", type=Path, help="folder to keep trained models in, and to read them from")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, COLUMNS)
    for dataset in arguments.data:
        for method in arguments.methods:
            if method == TOLD_THE_TYPE and dataset == "simulation":
                continue
            for seed in range(arguments.seeds):
                labels = DIFFUSION if method == "diffusion" else (method,)
                if not all(runs.has(dataset, label, seed) for label in labels):
                    in_a_process(run, arguments.out, dataset, labels, seed, arguments.models)
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
