"""Weights of PRAGASpike in floating point, 8, 4, 2 and learned bits: agreement, size, time, spikes. See README.md."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from _data import SLICES, Simulation, prepare
from _runs import Runs
from domains import quiet, score, train_model
from mudata import MuData
from tables import RESULTS, print_tables
from torch import nn

from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike._quantize import compare_forms
from stomics_tools.model.praga_spike._results import latent_of
from stomics_tools.nn import fold_all, mean_bits

FORMS = ("trained", "folded", "packed")
RESULT_COLUMNS = (
    "ari",
    "ari_packed",
    "mean_bits",
    *(f"bytes_{form}" for form in FORMS),
    *(f"ms_{form}" for form in FORMS),
    *(f"difference_{form}" for form in FORMS[1:]),
    "firing_rate",
    "energy_estimate_mj",
    "floating_energy_estimate_mj",
)
WEIGHT_BITS = ("float", 8, 4, 2, "learned")
REPEATS = 20


@dataclass(frozen=True)
class Setting:
    """How a slice is run; the large one is there for times alone."""

    seeds: int = 3
    epochs: int | None = None
    scored: bool = True


SETTINGS = {"r1": Setting(), "151673": Setting(), "sim_20000": Setting(seeds=1, epochs=10, scored=False)}


@lru_cache(maxsize=1)
def slice_of(name: str) -> MuData:
    large = Simulation({"n_obs": 20_000, "n_domains": 8})
    mdata = (large if name == "sim_20000" else SLICES[name]).read(0)
    prepare(mdata, "default")
    return mdata


def forms_table(model: PRAGASpike) -> pd.DataFrame:
    """Of floating-point weights, which cannot be packed."""
    inputs, known = model._inputs(None)
    forms = {"trained": model.module, "folded": fold_all(model.module)}
    return compare_forms(forms, lambda module: latent_of(module, inputs, trained_on=known), REPEATS)


def ari(model: PRAGASpike, name: str, seed: int) -> float:
    if not SETTINGS[name].scored:
        return np.nan
    return score(slice_of(name), model.get_latent_representation(), seed)["ari"]


def evaluate(name: str, bits: str | int, seed: int, epochs: int | None) -> dict[str, float]:
    model = train_model(PRAGASpike, slice_of(name), seed, epochs, weight_bits=bits)
    trained = ari(model, name, seed)
    inner = [part for name, part in model.module.named_children() if name not in ("encoders", "decoder")]
    mean = np.nan if bits == "float" else mean_bits(nn.ModuleList(inner))  # maps from and to features have 8
    spikes = model.spike_stats().loc["total"]
    table = forms_table(model) if bits == "float" else model.quantize(n_repeats=REPEATS)
    table = table.reindex(FORMS)
    return {
        "ari": trained,
        "ari_packed": np.nan if bits == "float" else ari(model, name, seed),
        "mean_bits": mean,
        **{f"bytes_{form}": table.loc[form, "bytes"] for form in FORMS},
        **{f"ms_{form}": 1e3 * table.loc[form, "seconds"] for form in FORMS},
        **{f"difference_{form}": table.loc[form, "relative_difference"] for form in FORMS[1:]},
        **{column: spikes[column] for column in RESULT_COLUMNS[-3:]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--bits", nargs="+", choices=[str(bits) for bits in WEIGHT_BITS])
    parser.add_argument("--seeds", type=int, help="seeds of every slice (default: see README.md)")
    parser.add_argument("--epochs", type=int, help="epochs of every slice (default: see README.md)")
    parser.add_argument("--out", type=Path, default=RESULTS / "quantization.csv")
    arguments = parser.parse_args()
    quiet()
    runs = Runs(arguments.out, RESULT_COLUMNS)
    for name in arguments.data:
        setting = SETTINGS[name]
        epochs = arguments.epochs or setting.epochs
        for seed in range(arguments.seeds or setting.seeds):
            for bits in WEIGHT_BITS:
                if arguments.bits is None or str(bits) in arguments.bits:
                    label = bits if isinstance(bits, str) else f"{bits} bits"
                    runs.run(name, label, seed, partial(evaluate, name, bits, seed, epochs))
    print()
    print_tables(arguments.out)


if __name__ == "__main__":
    main()
