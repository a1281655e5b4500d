"""VARST in the dimensions of the published model on CPU: it builds, trains, saves, loads; memory and seconds a step.

python benchmarks/paper_size.py [--forms float32 bf16 compiled] [--batches 8]

256 spots of 1,024 features and 200 genes, by `datasets.simulate_histology`. Every row is measured in a process of its
own: a few steps of stage 1 in batches of 256 and of stage 2, then `save`, `load` and a prediction, which must be the same. "bf16" passes ``precision="bf16-mixed"`` to Lightning, "compiled" calls ``torch.compile`` on the transformer;
the first step, which compiles, is told apart (`first_step_s`). Columns `step1_s`, `step2_s`: median seconds of a step.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from _runs import Runs, in_a_new_process, peak_mib

FORMS = ("float32", "bf16", "compiled")
RESULTS = (
    "parameters",
    "step1_s",
    "step2_s",
    "first_step_s",
    "spots_per_s",
    "stage1_gib",
    "stage2_gib",
    "peak_gib",
    "folder_mib",
    "code_loss",
    "difference",
)


def measure(form: str, batch_size: int, n_steps: int) -> dict[str, float]:
    """Build, train both stages, save, load, predict."""
    from lightning.pytorch.callbacks import Callback

    import stomics_tools as st

    class Clock(Callback):
        def __init__(self) -> None:
            self.steps: list[float] = []

        def on_fit_start(self, trainer, pl_module):
            if form == "compiled":
                pl_module.module.networks.transformer.compile()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.start = time.perf_counter()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.steps.append(time.perf_counter() - self.start)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    spots = st.datasets.simulate_histology(2, 1, 128, n_genes=200, n_features=1024)
    st.model.VARST.setup_anndata(spots, patient_key="patient", section_key="section")
    model = st.model.VARST(spots, size="paper")
    shared: dict[str, object] = {"enable_progress_bar": False}
    if form == "bf16":
        shared["precision"] = "bf16-mixed"
    first, second = Clock(), Clock()
    model.train_stage1(max_epochs=n_steps, batch_size=256, callbacks=[first], **shared)
    stage1 = peak_mib()
    shared |= {"max_epochs": 1, "limit_train_batches": n_steps, "key_added": None}
    model.train_stage2(batch_size=batch_size, callbacks=[second], **shared)
    stage2 = peak_mib()
    expected = model.predict()
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        loaded = st.model.VARST.load(f"{folder}/model", spots)
    table = model.parameter_table()
    print(table.to_string(), file=sys.stderr)
    step = statistics.median(second.steps[1:])
    return {
        "parameters": int(table.loc["all", "parameters"]),
        "step1_s": statistics.median(first.steps[1:]),
        "step2_s": step,
        "first_step_s": second.steps[0],
        "spots_per_s": batch_size / step,
        "stage1_gib": stage1 / 1024,
        "stage2_gib": stage2 / 1024,
        "peak_gib": peak_mib() / 1024,
        "folder_mib": size / 2**20,
        "code_loss": float(model.history_["stage2_code_loss"].iloc[-1, 0]),
        "difference": float(np.abs(loaded.predict() - expected).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--batches", type=int, nargs="+", default=[8], help="batch sizes of stage 2")
    parser.add_argument("--steps", type=int, default=5, help="of either stage")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "paper_size.csv")
    parser.add_argument("--one", nargs=3, metavar=("FORM", "BATCH", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        form, batch_size, n_steps = arguments.one
        print(json.dumps(measure(form, int(batch_size), int(n_steps))))
        return
    runs = Runs(arguments.out, RESULTS)
    for batch_size in arguments.batches:
        for form in arguments.forms:
            for repeat in range(arguments.repeats):
                one = partial(in_a_new_process, __file__, form, batch_size, arguments.steps)
                runs.run(f"batch {batch_size}", form, repeat, one)


if __name__ == "__main__":
    main()
