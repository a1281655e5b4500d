"""GraphST on a section of cortex, and on another one that it has not seen."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pytest
from anndata import AnnData

from stomics_tools.metrics import score_labels
from stomics_tools.model import GraphST
from stomics_tools.tl import evaluate_representation, spatial_domains

SECTIONS = ("20180417_BZ5_control", "20180419_BZ9_control")


@pytest.fixture
def sections(data_dir: Path) -> list[AnnData]:
    whole = ad.read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    return [whole[whole.obs["section"] == name].copy() for name in SECTIONS]


def test_layers_of_cortex_seen_and_unseen(sections: list[AnnData]) -> None:
    seen, unseen = sections
    GraphST.setup_anndata(seen)
    model = GraphST(seen)
    model.train(enable_progress_bar=False)
    model.write_results(unseen)
    for adata, least in ((seen, 0.75), (unseen, 0.5)):
        spatial_domains(adata, adata.obs["region"].nunique(), use_rep="X_graphst")
        assert score_labels(adata.obs["region"], adata.obs["spatial_domain"])["ari"] > least
        adata.obsm["genes"] = model.get_expression(adata).to_numpy()
        table = evaluate_representation(adata, "region", use_rep=["X_graphst", "genes"])
        learned, plain = table["macro_f1"]
        assert learned > max(plain, 0.7)
