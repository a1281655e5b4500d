"""Expression from histology: sections and patients left out, by method and seed. See README.md."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from _histology import DEPTH, FEATURES, ONE_PATIENT, SECTIONS, read_sections
from _runs import Runs, in_a_process
from tables import RESULTS

from stomics_tools import baselines
from stomics_tools.tl import evaluate_expression

DEFAULT_OUT = RESULTS / "histology.csv"
SCORES = (
    "pcc",
    "pcc_depth_out",
    "spearman",
    "spearman_depth_out",
    "pcc_50",
    "pcc_50_depth_out",
    "mse",
    "mae",
    "r2",
    "r2_gene_median",
    "rvd",
    "gene_correlation_error",
    "n_genes_undefined",
    "coverage_0.8",
    "width_0.8",
    "crps",
    "rvd_sample",
    "gene_correlation_error_sample",
)
DEEP = ("n_obs", "pcc", "pcc_depth_out", "r2", "coverage_0.8", "crps")
RESULT_COLUMNS = (*SCORES, *(f"{name}_deep" for name in DEEP))
CEILING = "noise ceiling"


@dataclass(frozen=True)
class Method:
    """What `evaluate_expression` is given, with how many seeds, and which features."""

    make: Callable[[], Any]
    seeds: int = 1
    features: str = FEATURES
    ceiling: bool = False


def with_residuals(estimator: Any) -> Callable[[], Any]:
    return partial(baselines.GaussianResiduals, estimator)


METHODS = {
    "training_mean": Method(baselines.TrainingMean),
    "pca_ridge": Method(with_residuals(baselines.PCARidge())),
    "knn_retrieval": Method(with_residuals(baselines.KNNRetrieval())),
    "gradient_boosting": Method(with_residuals(baselines.GradientBoosting()), seeds=5),
    "mlp": Method(with_residuals(baselines.MLP()), seeds=5),
    "mfbp": Method(baselines.MFBP, seeds=5),
    "next_scale": Method(baselines.NextScale, seeds=5),
    "true_depth": Method(partial(baselines.GradientBoosting, n_components=1), features=DEPTH),
    CEILING: Method(baselines.TrainingMean, ceiling=True),
    "var_st": Method(lambda: "var_st", seeds=5),
}


def evaluate(section: str, label: str, seed: int, n_samples: int) -> dict[str, float]:
    """Scores on a section: one of patient C with its others as training part, B4 with all of C."""
    adata, method = read_sections(), METHODS[label]
    alone = section in ONE_PATIENT
    if alone:
        adata = adata[adata.obs["section"].isin(ONE_PATIENT)]
    table = evaluate_expression(
        adata,
        {"method": method.make()},
        features_key=method.features,
        patient_key="patient",
        section_key="section",
        split="section" if alone else "patient",
        held_out=[section if alone else "B"],
        seeds=[seed],
        n_samples=n_samples,
        ceiling=method.ceiling,
    )
    table = table[(table["section"] == "all") & (table["method"] == (CEILING if method.ceiling else "method"))]
    every, deep = (table[table["min_counts"] == least].squeeze() for least in (100, 1000))
    return {
        **{name: every[name] for name in SCORES if pd.notna(every.get(name))},
        **{f"{name}_deep": deep[name] for name in DEEP if pd.notna(deep.get(name))},
    }


def run_seeds(out: Path, section: str, label: str, seeds: Sequence[int], n_samples: int) -> None:
    runs = Runs(out, RESULT_COLUMNS)
    for seed in seeds:
        runs.run(section, label, seed, partial(evaluate, section, label, seed, n_samples))


def by_seed(runs: pd.DataFrame, sections: Sequence[str], column: str) -> pd.Series:
    """Mean over the sections, of each seed that has them all."""
    wide = runs[runs["dataset"].isin(sections)].pivot(index="seed", columns="dataset", values=column)
    return wide.reindex(columns=list(sections)).mean(axis=1, skipna=False).dropna()


def cell(values: pd.Series) -> str:
    if values.empty:
        return "-"
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def print_tables(path: Path) -> None:
    """The two settings, and the differences between methods over the sections.

    The five sections are of two patients: no test of patients can be below p = 0.5, so that none is printed.
    """
    runs = pd.read_csv(path)
    labels = [label for label in METHODS if label in set(runs["method"])]
    columns = ("pcc", "pcc_depth_out", "r2", "mse", "coverage_0.8", "crps", "gene_correlation_error")
    columns += ("gene_correlation_error_sample",)
    deep = ("pcc_deep", "pcc_depth_out_deep", "r2_deep")
    for title, sections, shown in (
        ("C2 to C5, one left out at a time (one patient)", ONE_PATIENT, columns),
        ("B4, trained on C2 to C5 (another patient); deep: its spots of 1,000 counts", ("B4",), columns + deep),
    ):
        print(f"### {title}\n\n| method | seeds | {' | '.join(shown)} |\n|{' --- |' * (len(shown) + 2)}")
        for label in labels:
            of_method = runs[runs["method"] == label]
            cells = [cell(by_seed(of_method, sections, column)) for column in shown]
            print(f"| {label} | {len(by_seed(of_method, sections, 'pcc'))} | {' | '.join(cells)} |")
        print()
    judged = [label for label in labels if label not in ("true_depth", CEILING)]
    first = "var_st" if "var_st" in judged else "mlp"
    print(f"### {first} against the others: mean over seeds and the five sections\n")
    print("| against | score | difference | higher in |\n| --- | --- | --- | --- |")
    for column in ("pcc", "pcc_depth_out", "r2"):
        means = runs.groupby(["method", "dataset"])[column].mean().unstack().reindex(columns=list(SECTIONS))
        for label in judged:
            if label == first or first not in means.index or means.loc[[first, label]].isna().any(axis=None):
                continue
            difference = means.loc[first] - means.loc[label]
            higher = f"{(difference > 0).sum()} of {len(difference)}"
            print(f"| {label} | {column} | {difference.mean():+.3f} | {higher} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, help="seeds of every method (default: 5, or 1 where nothing is random)")
    parser.add_argument("--samples", type=int, default=100, help="samples of the methods that draw them")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    results = Runs(arguments.out, RESULT_COLUMNS)
    for label in arguments.methods:
        for section in arguments.data:
            n_seeds = arguments.seeds or METHODS[label].seeds
            seeds = [seed for seed in range(n_seeds) if not results.has(section, label, seed)]
            if seeds:
                in_a_process(run_seeds, arguments.out, section, label, seeds, arguments.samples)
    print()
    print_tables(arguments.out)


if __name__ == "__main__":
    main()
