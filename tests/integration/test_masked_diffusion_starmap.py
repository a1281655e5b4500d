"""Cells of a section of cortex that was held out, placed by their expression."""

from __future__ import annotations

import anndata
import numpy as np

import stomics_tools as st

SMALL = {"width": 32, "n_heads": 4, "n_layers": 1, "n_hidden": 64, "n_window": 600, "n_members": 2}


def test_cells_of_a_held_out_section_are_placed(data_dir):
    adata = anndata.read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    held_out = (adata.obs["section"] == "20180417_BZ5_control").to_numpy()
    train, test = adata[~held_out].copy(), adata[held_out].copy()
    truth = test.obsm.pop("spatial")
    st.model.MaskedDiffusion.setup_anndata(train, batch_key="section")
    model = st.model.MaskedDiffusion(train, **SMALL, n_regression_hidden=32)
    model.train(3, key_added=None, enable_progress_bar=False)
    st.tl.reconstruct_positions(test, model, n_samples=4, n_steps=5)
    drawn = model.sample(test, mode="expr_to_pos", n_steps=10)
    assert st.metrics.distance_spearman(truth, test.obsm["spatial_predicted"]) > 0.25
    assert 0.8 < st.metrics.gyration_ratio(truth, drawn) < 1.2
    assert np.isfinite(test.obsm["spatial_dispersion"]).all()
