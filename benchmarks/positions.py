"""Positions of the cells of a held-out section from their expression, by method and seed. See README.md."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _runs import Runs, in_a_process
from _sections import HELD_OUT, features, split, trained
from tables import RESULTS, print_tables

from stomics_tools import baselines
from stomics_tools.metrics import score_positions

DEFAULT_OUT = RESULTS / "positions.csv"
COLUMNS = ("distance_spearman", "neighbor_overlap", "gyration_ratio", "sliced_wasserstein", "nrmsd")
LANDMARKS = 0.05
_FRAME = {"simulation": "tissue"}  # baselines know no poses: they are given the frame that sections share

BASELINES: dict[str, Callable[[int], Any]] = {
    "knn_1": lambda seed: baselines.PositionKNN(1),
    "knn_10": lambda seed: baselines.PositionKNN(10),
    "knn_50": lambda seed: baselines.PositionKNN(50),
    "ridge": lambda seed: baselines.PositionRidge(),
    "mlp": lambda seed: baselines.PositionMLP(seed=seed),
}
DIFFUSION = ("diffusion consensus", "diffusion draw", "diffusion consensus, landmarks")
METHODS = (*BASELINES, "cell_type_centroid", "knn_10 on landmarks", "diffusion")


def scores(truth: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    found = score_positions(truth, prediction)
    return {name: found[name] for name in COLUMNS}


def baseline(dataset: str, method: str, seed: int) -> dict[str, float]:
    training, test = split(dataset)
    key = _FRAME.get(dataset, "spatial")
    place, truth = np.asarray(training.obsm[key])[:, :2], np.asarray(test.obsm["spatial"])[:, :2]
    sections = training.obs["section"].astype(str).to_numpy()
    if method == "cell_type_centroid":
        labels = [part.obs["cell_type"].astype(str).to_numpy() for part in (training, test)]
        return scores(truth, baselines.CellTypeCentroid().fit(labels[0], place, groups=sections).predict(labels[1]))
    x, y = features(training, test)
    if method == "knn_10 on landmarks":
        known = landmarks(len(truth), seed)
        found = baselines.PositionKNN(10).fit(y[known], truth[known]).predict(y) + truth[known].mean(axis=0)
        found[known] = truth[known]
        return scores(truth, found)
    return scores(truth, BASELINES[method](seed).fit(x, place, groups=sections).predict(y))


def landmarks(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n) < LANDMARKS


def diffusion(dataset: str, seed: int, n_samples: int, models: Path | None) -> dict[str, dict[str, float]]:
    """Scores of the consensus, the mean of those of draws, and of the consensus with landmarks."""
    model = trained(dataset, seed, models, {})
    _, test = split(dataset)
    truth = np.asarray(test.obsm["spatial"])[:, :2]
    draws = model.sample(test, mode="expr_to_pos", n_samples=n_samples, seed=seed)
    each = [scores(truth, draw) for draw in draws]
    known = landmarks(len(truth), seed)
    placed = model.consensus(test, n_samples=1, landmarks=known, seed=seed).position
    return {
        "diffusion consensus": scores(truth, model.consensus(test, n_samples=1, seed=seed).position),
        "diffusion draw": {name: float(np.mean([one[name] for one in each])) for name in COLUMNS},
        "diffusion consensus, landmarks": scores(truth, placed),
    }


def run(out: Path, dataset: str, method: str, seed: int, n_samples: int, models: Path | None) -> None:
    runs = Runs(out, COLUMNS)
    if method != "diffusion":
        runs.run(dataset, method, seed, partial(baseline, dataset, method, seed))
        return
    found: dict[str, dict[str, float]] = {}

    def first() -> dict[str, float]:
        found.update(diffusion(dataset, seed, n_samples, models))
        return found[DIFFUSION[0]]

    runs.run(dataset, DIFFUSION[0], seed, first)  # with the time of all three
    for label in DIFFUSION[1:]:
        if label in found:
            runs.run(dataset, label, seed, partial(found.get, label))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=HELD_OUT, default=list(HELD_OUT))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of what is random")
    parser.add_argument("--samples", type=int, default=4, help="draws that are scored, 2 at least")
    parser.add_argument("--models", type=Path, help="folder to keep trained models in, and to read them from")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, COLUMNS)
    for dataset in arguments.data:
        for method in arguments.methods:
            if method == "cell_type_centroid" and dataset == "simulation":
                continue
            random = method in ("mlp", "knn_10 on landmarks", "diffusion")
            for seed in range(arguments.seeds if random else 1):
                label = DIFFUSION[0] if method == "diffusion" else method
                if not runs.has(dataset, label, seed):
                    in_a_process(run, arguments.out, dataset, method, seed, arguments.samples, arguments.models)
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
