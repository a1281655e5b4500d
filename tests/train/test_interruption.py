"""An interrupted training raises, and the process goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import lightning.pytorch as pl
import pytest

from stomics_tools.datasets import simulate_multiomics
from stomics_tools.model import GraphST


class Interrupt(pl.Callback):
    """What Ctrl-C does, in the third epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def handler() -> Iterator[object]:
    """Python's own handler: processes that run tests side by side ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_interruption_is_raised_and_can_happen_again(handler: object) -> None:
    adata = simulate_multiomics(n_obs=100, n_domains=3, modalities=["rna"], seed=0)["rna"]
    GraphST.setup_anndata(adata)
    model = GraphST(adata, n_latent=4)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            model.train(5, callbacks=[Interrupt()], enable_progress_bar=False)
        assert signal.getsignal(signal.SIGINT) is handler
    assert "X_graphst" not in adata.obsm
    model.train(5, enable_progress_bar=False)
    assert len(model.history["train_loss"]) == 5
