"""Time of a packed linear map beside the same in floating point and in training form, for 4k to 100k rows. See README.md.

python benchmarks/packed_linear.py [--sizes 4000 ...] [--threads 1 2] [--out benchmarks/results/packed_linear.csv]
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from _runs import Runs
from torch import Tensor, nn

from stomics_tools.nn import PackedLinear, QuantLinear, fold_all

SHAPES = ((64, 64), (64, 128), (50, 64), (3000, 64))
FORMS = ("trained", "folded", "floating", "packed", "first_packed")
RESULTS = (*(f"ms_{form}" for form in FORMS), "max_abs_difference", "bytes_floating", "bytes_packed")
BITS, LEVELS = 4, 5
LEAST_SECONDS, MOST_TURNS = 5.0, 50
MOST_VALUES = 10**8
"""Of an input; larger ones are left out."""


@torch.no_grad()
def measure(n_rows: int, n_in: int, n_out: int, n_threads: int, seed: int) -> dict[str, float]:
    """Fastest call of each form, which take turns: the machine may have other work."""
    torch.set_num_threads(n_threads)
    torch.manual_seed(seed)
    trained = nn.Sequential(QuantLinear(n_in, n_out, bias=False, bits=BITS), nn.BatchNorm1d(n_out)).eval()
    folded = fold_all(trained)
    packed = PackedLinear.of(folded)
    floating = nn.Linear(n_in, n_out)
    floating.weight.data, floating.bias.data = folded.used_weight, folded.bias.data
    x = torch.randint(0, LEVELS, (n_rows, n_in)) / (LEVELS - 1)

    def first_packed(x: Tensor) -> Tensor:
        packed.release()
        return packed(x)

    forms = {
        "trained": trained,
        "folded": folded,
        "floating": floating,
        "packed": packed,
        "first_packed": first_packed,
    }
    ticks: dict[str, list[float]] = {name: [] for name in forms}
    start = time.perf_counter()
    while (
        len(ticks["packed"]) < MOST_TURNS and time.perf_counter() - start < LEAST_SECONDS or not ticks["first_packed"]
    ):
        for name, form in forms.items():
            before = time.perf_counter()
            form(x)
            ticks[name].append(1e3 * (time.perf_counter() - before))
    return {
        **{f"ms_{name}": min(values) for name, values in ticks.items()},
        "max_abs_difference": float((packed(x) - floating(x)).abs().max()),
        "bytes_floating": sum(p.numel() * p.element_size() for p in floating.parameters()),
        "bytes_packed": packed.n_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4000, 20_000, 100_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "packed_linear.csv")
    args = parser.parse_args()
    runs = Runs(args.out, RESULTS)
    for n_rows in args.sizes:
        for n_in, n_out in SHAPES:
            if n_rows * n_in > MOST_VALUES:
                continue
            for n_threads in args.threads:
                for seed in range(args.repeats):
                    job = partial(measure, n_rows, n_in, n_out, n_threads, seed)
                    runs.run(f"{n_rows} x {n_in} to {n_out}", f"threads={n_threads}", seed, job)


if __name__ == "__main__":
    main()
