"""Tables of domains and of the models that find them."""

from __future__ import annotations

import pandas as pd
from page import Part, Table, parts

SMOOTH = ("smooth1", "smooth2", "smooth3")
RECIPE = {f"{name}_recipe": f"{name}, `pp.rna`" for name in SMOOTH}
SECTIONS = tuple(f"her2st_{name}" for name in ("A1", "B1", "C1", "D1", "E1", "F1"))
EIGHT = ("151673", "151675", "starmap_BZ5", "starmap_BZ9", "starmap_BZ14", "starmap_vc", "osmfish", "mob")
FEW_SPOTS = [f"{data}, {steps}" for data in ("mob", *SECTIONS) for steps in ("one step", "two steps")]
LINEAR, QUADRATIC, SOFTMAX = "spiking, linear order", "spiking, quadratic order", "scaled_dot_product_attention"

PARTS_OF_PRAGA = parts(
    (
        *("default", "untrained", "relu", "relu, weights float", "no attention", "no blocks"),
        *(f"encoder {name}" for name in ("ssa", "sdt1", "sdt2", "sdt3", "qk_token", "qk_channel", "dssa")),
        *("residual sew", "graph fusion conv", "no fusion", "edges free", "edges uniform"),
        *("weights float", "weights 8 bits", "weights 2 bits", "weights learned", "levels 3", "levels 9", "layers 2"),
        *("attention of two scales", "prototypes 0.1", "all epochs"),
    ),
    "method",
)


def ablation(column: str) -> Table:
    datasets = parts(("r1", "151673", "starmap_BZ5", "osmfish"), "dataset")
    return Table("ablation.csv", "method", PARTS_OF_PRAGA, datasets, column=column, digits=3, counts=True)


def _joined(values: pd.Series) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


