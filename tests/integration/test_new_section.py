"""A section of cortex that neither the model nor the recipe has seen, labelled by the sections of training."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

import stomics_tools as st


def test_labels_reach_a_section_prepared_by_the_recipe_of_training(data_dir: Path) -> None:
    whole = ad.read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    last = (whole.obs["section"] == sorted(whole.obs["section"].unique())[-1]).to_numpy()
    training, new = whole[~last].copy(), whole[last].copy()
    st.pp.rna(training)
    st.model.PRAGASpike.setup_anndata(training, {"rna": "X_pca"}, batch_key="section")
    model = st.model.PRAGASpike(training)
    model.train(seed=0, enable_progress_bar=False)
    known = KNeighborsClassifier(15).fit(model.get_latent_representation(), training.obs["region"])
    of_counts = model.get_latent_representation(new)
    st.pp.rna(new, reference=training)
    latent = model.get_latent_representation(new)
    np.testing.assert_array_equal(of_counts, latent)
    assert np.mean(known.predict(latent) == new.obs["region"]) >= 0.93
