from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stomics_tools.datasets import simulate_histology
from stomics_tools.model import VARST
from stomics_tools.model.var_st._transformer import NextScaleTransformer


def trained(precision: str, **given: Any) -> VARST:
    spots = simulate_histology(2, 1, 60, n_genes=20, n_features=16)
    VARST.setup_anndata(spots, patient_key="patient", section_key="section")
    model = VARST(spots, size="tiny", **given)
    model.train(max_epochs=4, precision=precision, enable_progress_bar=False, key_added=None)
    return model


@pytest.mark.parametrize(
    "given", [{}, {"likelihood": "nb"}, {"quantizer": "ema"}, {"quantizer": "vq"}, {"head": "joint"}]
)
def test_bfloat16_learns_what_float32_learns(given: dict[str, str]) -> None:
    full, mixed = (trained(precision, **given) for precision in ("32-true", "bf16-mixed"))
    for name in ("stage1_reconstruction_loss", "stage2_mean_loss", "stage2_code_loss"):
        np.testing.assert_allclose(mixed.history_[name], full.history_[name], rtol=0.1)
    assert all(parameter.dtype == torch.float32 for parameter in mixed.module.parameters())
    np.testing.assert_allclose(mixed.predict(), full.predict(), atol=0.1)


def test_the_transformer_compiles_as_one_graph() -> None:
    torch.manual_seed(0)
    plain = NextScaleTransformer((1, 3), 4, 5, width=8, n_heads=2, n_layers=1, n_hidden=16, dropout=0.0)
    given = torch.randn(2, 8), torch.randn(2, 3, 4)
    compiled = torch.compile(plain, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), plain(*given))
