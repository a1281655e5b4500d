"""On real slices: without spikes nothing is left of the latent, and other weights give another one."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData
from scipy.linalg import orthogonal_procrustes
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stomics_tools import pp
from stomics_tools.model import PRAGASpike
from stomics_tools.nn import LIFNode, Multispike

SLICES = {
    "starmap_BZ5": ({"rna": "starmap_mpfc_3sections"}, "region", "20180417_BZ5_control"),
    "visual_cortex": ({"rna": "starmap_visual_cortex"}, "layer", None),
    "r1": ({"rna": "sim_spamosaic_r1_rna", "protein": "sim_spamosaic_r1_adt"}, "gt", None),
}


def _read(folder: Path, name: str) -> MuData:
    files, label, section = SLICES[name]
    parts = {}
    for modality, file in files.items():
        adata = ad.read_h5ad(folder / f"{file}.h5ad")
        if section is not None:
            adata = adata[adata.obs["section"] == section].copy()
        parts[modality] = ad.AnnData(
            adata.X, obs=adata.obs[[label]], obsm={"spatial": np.asarray(adata.obsm["spatial"])}
        )
        parts[modality].var_names = [f"{modality}:{gene}" for gene in adata.var_names]
        (pp.rna if modality == "rna" else pp.protein)(parts[modality])
    mdata = MuData(parts)
    mdata.obsm["spatial"] = parts["rna"].obsm["spatial"]
    mdata.obs["truth"] = parts["rna"].obs[label].astype(object)
    return mdata


@pytest.fixture(scope="module", params=SLICES)
def trained(request: pytest.FixtureRequest, data_dir: Path) -> tuple[PRAGASpike, np.ndarray, str]:
    """A model of 5 epochs, the labels of its spots, and the name of the slice."""
    mdata = _read(data_dir, request.param)
    PRAGASpike.setup_mudata(
        mdata, {"rna": "X_pca", "protein": "X_protein"} if "protein" in mdata.mod else {"rna": "X_pca"}
    )
    model = PRAGASpike(mdata)
    model.train(5, key_added=None, enable_progress_bar=False, accelerator="cpu")
    return model, mdata.obs["truth"].to_numpy(), request.param


def _ari(latent: np.ndarray, truth: np.ndarray) -> float:
    known = pd.notna(truth)
    n = len(set(truth[known]))
    mixture = GaussianMixture(n, covariance_type="diag", n_init=3, reg_covar=1e-4, random_state=0)
    found = mixture.fit_predict(latent[:, latent.std(0) > 0])
    return adjusted_rand_score(truth[known], found[known])


def test_without_spikes_nothing_is_left(trained):
    model, *_ = trained
    latent = model.get_latent_representation()
    hooks = [
        part.register_forward_hook(lambda _, __, y: torch.zeros_like(y))
        for part in model.module.modules()
        if isinstance(part, Multispike | LIFNode)
    ]
    assert len(hooks) > 5
    silent = model.get_latent_representation()
    for hook in hooks:
        hook.remove()
    # The same row for all spots, up to rounding: no clustering tells them apart (adjusted Rand index 0).
    assert np.ptp(silent, axis=0).max() < 1e-4 * latent.std(0).max()
    np.testing.assert_array_equal(model.get_latent_representation(), latent)


# Adjusted Rand index that random weights lose. The layers of the visual cortex are so wide that random directions, averaged
# over the graph, show them as well.
LOSS = {"starmap_BZ5": 0.2, "visual_cortex": 0.1, "r1": 0.2}


def test_other_weights_give_another_latent(trained):
    """All weights drawn from normal noise of their own mean and standard deviation."""
    model, truth, name = trained
    before = model.get_latent_representation().astype(float)
    state = {key: x.clone() for key, x in model.module.state_dict().items()}
    scores = []
    for seed in range(4):
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            for p in model.module.parameters():
                p.copy_(p.mean() + p.std(correction=0) * torch.randn_like(p))
        after = model.get_latent_representation().astype(float)
        model.module.load_state_dict(state)
        scores.append(_ari(after, truth))
        turn, overlap = orthogonal_procrustes(after, before)
        scale = overlap / np.square(after).sum()  # the best one: the same latent in another size is no other latent
        for turned in (after @ turn, scale * after @ turn):
            assert np.linalg.norm(turned - before) > 0.5 * np.linalg.norm(before)
    assert _ari(before, truth) - np.mean(scores) > LOSS[name]
