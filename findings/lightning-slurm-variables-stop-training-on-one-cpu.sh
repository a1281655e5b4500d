#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0
# A script runs in a batch job of several tasks, started without `srun`, and trains on one CPU. Lightning takes the
# environment of the cluster even for one device and raises RuntimeError because SLURM_NTASKS is set; `devices=1` and
# `accelerator="cpu"` change nothing. `plugins=[LightningEnvironment()]` does.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet torch==2.13.0 lightning==2.6.6
export SLURM_NTASKS=4 SLURM_JOB_ID=1 SLURM_JOB_NAME=train
"$place/env/bin/python" -W ignore - << 'PYTHON'
import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import LightningEnvironment

def outcome(**kwargs):
    try:
        pl.Trainer(accelerator="cpu", devices=1, logger=False, **kwargs)
    except RuntimeError as error:
        return str(error).split(" in your")[0]
    return "made"

found = outcome(), outcome(plugins=[LightningEnvironment()])
print(found)
assert found == ("You set `--ntasks=4`", "made")
PYTHON
