"""Time and memory of spiking attention in linear and in quadratic order, beside softmax attention, for 1k to 100k rows.

python benchmarks/spiking_attention.py [--sizes 1000 2000 ...] [--limit 60] [--out benchmarks/results/spiking_attention.csv]

One forward pass on one thread, 8 heads of 8, spikes at a rate of 0.2, float32. Every row is measured in a process of its
own; the two quadratic forms go by blocks of 256 rows. See README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from _runs import Runs, in_a_new_process, peak_mib
from torch import Tensor
from torch.nn import functional as F

from stomics_tools.nn import spiking_attention

HEADS, WIDTH, RATE, BLOCK = 8, 8, 0.2, 256
RESULTS = ("attention_seconds", "beside_mib", "left_out_seconds")
LEAST_SECONDS, MOST_CALLS = 1.0, 20


def softmax_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return torch.cat(
        [F.scaled_dot_product_attention(rows, keys, values) for rows in queries.split(BLOCK, dim=-2)], dim=-2
    )


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "spiking, linear order": partial(spiking_attention, order="linear"),
    "spiking, quadratic order": partial(spiking_attention, order="quadratic", n_rows=BLOCK),
    "scaled_dot_product_attention": softmax_attention,
}


@torch.no_grad()
def measure(form: str, n_rows: int, seed: int, limit: float) -> dict[str, float]:
    """Median seconds of a call and its memory beside the input; or how long it would take, if longer than `limit`."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    attend = FORMS[form]
    warm_up = torch.ones(1, HEADS, 64, WIDTH)
    attend(warm_up, warm_up, warm_up)
    queries, keys, values = (torch.empty(1, HEADS, n_rows, WIDTH).bernoulli_(RATE) for _ in range(3))
    before = peak_mib()
    if form != "spiking, linear order":
        expected = min(seconds_of(attend, queries[..., :BLOCK, :], keys, values) for _ in range(2)) * n_rows / BLOCK
        if expected > limit:
            return {"left_out_seconds": expected}
    ticks: list[float] = []
    while not ticks or (sum(ticks) < LEAST_SECONDS and len(ticks) < MOST_CALLS):
        ticks.append(seconds_of(attend, queries, keys, values))
    return {"attention_seconds": median(ticks), "beside_mib": peak_mib() - before}


def seconds_of(attend: Callable[..., Tensor], *inputs: Tensor) -> float:
    start = time.perf_counter()
    attend(*inputs)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000, 10_000, 30_000, 100_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds; what would take longer is left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "spiking_attention.csv")
    parser.add_argument("--one", nargs=4, metavar=("FORM", "N_ROWS", "SEED", "LIMIT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        form, n_rows, seed, limit = args.one
        print(json.dumps(measure(form, int(n_rows), int(seed), float(limit))))
        return
    runs = Runs(args.out, RESULTS)
    for n_rows in args.sizes:
        for form in FORMS:
            for repeat in range(args.repeats):
                job = partial(in_a_new_process, __file__, form, n_rows, repeat, args.limit)
                runs.run(str(n_rows), form, repeat, job)


if __name__ == "__main__":
    main()
