"""Parts of VARST changed one at a time, C3 left out of C2 to C5. See README.md."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _histology import FEATURES, ONE_PATIENT, read_sections
from _runs import Runs, in_a_process
from histology import SCORES
from tables import RESULTS, print_tables

from stomics_tools.model.var_st import _vqvae
from stomics_tools.tl import evaluate_expression

DEFAULT_OUT = RESULTS / "histology_ablation.csv"
LEFT_OUT = "C3"
ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "scales 200": {"scales": (200,)},
    "scales 1, 200": {"scales": (1, 200)},
    "scales 1, 8, 32": {"scales": (1, 8, 32)},
    "quantizer ema": {"quantizer": "ema"},
    "quantizer vq": {"quantizer": "vq"},
    "genes in list order": {"gene_tree": "order"},
    "no identity embeddings": {},
    "joint head": {"head": "joint"},
    "no condition dropout": {"condition_dropout": 0.0},
    "neighbours 6": {"n_neighbors": 6},
    "coordinates": {"use_coordinates": True},
    "no mixup": {"mixup": 0.0},
    "one perceptron": {"n_members": 1},
}
WAYS: dict[str, dict[str, Any]] = {  # of asking the model that "default" trains
    "default": {},
    "mean of 20 samples as prediction": {"by_samples": True},
    "guidance 1": {"guidance": 1.0},
}


class Anonymous(_vqvae.Block):
    """A block of stage 1 that does not know at which group of genes it is."""

    def __init__(self, n_groups: int, width: int) -> None:
        super().__init__(n_groups, width)
        self.identity = torch.nn.Parameter(torch.zeros_like(self.identity), requires_grad=False)


class Training:
    """One training that several ways of prediction share, also where a method is copied."""

    def __init__(self, arguments: dict[str, Any], seed: int) -> None:
        self.arguments, self.seed, self.model = arguments, seed, None

    def __deepcopy__(self, memo: Any) -> Training:
        return self

    def fit(self, train: Any) -> None:
        from stomics_tools.model import VARST

        if self.model is None:
            VARST.setup_anndata(train, FEATURES, patient_key="patient", section_key="section")
            self.model = VARST(train, **self.arguments)
            self.model.train(seed=self.seed, key_added=None, enable_progress_bar=False)


class Model:
    """A trained VARST as `evaluate_expression` takes it, with the ways of prediction that it has no name for."""

    def __init__(self, training: Training, by_samples: bool = False, guidance: float = 0.0) -> None:
        self.training, self.by_samples, self.guidance = training, by_samples, guidance

    def fit(self, train: Any) -> None:
        self.training.fit(train)

    def predict(self, test: Any) -> Any:
        return self.training.model.predict(test, method="samples" if self.by_samples else "mean")

    def sample(self, test: Any, n: int, seed: int) -> Any:
        return self.training.model.sample(test, n, guidance=self.guidance, seed=seed)

    def interval(self, test: Any, level: float) -> Any:
        return self.training.model.interval(test, level)


def evaluate(model: Model, n_samples: int) -> dict[str, float]:
    adata = read_sections()
    table = evaluate_expression(
        adata[adata.obs["section"].isin(ONE_PATIENT)],
        {"method": model},
        features_key=FEATURES,
        patient_key="patient",
        section_key="section",
        split="section",
        held_out=[LEFT_OUT],
        seeds=[0],
        n_samples=n_samples,
    )
    row = table[(table["section"] == "all") & (table["min_counts"] == 100)].squeeze()
    return {name: row[name] for name in SCORES if name in row and pd.notna(row[name])}


def run_arm(out: Path, arm: str, seed: int, n_samples: int) -> None:
    """One training, asked in every way there is, in a process of its own."""
    if arm == "no identity embeddings":
        _vqvae.Block = Anonymous  # type: ignore[misc]
    runs, training = Runs(out, SCORES), Training(ARMS[arm], seed)
    for label, way in (WAYS if arm == "default" else {arm: {}}).items():
        runs.run(LEFT_OUT, label, seed, partial(evaluate, Model(training, **way), n_samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, SCORES)
    for seed in range(arguments.seeds):
        for arm in arguments.arms:
            if not all(runs.has(LEFT_OUT, label, seed) for label in (WAYS if arm == "default" else [arm])):
                in_a_process(run_arm, arguments.out, arm, seed, arguments.samples)
    print_tables(arguments.out, ("pcc", "pcc_depth_out", "r2", "crps", "gene_correlation_error_sample", "coverage_0.8"))


if __name__ == "__main__":
    main()
