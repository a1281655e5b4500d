"""Stage 1 of VARST on HER2ST patients A to F: reconstruction, denoising and use of codes. See README.md."""

from __future__ import annotations

import argparse
import logging
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from _runs import Runs, in_a_process
from anndata import AnnData
from sklearn.cluster import MiniBatchKMeans
from tables import RESULTS, print_tables

from stomics_tools.data import normalize_expression, total_counts, variable_genes
from stomics_tools.metrics import pearson_per_gene, r2_against
from stomics_tools.model import VARST
from stomics_tools.pp import split_counts

DEFAULT_OUT = RESULTS / "gene_codes.csv"
TRAINING = list("ABCD")
COMPONENTS = (4, 8, 16, 32, 64)
N_CODEBOOKS, N_CODES = 16, 256
SCALES = (1, 8, 32, 200)
COLUMNS = (
    "r2",
    "denoising",
    *(f"r2_{size}" for size in SCALES),
    *(f"denoising_{size}" for size in SCALES),
    *(f"{what}_{size}_{part}" for what in ("perplexity",) for size in SCALES for part in ("training", "test")),
    "usage_training",
    "dead_training",
)


@lru_cache(maxsize=1)
def read() -> tuple[AnnData, AnnData, AnnData, np.ndarray]:
    """Training spots, test spots, one half of the counts of the test spots, and the other half: log1p CP10k."""
    if "STOMICS_DATA" not in os.environ:
        raise SystemExit("Set STOMICS_DATA to the folder of the data sets.")
    adata = ad.read_h5ad(Path(os.environ["STOMICS_DATA"]) / "her2st_patients_AtoF.h5ad")
    counts = adata.X.tocsr()
    deep = total_counts(counts) >= 100
    adata, counts = adata[deep], counts[deep]
    training = adata.obs["patient"].astype(str).isin(TRAINING).to_numpy()
    genes = np.sort(variable_genes(counts[training], total_counts(counts[training]), 200))

    def log_normalized(values: Any) -> np.ndarray:
        total = total_counts(values)
        return np.asarray(normalize_expression(values, np.maximum(total, 1.0))[:, genes].toarray(), dtype=np.float32)

    def spots(values: np.ndarray, rows: np.ndarray) -> AnnData:
        made = AnnData(values, obs=adata.obs.loc[rows, ["patient", "section"]].copy(), var=adata.var.iloc[genes].copy())
        made.obsm["spatial"] = np.asarray(adata.obsm["spatial"])[rows]
        return made

    whole = log_normalized(counts)
    one, other = split_counts(counts[~training], 0.5, seed=0)
    return (
        spots(whole[training], training),
        spots(whole[~training], ~training),
        spots(log_normalized(one), ~training),
        log_normalized(other),
    )


def scores(whole: np.ndarray, half: np.ndarray) -> dict[str, float]:
    """R2 of reconstructed test spots against the training mean; correlation of those of a half with the other half."""
    training, test, _, other = read()
    r2 = r2_against(test.X, whole, training.X.mean(axis=0))
    return {"r2": float(r2), "denoising": float(np.nanmean(pearson_per_gene(other, half)))}


def standardized() -> tuple[np.ndarray, ...]:
    training, test, half, _ = read()
    mean, sd = training.X.mean(axis=0), training.X.std(axis=0)
    return mean, sd, *((part.X - mean) / sd for part in (training, test, half))


def raw(seed: int) -> dict[str, float]:
    _, test, half, _ = read()
    return scores(test.X, half.X)


def components(n: int, seed: int) -> dict[str, float]:
    mean, sd, training, test, half = standardized()
    basis = np.linalg.svd(training, full_matrices=False)[2][:n]
    return scores(test @ basis.T @ basis * sd + mean, half @ basis.T @ basis * sd + mean)


def residual_kmeans(seed: int) -> dict[str, float]:
    """Sixteen codebooks of 256 codes, each of what those before it leave."""
    mean, sd, *left = standardized()
    known = [np.zeros_like(part) for part in left]
    for number in range(N_CODEBOOKS):
        codes = MiniBatchKMeans(N_CODES, batch_size=4096, n_init=1, random_state=100 * seed + number).fit(left[0])
        for part, told in zip(left, known, strict=True):
            nearest = codes.cluster_centers_[codes.predict(part)]
            part -= nearest
            told += nearest
    return scores(known[1] * sd + mean, known[2] * sd + mean)


def var_st(quantizer: str, seed: int, **arguments: Any) -> dict[str, float]:
    training, test, half, _ = read()
    VARST.setup_anndata(training, "spatial", patient_key="patient", section_key="section")  # places stand for an image
    model = VARST(training, quantizer=quantizer, **arguments)
    model.train_stage1(seed=seed, enable_progress_bar=False)
    found: dict[str, float] = {}
    for number, size in enumerate(SCALES, start=1):
        one = scores(model.reconstruct(test, n_scales=number), model.reconstruct(half, n_scales=number))
        found |= {f"{name}_{size}": value for name, value in one.items()}
    for part, report in (("training", model.codebook_report()), ("test", model.codebook_report(test))):
        found |= {f"perplexity_{size}_{part}": report["perplexity"][str(size)] for size in SCALES}
        if part == "training":
            found |= {"usage_training": report["usage"]["all"], "dead_training": report["n_dead"]["all"]}
    best = max(found[f"denoising_{size}"] for size in SCALES)
    return found | {"r2": found[f"r2_{SCALES[-1]}"], "denoising": best}


METHODS = {
    "as measured": (raw, 1),
    **{f"PCA {n}": (partial(components, n), 1) for n in COMPONENTS},
    "residual k-means 16 x 256": (residual_kmeans, 3),
    "VARST fsq": (partial(var_st, "fsq"), 5),
    "VARST ema": (partial(var_st, "ema"), 3),
    "VARST vq": (partial(var_st, "vq"), 3),
    "VARST fsq, genes in list order": (partial(var_st, "fsq", gene_tree="order"), 3),
}


def run_seeds(out: Path, label: str, seeds: list[int]) -> None:
    runs = Runs(out, COLUMNS)
    for seed in seeds:
        runs.run("her2st_A-D_E-F", label, seed, partial(METHODS[label][0], seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, help="seeds of every method")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    runs = Runs(arguments.out, COLUMNS)
    for label in arguments.methods:
        n_seeds = arguments.seeds or METHODS[label][1]
        seeds = [seed for seed in range(n_seeds) if not runs.has("her2st_A-D_E-F", label, seed)]
        if seeds:
            in_a_process(run_seeds, arguments.out, label, seeds)
    print_tables(arguments.out)


if __name__ == "__main__":
    main()
