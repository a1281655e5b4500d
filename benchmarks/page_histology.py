"""Tables of expression from histology."""

from __future__ import annotations

import pandas as pd
from page import Part, Table, parts

PERPLEXITY = {1: "1 token", 8: "8", 32: "32", 200: "200"}


def histology(methods: list[Part], columns: tuple[str, ...], dataset: str | tuple[str, ...]) -> Table:
    return Table("histology.csv", "method", methods, parts(columns, "column"), dataset=dataset, digits=3)


def _joined(values: pd.Series) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


TABLES: dict[str, Table] = {
    "one patient": histology(
        parts(
            {
                **{
                    name: name
                    for name in ("training_mean", "pca_ridge", "knn_retrieval", "gradient_boosting", "mlp", "mfbp")
                },
                **{"next_scale": "next_scale", "var_st": "VARST", "true_depth": "true_depth"},
                "noise ceiling": "noise ceiling",
            },
            "method",
        ),
        ("pcc", "pcc_depth_out", "r2", "coverage_0.8", "crps"),
        ("C2", "C3", "C4", "C5"),
    ),
}
TABLES["another patient"] = histology(
    list(TABLES["one patient"].lines),
    ("pcc", "pcc_depth_out", "r2", "coverage_0.8", "crps", "pcc_deep", "pcc_depth_out_deep", "r2_deep"),
    "B4",
)
TABLES |= {
    "simulated histology": Table(
        "histology_simulated.csv",
        "method",
        parts(
            {name: name for name in ("ceiling", "pca_ridge", "knn_retrieval", "mlp")} | {"var_st": "VARST"}, "method"
        ),
        [
            Part("pcc", column="pcc"),
            Part("below the ceiling", column="below_ceiling"),
            Part("coverage of 80 %", column="coverage_0.8"),
            Part("crps", column="crps"),
            Part("gene-gene error of the mean", column="gene_correlation_error", digits=2),
            Part("of a draw", column="gene_correlation_error_sample", digits=2),
        ],
        dataset="simulate_histology",
        digits=3,
    ),
    "parts of VARST": Table(
        "histology_ablation.csv",
        "arm",
        parts(
            (
                *("default", "mean of 20 samples as prediction", "guidance 1", "scales 200", "scales 1, 200"),
                *("scales 1, 8, 32", "quantizer ema", "quantizer vq", "genes in list order"),
                *("no identity embeddings", "joint head"),
                *("no condition dropout", "neighbours 6", "coordinates", "no mixup", "one perceptron"),
            ),
            "method",
        ),
        [
            *parts(("pcc", "pcc_depth_out", "r2", "crps"), "column"),
            Part("gene-gene error of a draw", column="gene_correlation_error_sample", digits=2),
            Part("coverage", column="coverage_0.8"),
        ],
        dataset="C3",
        digits=3,
        counts=True,
    ),
    "gene codes": Table(
        "gene_codes.csv",
        "method",
        parts(
            {
                **{name: name for name in ("as measured", *(f"PCA {n}" for n in (4, 8, 16, 32, 64)))},
                "residual k-means 16 x 256": "residual k-means, 16 x 256 codes",
                "VARST fsq": "VARST, fsq",
                "VARST fsq, genes in list order": "VARST, fsq, genes pooled in list order",
                "VARST ema": "VARST, ema",
                "VARST vq": "VARST, vq",
            },
            "method",
        ),
        parts({"r2": "R2", "denoising": "denoising"}, "column"),
        dataset="her2st_A-D_E-F",
        digits=3,
        counts=True,
    ),
    "perplexity": Table(
        "gene_codes.csv",
        "perplexity in training, of 4,096 codes",
        parts(
            {
                "VARST fsq": "fsq",
                "VARST fsq, genes in list order": "fsq, list order",
                "VARST ema": "ema",
                "VARST vq": "vq",
            },
            "method",
        ),
        [
            *(Part(label, column=f"perplexity_{n}_training") for n, label in PERPLEXITY.items()),
            Part("dead codes", column="dead_training"),
        ],
        dataset="her2st_A-D_E-F",
        digits=0,
    ),
    "generation": Table(
        "generation.csv",
        "size, head, batch",
        [
            Part(f"{size}, {n:,}", size, f"batch {n}")
            for size in ("small, factorized", "small, joint", "paper, joint")
            for n in (1, 64, 1024)
            if size != "paper, joint" or n < 1024
        ],
        [
            Part("by scale, spots/s", column="scale_spots_per_s"),
            Part("by token, spots/s", column="token_spots_per_s"),
            Part("times", column="speedup", digits=0),
            Part("passes by token made", column="token_passes_made", show=_joined),
        ],
        counts=True,
    ),
}
