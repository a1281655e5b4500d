"""On one device nothing of a cluster matters: jobs of SLURM and of others train as a laptop does."""

from __future__ import annotations

import logging
import os
import signal
import warnings

import lightning.pytorch as pl
import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

import stomics_tools as st
import stomics_tools.model  # sets variables of its own

CLUSTERS = {
    "sbatch": {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "train"},
    "srun": {
        "SLURM_NTASKS": "4",
        "SLURM_NTASKS_PER_NODE": "4",
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "node[1-2]",
    },
    "torchrun": {
        "TORCHELASTIC_RUN_ID": "1",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
    },
    "LSF": {
        "LSB_JOBID": "1",
        "LSB_DJOB_RANKFILE": "/nowhere",
        "JSM_NAMESPACE_LOCAL_RANK": "1",
        "JSM_NAMESPACE_RANK": "1",
        "JSM_NAMESPACE_SIZE": "2",
    },
    "Kubeflow": {
        "KUBERNETES_PORT": "tcp://127.0.0.1:443",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
        "WORLD_SIZE": "16",
        "RANK": "1",
    },
}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "key_added": None}


class Watch(pl.Callback):
    """What holds while the model trains."""

    def __init__(self) -> None:
        self.world_size = 0
        self.requeue: object = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.world_size = trainer.world_size
        self.environment = trainer._accelerator_connector.cluster_environment
        self.requeue = signal.getsignal(signal.SIGUSR1)


def train_graphst(**how) -> None:
    adata = st.datasets.simulate_multiomics(n_obs=60, n_domains=3, modalities=["rna"], seed=0)["rna"]
    st.model.GraphST.setup_anndata(adata)
    st.model.GraphST(adata, n_latent=4).train(2, **QUIET, **how)


def train_praga_spike(**how) -> None:
    adata = st.datasets.simulate_multiomics(n_obs=60, n_domains=3, modalities=["protein"], seed=0)["protein"]
    st.pp.protein(adata)
    st.model.PRAGASpike.setup_anndata(adata, {"protein": "X_protein"})
    st.model.PRAGASpike(adata, n_latent=8, n_feature_neighbors=5).train(2, **QUIET, **how)


def train_var_st(**how) -> None:
    adata = st.datasets.simulate_histology(seed=0)[::40].copy()
    st.model.VARST.setup_anndata(adata, "X_image", patient_key="patient", section_key="section")
    st.model.VARST(adata, size="tiny", scales=(1, 4)).train(max_epochs=1, **QUIET, **how)


def train_masked_diffusion(**how) -> None:
    cells = st.datasets.simulate_sections(seed=0)[::40].copy()
    st.model.MaskedDiffusion.setup_anndata(cells, batch_key="section")
    model = st.model.MaskedDiffusion(cells, width=16, n_heads=2, n_layers=1, n_hidden=16, n_window=32)
    model.train(1, **QUIET, **how)


TRAIN = {
    "GraphST": train_graphst,
    "PRAGASpike": train_praga_spike,
    "VARST": train_var_st,
    "MaskedDiffusion": train_masked_diffusion,
}
CASES = [("sbatch", model) for model in TRAIN] + [(cluster, "GraphST") for cluster in CLUSTERS if cluster != "sbatch"]


def enter(monkeypatch: pytest.MonkeyPatch, cluster: str) -> None:
    for variables in CLUSTERS.values():
        for name in variables:
            monkeypatch.delenv(name, raising=False)
    for name, value in CLUSTERS[cluster].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("cluster", "model"), CASES)
def test_one_device_in_a_job(monkeypatch, caplog, cluster, model):
    enter(monkeypatch, cluster)
    before, watch = dict(os.environ), Watch()
    with warnings.catch_warnings(record=True) as told, caplog.at_level(logging.INFO):
        TRAIN[model](callbacks=[watch])
    assert watch.world_size == 1
    assert type(watch.environment) is LightningEnvironment
    assert watch.requeue is signal.SIG_DFL
    text = caplog.text + " ".join(str(warning.message) for warning in told)
    assert "srun" not in text
    assert "requeue" not in text.lower()
    assert {name: os.environ.get(name) for name in CLUSTERS[cluster]} == CLUSTERS[cluster]
    assert {name for name in os.environ if name not in before} == set()


def test_a_model_is_loaded_in_a_job(monkeypatch, tmp_path):
    adata = st.datasets.simulate_multiomics(n_obs=60, n_domains=3, modalities=["rna"], seed=0)["rna"]
    st.model.GraphST.setup_anndata(adata)
    model = st.model.GraphST(adata, n_latent=4)
    model.train(2, **QUIET)
    model.save(tmp_path / "model")
    enter(monkeypatch, "sbatch")
    assert st.model.GraphST.load(tmp_path / "model", adata, accelerator="cpu").device.type == "cpu"


def test_a_cluster_that_the_user_names_is_used(monkeypatch):
    enter(monkeypatch, "srun")
    watch = Watch()
    train_graphst(callbacks=[watch], plugins=[SLURMEnvironment(auto_requeue=False)])
    assert type(watch.environment) is SLURMEnvironment


def test_every_task_of_a_job_logs_what_it_trains(monkeypatch, tmp_path):
    enter(monkeypatch, "srun")
    monkeypatch.setattr(rank_zero_only, "rank", 3)  # what Lightning finds in SLURM_PROCID when it is imported
    train_graphst(logger=CSVLogger(tmp_path, name="", version=""))
    assert rank_zero_only.rank == 3
    assert pd.read_csv(tmp_path / "metrics.csv")["train_loss"].notna().sum() == 2
