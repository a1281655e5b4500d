"""Seconds an epoch and peak memory of PRAGASpike and of PRAGA, beside the dense n x n form while that fits.

python benchmarks/scaling.py [--sizes 1000 2000 ...] [--dense-up-to 2000] [--out benchmarks/results/scaling.csv]
python benchmarks/scaling.py --end-to-end 100000      # PRAGA: graphs, 100 epochs, domains
python benchmarks/scaling.py --default 100000         # PRAGASpike: graphs, 30 epochs at most, latent, domains

Two modalities of 50 features on a square lattice. Every row is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np
from _runs import Runs, in_a_new_process, peak_mib

FEATURES = 50
RESULTS = ("s_epoch", "s_training", "s_domains", "ari", "process_peak_mib")


def slice_of(n_obs: int):
    """Smooth tissue of eight domains in two modalities, each of which sees a part of them."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    side = int(np.ceil(n_obs**0.5))
    xy = np.stack(np.unravel_index(np.arange(n_obs), (side, side)), axis=1).astype(float)
    u, v = 2 * np.pi * xy.T / side
    waves = np.stack([np.sin(u + np.cos(v)), np.cos(v - np.sin(u)), np.sin(u + v)]) > 0
    adata = AnnData(np.zeros((n_obs, 1), dtype=np.float32), obsm={"spatial": xy * 100.0})
    adata.obs["truth"] = (waves * np.array([[1], [2], [4]])).sum(axis=0).astype(str)
    for name, seen in (("a", waves[:2]), ("b", waves[1:])):
        signal = seen.T.astype(float) @ rng.normal(size=(2, FEATURES)) + rng.normal(size=(n_obs, FEATURES))
        adata.obsm[name] = (signal - signal.mean(axis=0)).astype(np.float32)
    return adata


def measure_ours(n_obs: int, epochs: int, name: str = "PRAGA", **arguments: str) -> dict[str, float]:
    """Through the public interface."""
    from lightning.pytorch.callbacks import Callback
    from sklearn.metrics import adjusted_rand_score

    import stomics_tools as st

    class Clock(Callback):
        ticks: list[float] = []

        def on_train_epoch_end(self, trainer, pl_module):
            self.ticks.append(time.perf_counter())

    adata = slice_of(n_obs)
    start = time.perf_counter()
    cls = getattr(st.model, name)
    cls.setup_anndata(adata, {"a": "a", "b": "b"})
    model = cls(adata, **arguments)
    model.train(epochs, enable_progress_bar=False, callbacks=[Clock()], key_added="scaling")
    trained = time.perf_counter()
    st.tl.spatial_domains(adata, 8, use_rep="X_scaling")
    done = time.perf_counter()
    return {
        "s_epoch": float(np.median(np.diff(Clock.ticks))),
        "s_training": trained - start,
        "s_domains": done - trained,
        "ari": adjusted_rand_score(adata.obs["truth"], adata.obs["spatial_domain"]),
    }


def measure_dense(n_obs: int, epochs: int) -> dict[str, float]:
    """The n x n form."""
    import torch
    from dense_praga import SETTINGS, DensePraga

    adata = slice_of(n_obs)
    torch.manual_seed(0)
    features = [torch.from_numpy(adata.obsm[name]) for name in ("a", "b")]
    model = DensePraga(features, torch.from_numpy(adata.obsm["spatial"]), SETTINGS["spots"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-3)
    ticks = [time.perf_counter()]
    for epoch in range(epochs):
        optimizer.zero_grad()
        model.loss(epoch, 0).backward()
        optimizer.step()
        ticks.append(time.perf_counter())
    return {"s_epoch": float(np.median(np.diff(ticks)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 2000, 4000, 10_000, 30_000, 100_000])
    parser.add_argument("--dense-up-to", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1, help="measurements of each size")
    parser.add_argument("--end-to-end", type=int, help="one run of 100 epochs at this size")
    parser.add_argument("--default", type=int, nargs="+", help="30 epochs of PRAGASpike at most, at these sizes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scaling.csv")
    parser.add_argument("--one", nargs=3, metavar=("FORM", "N_OBS", "EPOCHS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        form, n_obs, epochs = args.one[0], int(args.one[1]), int(args.one[2])
        measures = {
            "dense": measure_dense,
            "ours": partial(measure_ours, data_type="spots"),
            "default": partial(measure_ours, name="PRAGASpike"),
        }
        result = measures[form](n_obs, epochs)
        print(json.dumps({**result, "process_peak_mib": peak_mib()}))
        return
    jobs = [("ours", n, args.epochs) for n in args.sizes]
    jobs += [("dense", n, 5) for n in args.sizes if n <= args.dense_up_to]
    if args.end_to_end:
        jobs = [("ours", args.end_to_end, 100)]
    if args.default:
        jobs = [("default", n, 30) for n in args.default]
    runs = Runs(args.out, RESULTS)
    for form, n_obs, epochs in jobs:
        for repeat in range(args.repeats):
            runs.run(
                str(n_obs), f"{form}, {epochs} epochs", repeat, partial(in_a_new_process, __file__, form, n_obs, epochs)
            )


if __name__ == "__main__":
    main()
