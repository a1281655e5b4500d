"""All models on a GPU against the CPU: losses, outputs, saving and loading, resuming, devices; and seconds.

python benchmarks/gpu_check.py [--device cuda] [--size 1.0]

Ends within ten minutes. Exit code: 0 if all checks pass, 1 if one fails, 2 if there is no such device. With
``--device cpu`` the CPU stands for both.

Tolerances. Losses of the first epoch: relative 1e-3 (the same weights, drawn on the CPU) where no random number is drawn
on the device, else 0.1. Mean loss of the later half of the epochs: relative 0.05, else 0.25. Latent representation after
saving on the device and loading on the CPU: 1e-3 of its standard deviation, and the same for a run that was resumed
against one that was not (sums on a GPU have no fixed order).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from _small_models import MAKE, train

# Spots, epochs, and whether random numbers are drawn on the device of training.
CASES = {
    "PRAGA": (5_000, 20, False),
    "PRAGASpike": (5_000, 20, False),
    "GraphST": (3_000, 40, False),
    "VARST": (600, 6, True),
    "MaskedDiffusion": (600, 8, True),
}
OPTIONS: dict[str, dict[str, Any]] = {"GraphST": {"dropout": 0.0}, "VARST": {"scales": (1, 4, 16)}}


class Keep(pl.Callback):
    """Copies the checkpoints there are when half of the epochs are over."""

    def __init__(self, folder: Path, kept: Path) -> None:
        self.folder, self.kept = folder, kept

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == trainer.max_epochs // 2:
            shutil.copytree(self.folder, self.kept, dirs_exist_ok=True)


def losses(model: Any) -> np.ndarray:
    """Training loss of every epoch, of the last stage."""
    names = [name for name in model.history if name.endswith("train_loss")]
    return model.history[names[-1]][names[-1]].to_numpy()


def check(name: str, accelerator: str, kind: str, size: float, folder: Path) -> bool:
    """Train `name` on both, and print a line a check."""
    from stomics_tools.train import resolve_device

    n_obs, n_epochs, random = CASES[name]
    device = resolve_device(accelerator)

    def trained(where: str, **how: Any) -> tuple[Any, float]:
        model = MAKE[name](int(n_obs * size), **OPTIONS.get(name, {}))
        start = time.perf_counter()
        train(model, n_epochs, accelerator=where, **how)
        return model, time.perf_counter() - start

    trained(accelerator)  # what is compiled or read at first use
    reference, cpu_seconds = trained("cpu")
    model, seconds = trained(
        accelerator,
        checkpoint_dir=folder / "run",
        checkpoint_every=1,
        callbacks=[Keep(folder / "run", folder / "half")],
    )
    passed = True

    def tell(what: str, value: Any, limit: Any, good: bool) -> None:
        nonlocal passed
        passed &= bool(good)
        print(f"{'ok  ' if good else 'FAIL'} {name:16} {what:42} {value} (limit {limit})", flush=True)

    print(f"     {name:16} seconds: {kind} {seconds:.1f}, cpu {cpu_seconds:.1f}")
    tell("device after training", model.device, device, model.device == device)
    ours, theirs = losses(model), losses(reference)
    first = abs(ours[0] / theirs[0] - 1)
    tell("loss of the first epoch", f"{first:.1e}", 0.1 if random else 1e-3, first < (0.1 if random else 1e-3))
    later = abs(ours[n_epochs // 2 :].mean() / theirs[n_epochs // 2 :].mean() - 1)
    tell("loss of the later epochs", f"{later:.1e}", 0.25 if random else 0.05, later < (0.25 if random else 0.05))

    latent = model.get_latent_representation()
    tell("latent is finite", latent.shape, "finite", np.isfinite(latent).all())
    model.save(folder / "saved")
    try:
        loaded = type(model).load(folder / "saved", model.adata, accelerator="cpu")
    except TypeError:  # versions that load onto the CPU always
        loaded = type(model).load(folder / "saved", model.adata)
    tell("device after loading", loaded.device, "cpu", loaded.device.type == "cpu")
    apart = np.abs(loaded.get_latent_representation() - latent).max() / latent.std()
    tell("latent after loading on the CPU", f"{apart:.1e}", 1e-3, apart < 1e-3)
    resumed, _ = trained(accelerator, ckpt_path=folder / "half")
    apart = np.abs(resumed.get_latent_representation() - latent).max() / latent.std()
    tell("latent of a resumed run", f"{apart:.1e}", 1e-3, apart < 1e-3)
    return passed


def main() -> int:
    """Check all models."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", type=float, default=1.0, help="factor of the numbers of spots")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA device on this machine. `--device cpu` lets the CPU stand for it.")
        return 2
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if options.device == 'cuda' else 'CPU for both'}")
    passed = True
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            try:
                passed &= check(name, options.device, options.device, options.size, Path(folder))
            except Exception as error:  # noqa: BLE001  the other models are checked all the same
                print(f"FAIL {name:16} {type(error).__name__}: {error}", flush=True)
                passed = False
    print("all checks passed" if passed else "some checks failed")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
