"""An argument that the other arguments leave without any effect is refused, not passed over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stomics_tools.model import GraphST, PRAGASpike

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    adata = AnnData(rng.poisson(4, size=(100, 20)).astype(np.float32))
    adata.obsm["spatial"] = rng.uniform(size=(100, 2))
    adata.obsm["X_pca"], adata.obsm["X_protein"] = rng.normal(size=(100, 10)), rng.normal(size=(100, 6))
    graph = sparse.csr_matrix((rng.uniform(size=(100, 100)) < 0.05).astype(float))
    adata.obsp["ready"] = graph + graph.T
    return adata


@pytest.mark.parametrize(
    ("argument", "others"),
    [
        ({"bit_budget": 3.0}, {}),
        ({"bit_budget": 3.0}, {"weight_bits": "float"}),
        ({"temperature": 0.5}, {}),
        ({"prototype_start": 10}, {}),
        ({"prototype_every": 7}, {"prototype_weight": 0.0}),
        ({"n_heads": 2}, {"use_attention": False}),
        ({"attention_windows": (None, 10)}, {"encoder": "sdt3"}),
        ({"attention_windows": (10,)}, {"encoder": "ssa"}),
        ({"n_levels": 3}, {"encoder": "relu"}),
        ({"n_copies": 3}, {"encoder": "relu"}),
        ({"n_steps": 2}, {}),
        ({"n_steps": 2}, {"encoder": "sdt3"}),
        ({"n_steps": 2}, {"encoder": "ssa", "use_attention": False}),
        ({"reparameterize": True}, {"n_layers": 0}),
        ({"residual": "sew"}, {"n_layers": 0}),
        ({"graph_fusion": "conv"}, {"use_fusion": False}),
        ({"graph_fusion": "conv"}, {"n_feature_neighbors": 0}),
        ({"ema_decay": 0.5}, {"homogeneity_weight": 0.0}),
        ({"ema_decay": 0.5}, {"edges": "uniform"}),
        ({"homogeneity_weight": 0.2}, {"edges": "uniform"}),
        ({"n_feature_neighbors": 5}, {"use_fusion": False}),
        ({"layer_scale": 0.1}, {"n_layers": 0}),
    ],
    ids=str,
)
def test_praga_spike(adata: AnnData, argument: dict[str, Any], others: dict[str, Any]) -> None:
    PRAGASpike.setup_anndata(adata, {"rna": "X_pca", "protein": "X_protein"})
    PRAGASpike(adata, **others)
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}=.*` has no effect unless .*Leave it out"):
        PRAGASpike(adata, **argument, **others)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weight_bits": "learned", "bit_budget": 3.0},
        {"prototype_weight": 0.1, "temperature": 0.5, "prototype_start": 10, "prototype_every": 10},
        {"n_heads": 4},
        {"n_prototypes": 4},  # also of `get_prototypes`
        {"encoder": "relu", "n_heads": 4, "attention_windows": (None, 10), "reparameterize": True},
        {"encoder": "ssa", "n_steps": 2, "reparameterize": True, "n_levels": 3},
        {"edges": "uniform", "homogeneity_weight": 0.0},  # turned off, as it is
        {"encoder": "relu", "n_layers": 0, "weight_bits": 2},
        {"use_fusion": False, "n_feature_neighbors": 0},
        {"n_layers": 0, "n_feature_neighbors": 5, "ema_decay": 0.5},
    ],
    ids=str,
)
def test_praga_spike_takes_what_has_an_effect(adata: AnnData, arguments: dict[str, Any]) -> None:
    PRAGASpike.setup_anndata(adata, {"rna": "X_pca", "protein": "X_protein"})
    PRAGASpike(adata, **arguments)


def test_a_ready_graph_leaves_no_neighbors_to_be_found(adata: AnnData) -> None:
    PRAGASpike.setup_anndata(adata, {"rna": "X_pca"}, spatial_graph_key="ready", feature_graph_keys={"rna": "ready"})
    with pytest.raises(ValueError, match="`n_spatial_neighbors=4` has no effect unless"):
        PRAGASpike(adata, n_spatial_neighbors=4)
    with pytest.raises(ValueError, match="`n_feature_neighbors=4` has no effect unless"):
        PRAGASpike(adata, n_feature_neighbors=4)
    with pytest.raises(ValueError, match="`feature_graph_keys=.* has no effect unless `use_fusion=True`"):
        PRAGASpike(adata, use_fusion=False)
    PRAGASpike(adata)
    GraphST.setup_anndata(adata, spatial_graph_key="ready")
    with pytest.raises(ValueError, match="`n_spatial_neighbors=4` has no effect unless"):
        GraphST(adata, n_spatial_neighbors=4)


def test_weight_of_a_teacher_that_is_not_there(adata: AnnData) -> None:
    PRAGASpike.setup_anndata(adata, {"rna": "X_pca"})
    model = PRAGASpike(adata, n_latent=8, distill_weight=2.0)
    with pytest.raises(ValueError, match="`distill_weight` has no effect without a teacher"):
        model.train(1, **QUIET)
    teacher = PRAGASpike(adata, n_latent=8)
    teacher.train(1, **QUIET)
    model.train(1, distill_from=teacher, **QUIET)


@pytest.mark.parametrize(
    ("argument", "others"),
    [
        ({"temperature": 0.1}, {}),
        ({"n_negatives": 4}, {"contrast": "pairwise"}),
        ({"corruption_rate": 0.3}, {}),
        ({"corruption_rate": 0.3}, {"contrast_weight": 0.0}),
        ({"contrast": "infonce"}, {"contrast_weight": 0.0}),
        ({"corruption": "noise"}, {"contrast_weight": 0.0}),
        ({"temperature": 0.07}, {"preset": "dense"}),
    ],
    ids=str,
)
def test_graphst(adata: AnnData, argument: dict[str, Any], others: dict[str, Any]) -> None:
    GraphST.setup_anndata(adata)
    (name,) = argument
    with pytest.raises(ValueError, match=f"`{name}=.*` has no effect unless .*Leave it out"):
        GraphST(adata, **argument, **others)
    GraphST(adata, contrast="infonce", temperature=0.1, n_negatives=4, corruption="masking", corruption_rate=0.3)


def test_a_number_of_genes_beside_their_names(adata: AnnData) -> None:
    with pytest.raises(ValueError, match="`n_top_genes=5` has no effect unless `genes` is None"):
        GraphST.setup_anndata(adata, genes=["0", "1"], n_top_genes=5)
    GraphST.setup_anndata(adata, genes=["0", "1"])


def test_a_second_training_of_graphst_takes_nothing_from_the_first(adata: AnnData) -> None:
    GraphST.setup_anndata(adata)
    model, seen = GraphST(adata), []
    model._fit = lambda **given: seen.append({**given, **given["train_args"]})  # type: ignore[method-assign]
    model.train(3, lr=0.5, weight_decay=0.1, patience=2, clip_grad=1.0, scheduler="cosine")
    model.train()
    names = ("max_epochs", "lr", "weight_decay", "patience", "clip_grad", "scheduler")
    assert tuple(seen[1][name] for name in names) == (200, 1e-3, 0.0, None, None, None)
