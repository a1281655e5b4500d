"""Tables of positions and of expression at positions."""

from __future__ import annotations

from page import Part, Table, parts

STARMAP = ("starmap_1", "starmap_2", "starmap_3")


def positions() -> list[Part]:
    draws = {"diffusion consensus": "**consensus**", "diffusion draw": "**draw**"}
    landmarks = {
        "knn_10 on landmarks": "kNN 10 on landmarks",
        "diffusion consensus, landmarks": "**consensus, landmarks**",
    }
    framed = {"knn_10": "kNN 10, told the common frame", "mlp": "perceptron, told the common frame"}
    sections = {
        "simulation, own poses": ("simulation", framed | draws),
        "cortex, Visium, 151675": (
            "dlpfc",
            {"knn_1": "kNN 1", "knn_50": "kNN 50", "mlp": "perceptron"} | draws | landmarks,
        ),
        "cortex, STARmap, mean of three": (
            STARMAP,
            {"knn_1": "kNN 1", "cell_type_centroid": "cell-type centroid", "mlp": "perceptron"} | draws | landmarks,
        ),
        "hypothalamus, MERFISH, another animal": (
            "merfish",
            {"knn_1": "kNN 1", "knn_10": "kNN 10", "mlp": "perceptron"} | draws | landmarks,
        ),
    }
    return [
        Part(f"{section if first else ''} | {label}", dataset, method)
        for section, (dataset, methods) in sections.items()
        for first, (method, label) in zip([True] + [False] * 9, methods.items(), strict=False)
    ]


def diffusion_parts() -> list[Part]:
    """Closed form and default on each section, everything on the third."""
    arms = ("closed form alone", "default")
    options = (
        *("gate, elementwise", "gate, headwise", "experts 4-of-2", "experts 8-of-2", "gate, experts 8-of-2"),
        *("no masking", "default dimensions"),
    )
    return [
        Part(f"{i + 1 if arm == arms[0] else ''} | {arm}", dataset, arm)
        for i, dataset in enumerate(STARMAP)
        for arm in (arms + options if i == 2 else arms)
    ]


TABLES: dict[str, Table] = {
    "positions": Table(
        "positions.csv",
        "section held out | method",
        positions(),
        [
            Part("distances", column="distance_spearman", digits=3),
            Part("neighbours", column="neighbor_overlap", digits=3),
            Part("gyration", column="gyration_ratio", digits=2),
            Part("Wasserstein", column="sliced_wasserstein", digits=2),
        ],
    ),
    "sampling": Table(
        "sampling.csv",
        "sampler, steps",
        parts(
            (
                *("dpm++ 5", "dpm++ 10", "dpm++ 20", "dpm++ 50", "ddim 20", "ddim 50", "ancestral 100"),
                "ancestral 1000",
            ),
            "method",
        ),
        [
            Part("distances", column="distance_spearman", digits=3),
            Part("neighbours", column="neighbor_overlap", digits=3),
            Part("gyration", column="gyration_ratio", digits=3),
            Part("Wasserstein", column="sliced_wasserstein", digits=4),
            Part("seconds", column="draw_seconds", digits=1),
        ],
        dataset="simulation",
    ),
    "anchors": Table(
        "sampling.csv",
        "cells",
        parts({f"{n} cells": n for n in ("1,000", "10,000", "100,000")}, "dataset"),
        [
            Part("seconds a draw", column="draw_seconds"),
            Part("peak, MiB", column="peak_mib", digits=0),
            Part("distances", column="distance_spearman", digits=3),
        ],
        method="dpm++ 10",
    ),
    "diffusion parts": Table(
        "diffusion_parts.csv",
        "STARmap, section held out | ",
        diffusion_parts(),
        [
            Part("distances", column="distance_spearman"),
            Part("neighbours", column="neighbor_overlap"),
            Part("hidden cells", column="pcc_hidden_cells"),
            Part("missing genes", column="pcc_missing_genes"),
        ],
        digits=3,
    ),
    "expression of cells": Table(
        "expression_of_cells.csv",
        "",
        parts(
            {
                "hidden: spatial_knn_30": "hidden cells: spatial kNN, 30 cells",
                "hidden: random_fourier_ridge": "random Fourier features of positions, ridge",
                "hidden: diffusion": "**MaskedDiffusion**",
                "hidden: cell_type_mean, told the type": "mean of the cell type, which it is told",
                "missing genes: ridge": "missing genes: ridge",
                "missing genes: knn_retrieval": "kNN retrieval",
                "missing genes: mlp": "perceptron trained for these very genes",
                "missing genes: diffusion": "**MaskedDiffusion**, trained for any genes",
                "missing genes: diffusion without positions": "the same without positions",
            },
            "method",
        ),
        [Part("STARmap, mean of three", STARMAP), Part("MERFISH", "merfish")],
        column="pcc",
        digits=3,
    ),
}
