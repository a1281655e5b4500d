"""Training on several devices: here two processes on CPUs, as Lightning starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = """
import os
import numpy as np
import torch
import stomics_tools as st

torch.set_num_threads(1)
rng = np.random.default_rng(0)
adata = st.datasets.simulate_histology(seed=0)[::20].copy()
st.model.VARST.setup_anndata(adata, "X_image", patient_key="patient", section_key="section")
model = st.model.VARST(adata, size="tiny", scales=(1, 4))
sizes = {"max_epochs": 2, "batch_size": 16}
quiet = {"enable_progress_bar": False, "key_added": None}
model.train(stage1=sizes, stage2=sizes, accelerator="cpu", devices=2, **quiet)

cells = st.datasets.simulate_sections(seed=0)[::20].copy()
st.model.MaskedDiffusion.setup_anndata(cells, batch_key="section")
diffusion = st.model.MaskedDiffusion(cells, width=16, n_heads=2, n_layers=1, n_hidden=16, n_window=64)
diffusion.train(2, accelerator="cpu", devices=2, **quiet)


def total(module):
    return sum(value.double().sum().item() for value in module.state_dict().values() if value.is_floating_point())


np.savez(
    os.environ["LOCAL_RANK"] + ".npz",
    total=[total(model.module), total(diffusion.module)],
    world=torch.distributed.get_world_size(),
    prediction=model.predict(adata),
    latent=diffusion.get_latent_representation(),
)
"""


def test_two_processes_end_with_the_same_models(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("LOCAL_RANK", None)
    run = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    assert first["world"] == second["world"] == 2
    for name in ("total", "prediction", "latent"):
        np.testing.assert_array_equal(first[name], second[name])
        assert np.isfinite(first[name]).all(), name
