"""Memory and time of the mean prediction of VARST for more and more tiles: memory beside the result is to stay the same.

python benchmarks/streaming.py [--tiles 1000 10000 50000 200000] [--widths 64 256]

50 genes, the size "tiny", trained for an epoch on simulated spots. Every row is measured in a process of its own, after
a prediction of 2,048 tiles: `beside_mib` is the peak of resident memory during `predict` less that before it and the
result; `traced_mib` the peak that Python's tracemalloc sees in a second call, less the result (not what torch holds).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
from _runs import Runs, in_a_new_process

N_GENES = 50
RESULTS = ("beside_mib", "traced_mib", "input_mib", "output_mib", "predict_seconds")
MIB = 2**20


def measure(n_tiles: int, width: int) -> dict[str, float]:
    """One prediction."""
    from anndata import AnnData

    import stomics_tools as st
    from stomics_tools.tl._peak_memory import PeakMemory

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    spots = st.datasets.simulate_histology(2, 1, 100, n_genes=N_GENES, n_features=width)
    st.model.VARST.setup_anndata(spots, patient_key="patient", section_key="section")
    model = st.model.VARST(spots, size="tiny")
    model.train(max_epochs=1, enable_progress_bar=False, key_added=None)
    rng = np.random.default_rng(0)

    def tiles(n: int) -> AnnData:
        return AnnData(obsm={"X_image": rng.standard_normal((n, width), dtype=np.float32)}, shape=(n, 0))

    model.predict(tiles(2048))
    data = tiles(n_tiles)
    with PeakMemory(interval=0.001) as memory:
        start = time.perf_counter()
        predicted = model.predict(data)
        seconds = time.perf_counter() - start
    output = predicted.nbytes / MIB
    del predicted
    tracemalloc.start()
    model.predict(data)
    traced = tracemalloc.get_traced_memory()[1] / MIB
    return {
        "beside_mib": memory.mib - output,
        "traced_mib": traced - output,
        "input_mib": data.obsm["X_image"].nbytes / MIB,
        "output_mib": output,
        "predict_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, nargs="+", default=[1000, 10_000, 50_000, 200_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "streaming.csv")
    parser.add_argument("--one", type=int, nargs=2, metavar=("TILES", "WIDTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    runs = Runs(arguments.out, RESULTS)
    for width in arguments.widths:
        for n_tiles in arguments.tiles:
            for repeat in range(arguments.repeats):
                one = partial(in_a_new_process, __file__, n_tiles, width)
                runs.run(f"{width} features", f"{n_tiles} tiles", repeat, one)


if __name__ == "__main__":
    main()
