"""Trains models of batches on N devices: ``python several_devices.py N [notebook]``.

As a script it is started by Lightning once a device; as a notebook it says that it is one. What each process has seen and
found lies in ``<rank>.npz`` of the working directory afterwards.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

if "notebook" in sys.argv:
    sys.ps1 = "In : "

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

import stomics_tools as st
from stomics_tools.train import MiniBatchPlan, fit, row_batches


class Watch(pl.Callback):
    """Rates of learning, and a mark of each row."""

    def __init__(self, mark: str) -> None:
        self.mark, self.seen, self.rates, self.world_size = mark, [], [], 0

    def on_train_batch_start(self, trainer: pl.Trainer, plan: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.world_size = trainer.world_size
        self.seen.append(batch[self.mark].double().flatten(1).sum(1).cpu())
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "rates": self.rates, "world_size": self.world_size}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)

    def result(self, name: str) -> dict[str, Any]:
        return {f"{name}_seen": torch.cat(self.seen).numpy(), f"{name}_rates": self.rates}


class Keep(pl.Callback):
    """A copy of the checkpoint of two epochs."""

    def on_train_epoch_start(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        if trainer.current_epoch == 2 and trainer.is_global_zero and Path("diffusion/last.ckpt").exists():
            shutil.copy("diffusion/last.ckpt", "half.ckpt")
        trainer.strategy.barrier()


class Line(nn.Module):
    """A straight line."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"train_loss": (self.slope * batch["x"] - batch["y"]).square().mean()}


def tables(history: dict[str, Any], name: str) -> dict[str, Any]:
    return {f"{name}_{key}": table[key].to_numpy() for key, table in history.items()}


def train_line(devices: int, how: dict[str, Any]) -> dict[str, Any]:
    """The same number of rows a step whatever the number of devices."""
    x = torch.linspace(0, 1, 48)[:, None]
    line, watch = Line(), Watch("x")
    plan = MiniBatchPlan(line, lambda parameters: torch.optim.SGD(parameters, lr=0.3), meta={})
    loader = row_batches({"x": x, "y": 3 * x}, 12 // devices, seed=7)
    history = fit(plan, loader, max_epochs=3, seed=7, callbacks=[watch], **how)
    return {**watch.result("line"), **tables(history, "line"), "slope": line.slope.item()}


def train_var_st(how: dict[str, Any]) -> dict[str, Any]:
    adata = st.datasets.simulate_histology(seed=0)[::20].copy()
    st.model.VARST.setup_anndata(adata, "X_image", patient_key="patient", section_key="section")
    model = st.model.VARST(adata, size="tiny", scales=(1, 4))
    watches = Watch("expression"), Watch("expression")
    stages = {f"stage{i + 1}": {"batch_size": 16, "callbacks": [watch]} for i, watch in enumerate(watches)}
    model.train(**stages, max_epochs=4, checkpoint_dir="var_st", checkpoint_every=1, accumulate_grad_batches=2, **how)
    found = {**watches[0].result("stage1"), **watches[1].result("stage2"), **tables(model.history, "var_st")}
    return {**found, "prediction": model.predict(adata), "world_size": watches[0].world_size}


def train_diffusion(how: dict[str, Any]) -> dict[str, Any]:
    cells = st.datasets.simulate_sections(seed=0)[::20].copy()
    st.model.MaskedDiffusion.setup_anndata(cells, batch_key="section")

    def trained(**more: Any) -> st.model.MaskedDiffusion:
        model = st.model.MaskedDiffusion(cells, width=16, n_heads=2, n_layers=1, n_hidden=16, n_window=64)
        model.train(6, lr=1e-2, **more, **how)
        return model

    watch = Watch("latent")
    model = trained(checkpoint_dir="diffusion", checkpoint_every=1, callbacks=[watch, Keep()])
    found = {**watch.result("diffusion"), **tables(model.history, "diffusion")}
    resumed = trained(ckpt_path="half.ckpt", callbacks=[Watch("latent")])
    return {
        **found,
        "latent": model.get_latent_representation(),
        "resumed": resumed.get_latent_representation(),
        **tables(resumed.history, "resumed"),
    }


def main(devices: int) -> None:
    if "LOCAL_RANK" in os.environ:
        torch.set_num_threads(1)
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    fitted = {"accelerator": "cpu", "devices": devices, "enable_progress_bar": False}
    how = {**fitted, "key_added": None}
    found = {**train_line(devices, fitted), **train_var_st(how), **train_diffusion(how)}
    found["threads"] = torch.get_num_threads() - threads
    found["variable"] = os.environ.get("OMP_NUM_THREADS") == variable
    np.savez(os.environ.get("LOCAL_RANK", "0") + ".npz", **found)


if __name__ == "__main__":
    main(int(sys.argv[1]))
