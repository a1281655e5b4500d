"""How often models read the object: once for setup, once for training, once for each later result."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import dask
import dask.array as da
import numpy as np
import pytest
from anndata import AnnData
from anndata.abc import CSRDataset
from mudata import MuData
from scipy import sparse

from stomics_tools.data import Modality, Spots
from stomics_tools.model import PRAGA, GraphST, PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"n_latent": 8}


class Reads:
    """Lazy arrays whose computations are counted: what lies behind them is read as often."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def lazy(self, name: str, values: np.ndarray) -> da.Array:
        """The same values, from a source that counts."""

        def read() -> np.ndarray:
            self.counts[name] += 1
            return values

        return da.from_delayed(dask.delayed(read, pure=False)(), shape=values.shape, dtype=values.dtype)

    @contextmanager
    def expected(self, what: str, n: int, names: set[str]) -> Iterator[None]:
        """Each array is read `n` times within."""
        self.counts.clear()
        yield
        assert self.counts == dict.fromkeys(names, n) if n else not self.counts, what


def _lazy(adata: AnnData, reads: Reads) -> AnnData:
    for key in MODALITIES.values():
        adata.obsm[key] = reads.lazy(key, np.asarray(adata.obsm[key], dtype=np.float32))
    return adata


def _life(
    cls: Any, data: AnnData | MuData, setup: Callable[[], None], reads: Reads, names: set[str], tmp_path: Path
) -> None:
    """From setup to a loaded model, all reads counted."""
    with reads.expected("setup", 1, names):
        setup()
    with reads.expected("constructor", 0, names):
        model = cls(data, **SMALL)
    with reads.expected("train and its results", 1, names):
        model.train(2, **QUIET)
    with reads.expected("latent", 1, names):
        latent = model.get_latent_representation()
    with reads.expected("results", 1, names):
        model.write_results(key_added="again")
    with reads.expected("a second training", 1, names):
        model.train(1, key_added=None, early_stopping=False, **QUIET)
    with reads.expected("save", 0, names):
        model.save(tmp_path / "model")
    with reads.expected("load", 1, names):
        loaded = cls.load(tmp_path / "model", data)
    with reads.expected("latent of the loaded model", 1, names):
        again = loaded.get_latent_representation()
    assert np.abs(again - latent).max() > 0  # it was trained further in between
    with reads.expected("module before training", 1, names):
        _ = cls(data, **SMALL).module


@pytest.mark.parametrize("cls", [PRAGA, PRAGASpike])
@pytest.mark.parametrize("batch_key", [None, "slice"])
def test_anndata_is_read_once_for_each(adata: AnnData, cls: Any, batch_key: str | None, tmp_path: Path) -> None:
    reads = Reads()
    lazy = _lazy(adata, reads)
    names = set(MODALITIES.values())
    _life(cls, lazy, lambda: cls.setup_anndata(lazy, MODALITIES, batch_key=batch_key), reads, names, tmp_path)


@pytest.mark.parametrize("cls", [PRAGA, PRAGASpike])
def test_mudata_is_read_once_for_each(mdata: MuData, cls: Any, tmp_path: Path) -> None:
    reads = Reads()
    for name, key in MODALITIES.items():
        values = np.asarray(mdata[name].obsm[key], dtype=np.float32)
        mdata[name].obsm[key] = reads.lazy(key, values)
    names = set(MODALITIES.values())
    _life(cls, mdata, lambda: cls.setup_mudata(mdata, MODALITIES), reads, names, tmp_path)


@pytest.mark.parametrize("genes", [None, [f"{i}" for i in range(6)]])
@pytest.mark.parametrize("n_top_genes", [3000, 5])
def test_graphst_reads_once_for_each(adata: AnnData, genes: list[str] | None, n_top_genes: int, tmp_path: Path) -> None:
    reads = Reads()
    adata.layers["lazy"] = reads.lazy("lazy", adata.X.toarray())
    chosen = {"genes": genes} if genes else {"n_top_genes": n_top_genes}
    _life(GraphST, adata, lambda: GraphST.setup_anndata(adata, "lazy", **chosen), reads, {"lazy"}, tmp_path)


