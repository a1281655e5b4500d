"""The baselines on real tissue and on the published simulation, from counts to domains."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from stomics_tools.metrics import score_labels
from stomics_tools.pp import protein, rna, smooth
from stomics_tools.tl import spatial_components, spatial_domains


@pytest.fixture(scope="module")
def cortex(data_dir):
    a = ad.read_h5ad(data_dir / "dlpfc_151673.h5ad")
    rna(a, min_cells=10, target_sum=1e4, n_comps=20)
    return a


@pytest.mark.parametrize(("n_hops", "ari", "nmi"), [(0, 0.391, 0.540), (1, 0.590, 0.723), (3, 0.606, 0.735)])
def test_cortex(cortex, n_hops, ari, nmi):
    a = smooth(cortex, "X_pca", n_hops=n_hops, copy=True)
    spatial_domains(a, 7, use_rep="X_smooth")
    scores = score_labels(a.obs["layer"], a.obs["spatial_domain"])
    assert scores["ari"] == pytest.approx(ari, abs=0.01)
    assert scores["nmi"] == pytest.approx(nmi, abs=0.01)


def test_cortex_refined(cortex):
    spatial_domains(cortex, 7, use_rep="X_pca", refine=True)
    scores = score_labels(cortex.obs["layer"], cortex.obs["spatial_domain"])
    assert scores["ari"] == pytest.approx(0.466, abs=0.01)
    assert scores["nmi"] == pytest.approx(0.647, abs=0.01)


@pytest.mark.parametrize(
    ("section", "scale", "n_hops", "ari", "nmi"),
    [
        ("r1", False, 0, 0.740, 0.828),
        ("r1", False, 1, 0.958, 0.947),
        ("r1", True, 1, 0.956, 0.944),
        ("r2", False, 1, 0.972, 0.963),
    ],
)
def test_simulation(data_dir, section, scale, n_hops, ari, nmi):
    a = ad.read_h5ad(data_dir / f"sim_spamosaic_{section}_rna.h5ad")
    b = ad.read_h5ad(data_dir / f"sim_spamosaic_{section}_adt.h5ad")
    rna(a, n_comps=20, target_sum=1e4, scale=scale)
    protein(b, n_comps=20, scale=scale)
    a.obsm["both"] = np.column_stack([z / z.std() for z in (a.obsm["X_pca"], b.obsm["X_protein"])])
    smooth(a, "both", n_hops=n_hops)
    spatial_domains(a, 5, use_rep="X_smooth")
    scores = score_labels(a.obs["gt"], a.obs["spatial_domain"])
    assert scores["ari"] == pytest.approx(ari, abs=0.01)
    assert scores["nmi"] == pytest.approx(nmi, abs=0.01)


@pytest.mark.parametrize(("section", "at_least"), [("r1", 0.985), ("r2", 0.985)])
def test_spatial_components_of_two_modalities(data_dir, section, at_least):
    adata = ad.read_h5ad(data_dir / f"sim_spamosaic_{section}_rna.h5ad")
    other = ad.read_h5ad(data_dir / f"sim_spamosaic_{section}_adt.h5ad")
    rna(adata)
    protein(other)
    adata.obsm["X_protein"] = other.obsm["X_protein"]
    spatial_components(adata, {"rna": "X_pca", "protein": "X_protein"})
    spatial_domains(adata, 5, n_starts=5)
    assert score_labels(adata.obs["gt"], adata.obs["spatial_domain"])["ari"] > at_least


@pytest.mark.parametrize("n_comps", [20, 50])
@pytest.mark.parametrize("scale", [False, True])
def test_spatial_components_of_cells_from_any_recipe(data_dir, scale, n_comps):
    """Cells of a cortex: the same domains from five starts, above the averages over two steps, 0.44 to 0.87."""
    adata = ad.read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    adata = adata[adata.obs["section"] == "20180417_BZ5_control"].copy()
    rna(adata, n_comps=n_comps, target_sum=1e4, scale=scale)
    spatial_components(adata, "X_pca")
    spatial_domains(adata, 4, n_starts=5)
    assert score_labels(adata.obs["region"], adata.obs["spatial_domain"])["ari"] > 0.84


def test_cells_on_one_point(data_dir):
    """osmFISH has cells that share their coordinates."""
    a = ad.read_h5ad(data_dir / "osmfish_sscortex.h5ad")
    assert len(np.unique(a.obsm["spatial"], axis=0)) < a.n_obs
    rna(a, target_sum=1e4, n_comps=20)
    smooth(a, "X_pca")
    spatial_domains(a, 11, use_rep="X_smooth", n_starts=4)
    assert score_labels(a.obs["region"], a.obs["spatial_domain"])["nmi"] == pytest.approx(0.565, abs=0.05)
