"""Expression from simulated histology, a patient left out, beside the known ceiling. See README.md."""

from __future__ import annotations

import argparse
import logging
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from _runs import Runs, in_a_process
from anndata import AnnData
from tables import RESULTS, print_tables

from stomics_tools.baselines import MLP, GaussianResiduals, KNNRetrieval, PCARidge
from stomics_tools.data import log_cp10k
from stomics_tools.datasets import simulate_histology
from stomics_tools.metrics import crps_samples, gene_correlation_error, interval_coverage, pearson_per_gene
from stomics_tools.model import VARST

DEFAULT_OUT = RESULTS / "histology_simulated.csv"
COLUMNS = ("pcc", "below_ceiling", "coverage_0.8", "crps", "gene_correlation_error", "gene_correlation_error_sample")
BASELINES = {
    "pca_ridge": lambda: GaussianResiduals(PCARidge()),
    "knn_retrieval": lambda: GaussianResiduals(KNNRetrieval()),
    "mlp": lambda: GaussianResiduals(MLP()),
}
METHODS = ("ceiling", *BASELINES, "var_st")


@lru_cache(maxsize=1)
def parts(seed: int) -> tuple[AnnData, AnnData, np.ndarray]:
    """Training patients, the patient left out, and its expression."""
    adata = simulate_histology(seed=seed)
    last = adata.obs["patient"] == adata.obs["patient"].unique()[-1]
    test = adata[last].copy()
    return adata[~last].copy(), test, log_cp10k(test.X.toarray())


def within_sections(truth: np.ndarray, prediction: np.ndarray, sections: np.ndarray) -> float:
    """Correlation over the spots of a section, mean over genes and sections."""
    each = [pearson_per_gene(truth[sections == name], prediction[sections == name]) for name in np.unique(sections)]
    return float(np.nanmean(each))


def evaluate(method: str, seed: int, n_samples: int) -> dict[str, float]:
    training, test, truth = parts(seed)
    sections = test.obs["section"].astype(str).to_numpy()
    ceiling = within_sections(truth, np.asarray(test.layers["expected"]), sections)
    if method == "ceiling":
        return {"pcc": ceiling, "below_ceiling": 0.0}
    if method == "var_st":
        VARST.setup_anndata(training, patient_key="patient", section_key="section")
        model = VARST(training)
        model.train(seed=seed, key_added=None, enable_progress_bar=False)
        found, samples, interval = model.predict(test), model.sample(test, n_samples), model.interval(test, 0.8)
    else:
        fitted = BASELINES[method]().fit(
            training.obsm["X_image"], log_cp10k(training.X.toarray()), groups=training.obs["patient"].to_numpy()
        )
        features = test.obsm["X_image"]
        found, samples = fitted.predict(features), fitted.sample(features, n_samples)
        interval = fitted.interval(features, 0.8)
    pcc = within_sections(truth, found, sections)
    return {
        "pcc": pcc,
        "below_ceiling": ceiling - pcc,
        "coverage_0.8": interval_coverage(truth, *interval),
        "crps": float(np.mean(crps_samples(truth, samples))),
        "gene_correlation_error": gene_correlation_error(truth, found),
        "gene_correlation_error_sample": gene_correlation_error(truth, samples[0]),
    }


def run_seed(out: Path, method: str, seed: int, n_samples: int) -> None:
    Runs(out, COLUMNS).run("simulate_histology", method, seed, partial(evaluate, method, seed, n_samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, COLUMNS)
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            if not runs.has("simulate_histology", method, seed):
                in_a_process(run_seed, arguments.out, method, seed, arguments.samples)
    print_tables(arguments.out)


if __name__ == "__main__":
    main()