def test_a_matrix_backed_by_a_file_is_read_once_for_each(adata: AnnData, tmp_path: Path, monkeypatch: Any) -> None:
    adata.X = sparse.csr_matrix(adata.X)
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    reads, original = Counter(), type(backed.X).to_memory
    assert isinstance(backed.X, CSRDataset)
    monkeypatch.setattr(type(backed.X), "to_memory", lambda self: reads.update(["X"]) or original(self))
    GraphST.setup_anndata(backed)
    assert reads["X"] == 1
    model = GraphST(backed, n_latent=4)
    assert reads["X"] == 1
    model.train(1, **QUIET)
    assert reads["X"] == 2


def test_a_view_is_read_once(adata: AnnData) -> None:
    reads = Reads()
    view = _lazy(adata, reads)[:100]
    with reads.expected("setup", 1, set(MODALITIES.values())):
        PRAGASpike.setup_anndata(view, MODALITIES)
    assert not view.is_view
    assert view.n_obs == 100
    PRAGASpike(view, n_latent=8).train(1, **QUIET)
    assert view.obsm["X_praga_spike"].shape == (100, 8)


@pytest.mark.parametrize("cls", [PRAGA, PRAGASpike])
def test_what_changed_after_setup_is_met_in_training(adata: AnnData, cls: Any) -> None:
    cls.setup_anndata(adata, MODALITIES)
    model = cls(adata, n_latent=8)
    before = adata.obsm["X_pca"].copy()
    adata.obsm["X_pca"][3, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 rows of `adata.obsm\['X_pca'\]` are NaN in part \(first: row 3\)"):
        model.train(1, **QUIET)
    adata.obsm["X_pca"] = before[:, :5]
    with pytest.raises(ValueError, match="'rna'.*20 features, found 5"):
        model.train(1, **QUIET)
    adata.obsm["X_pca"] = before
    adata.obsm["spatial"][:] = 0.0
    with pytest.raises(ValueError, match="`spatial_key`.*the same coordinates"):
        model.train(1, **QUIET)
    assert not model.is_trained_


def test_what_changed_after_setup_is_what_is_trained_on(adata: AnnData) -> None:
    """No values of setup are kept: training takes those that are there."""
    latents = []
    for change in (False, True):
        data = adata.copy()
        if not change:
            data.obsm["X_pca"] = data.obsm["X_pca"][:, ::-1] * 2
        PRAGASpike.setup_anndata(data, MODALITIES)
        model = PRAGASpike(data, n_latent=8)
        if change:
            data.obsm["X_pca"] = data.obsm["X_pca"][:, ::-1] * 2
        model.train(2, **QUIET)
        latents.append(data.obsm["X_praga_spike"])
    np.testing.assert_array_equal(*latents)


def test_slices_that_shrank_after_setup_are_met_in_training(adata: AnnData) -> None:
    PRAGASpike.setup_anndata(adata, MODALITIES, batch_key="slice")
    model = PRAGASpike(adata, n_latent=8)
    adata.obs["slice"] = np.where(np.arange(adata.n_obs) < 3, "a", "b")
    with pytest.raises(ValueError, match="`n_spatial_neighbors=6` needs at least 7 spots.*found a slice with 3"):
        model.train(1, **QUIET)


def test_nothing_of_the_data_outlives_setup(adata: AnnData) -> None:
    def held() -> int:
        gc.collect()
        return sum(isinstance(thing, Modality | Spots) for thing in gc.get_objects())

    before = held()
    PRAGASpike.setup_anndata(adata, MODALITIES)
    model = PRAGASpike(adata, n_latent=8)
    assert held() == before
    spots = model._read(None)
    assert held() == before + 1 + len(spots.modalities)  # what is looked for would be found