TABLES: dict[str, Table] = {
    "simulated": Table(
        "domains.csv",
        "method",
        parts(
            (
                *("pca", *SMOOTH, "hops3", "spatialglue", "praga_10x", "dense_10x", "praga_spots", "dense_spots"),
                *("praga_simulation", "dense_simulation", "spatial_components", "praga_spike"),
            ),
            "method",
        ),
        parts(("r1", "r2"), "dataset"),
        column="ari",
        digits=3,
        counts=True,
    ),
    "tissue": Table(
        "domains.csv",
        "data",
        parts((*EIGHT, "hln_protein", *SECTIONS), "dataset"),
        [
            *parts(("pca", *SMOOTH), "method"),
            *parts(RECIPE, "method"),
            *parts(("hops3", "spatial_components", "praga_10x", "praga_spots", "praga_spike"), "method"),
        ],
        column="ari",
        digits=3,
        counts=True,
    ),
    "few spots": Table(
        "few_spots.csv",
        "data",
        [*parts(FEW_SPOTS, "dataset"), Part("mean", FEW_SPOTS)],
        [
            Part("agreement: 20 components", method="20 components", column="agreement"),
            Part("fewer", method="default", column="agreement"),
            Part("labels: 20 components", method="20 components", column="ari"),
            Part("fewer", method="default", column="ari"),
        ],
        digits=3,
    ),
    "two modalities": Table(
        "domains.csv",
        "method",
        parts(("pca", *SMOOTH, "hops3", "spatialglue", "spatial_components", "praga_spike"), "method"),
        parts(
            (
                *("151673_he", "151675_he", "sim_noise", "sim_batches", "sim_uneven", "sim_one_modality"),
                "sim_mixture",
            ),
            "dataset",
        ),
        column="ari",
        digits=3,
        counts=True,
    ),
    "graphst": Table(
        "domains.csv",
        "data",
        [
            *parts((*EIGHT, *SECTIONS), "dataset"),
            Part("mean of the first eight", EIGHT),
            Part("mean of the six sections of HER2ST", SECTIONS),
            Part("mean of all fourteen", (*EIGHT, *SECTIONS)),
        ],
        [
            *parts(SMOOTH, "method"),
            *parts(RECIPE, "method"),
            *parts(("spatial_components", "praga_spike", "graphst"), "method"),
        ],
        column="ari",
        digits=3,
        counts=True,
    ),
    "released": Table(
        "domains.csv",
        "data",
        parts(("151673", "starmap_BZ5", "starmap_BZ9", "starmap_BZ14", "mob", "her2st_A1", "her2st_B1"), "dataset"),
        parts(("released_dense", "graphst_dense", "released_sparse", "graphst_sparse"), "method"),
        column="ari",
        digits=3,
        counts=True,
    ),
    "graphst time": Table(
        "graphst_scaling.csv",
        "spots",
        parts({str(n): f"{n:,}" for n in (1000, 2000, 4000, 8000, 30000, 100000)}, "dataset"),
        [
            *parts(
                {
                    "default, 10 epochs": "default",
                    "dense, 10 epochs": "`dense`",
                    "released dense, 3 epochs": "released, dense",
                    "sparse, 10 epochs": "`sparse`",
                    "released sparse, 3 epochs": "released, sparse",
                },
                "method",
            ),
            Part("MiB: default", method="default, 10 epochs", column="process_peak_mib", digits=0),
            Part("released, dense", method="released dense, 3 epochs", column="process_peak_mib", digits=0),
            Part("released, sparse", method="released sparse, 3 epochs", column="process_peak_mib", digits=0),
        ],
        column="s_epoch",
    ),
    "contrast": Table(
        "graphst_contrast.csv",
        "data | loss",
        [
            Part(f"{dataset} | {method}", dataset, method)
            for dataset in EIGHT[:-1]
            for method in (
                *("reconstruction alone", "bce 10, 0.1", "bce 10, 0.1, weight decay", "bce 10, 1"),
                *("pairwise 1, 0.5", "infonce 1, 0.5", "published, reconstruction alone", "published"),
            )
        ],
        parts({"macro_f1": "macro-F1", "ari": "ARI", "pcc_held_out": "correlation per gene"}, "column"),
        digits=3,
        counts=True,
    ),
    "parts": ablation("ari"),
    "parts error": ablation("validation_error"),
    "parts seconds": ablation("cpu_seconds"),
    "owed to spikes": Table(
        "ablation.csv",
        "data",
        parts(("r1", "151673", "starmap_BZ5", "osmfish"), "dataset"),
        parts(
            {
                "ari": "ARI",
                "ari_silent": "spikes zero: ARI",
                "ari_redrawn": "weights redrawn: ARI",
                "change_redrawn": "change",
                "ari_blocks_redrawn": "blocks redrawn: ARI",
                "change_blocks_redrawn": "change",
            },
            "column",
        ),
        method="default",
        digits=3,
        counts=True,
    ),
    "packing": Table(
        "quantization.csv",
        "weights",
        parts(
            {"float": "float", "8 bits": "8 bits", "4 bits": "4 bits", "2 bits": "2 bits", "learned": "learned, 4"},
            "method",
        ),
        [
            Part("bits", column="mean_bits", digits=2),
            Part("KB: folded", column="bytes_folded", unit=1e-3, digits=0),
            Part("packed", column="bytes_packed", unit=1e-3, digits=0),
            Part("ms: trained", column="ms_trained", digits=1),
            Part("folded", column="ms_folded", digits=1),
            Part("packed", column="ms_packed", digits=1),
            Part("ARI", column="ari", digits=3),
            Part("packed", column="ari_packed", digits=3),
        ],
        dataset="r1",
    ),
    "domain count": Table(
        "domain_count.csv",
        "true",
        parts({f"default_{n}": str(n) for n in (3, 5, 8, 12)}, "dataset"),
        [Part("found, one slice a seed", column="found", show=_joined)],
        method="graph",
    ),
    "scaling": Table(
        "scaling.csv",
        "spots",
        parts({str(n): f"{n:,}" for n in (1000, 2000, 4000, 10000, 30000, 100000)}, "dataset"),
        [
            Part("s an epoch", method="ours, 20 epochs", column="s_epoch", digits=4),
            Part("peak MiB", method="ours, 20 epochs", column="process_peak_mib", digits=0),
            Part("dense: s an epoch", method="dense, 5 epochs", column="s_epoch", digits=4),
            Part("dense: peak MiB", method="dense, 5 epochs", column="process_peak_mib", digits=0),
        ],
    ),
    "attention": Table(
        "spiking_attention.csv",
        "rows",
        parts({str(n): f"{n:,}" for n in (1000, 2000, 4000, 10000, 30000, 100000)}, "dataset"),
        [
            Part("linear order, ms", method=LINEAR, column="attention_seconds", unit=1000),
            Part("quadratic order, s", method=QUADRATIC, column="attention_seconds"),
            Part(f"`{SOFTMAX}`, s", method=SOFTMAX, column="attention_seconds"),
            Part("MiB beside the input: linear", method=LINEAR, column="beside_mib"),
            Part("quadratic", method=QUADRATIC, column="beside_mib"),
            Part("softmax", method=SOFTMAX, column="beside_mib"),
        ],
    ),
    "packed": Table(
        "packed_linear.csv",
        "rows, map",
        parts(
            {
                f"{n} x {shape}": f"{n:,}, {shape}"
                for n in (4000, 20_000, 100_000)
                for shape in ("64 to 64", "64 to 128", "50 to 64", "3000 to 64")
                if (n, shape) != (100_000, "3000 to 64")
            },
            "dataset",
        ),
        [
            Part(f"{name}, ms", method="threads=1", column=f"ms_{form}")
            for name, form in (
                ("trained", "trained"),
                ("floating", "floating"),
                ("packed", "packed"),
                ("first call", "first_packed"),
            )
        ]
        + [
            Part(f"2 threads: {name}", method="threads=2", column=f"ms_{form}")
            for name, form in (("floating", "floating"), ("packed", "packed"))
        ],
    ),
}
