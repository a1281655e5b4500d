from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.figure import Figure

from stomics_tools import pl

TABLE = pd.DataFrame(
    {
        "usage": [0.25, 1.0, 1.0],
        "n_codes": [64.0, 64.0, 64.0],
        "perplexity": [8.0, 48.0, 50.0],
        "n_dead": [48.0, 0.0, 0.0],
        "n_tokens": [32.0, 256.0, 288.0],
    },
    index=pd.Index(["1", "8", "all"], name="scale"),
)


@pytest.fixture
def adata() -> AnnData:
    return AnnData(np.ones((4, 2)), uns={"var_st": {"codebook": TABLE.copy()}, "other": {"params": {}}})


def test_bars_are_the_table(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    for data in (adata, anndata.read_h5ad(tmp_path / "a.h5ad")):
        ax = pl.codebook_usage(data, show=False)
        usage, perplexity = ax.containers
        np.testing.assert_allclose([bar.get_height() for bar in usage], [0.25, 1, 1])
        np.testing.assert_allclose([bar.get_height() for bar in perplexity], [0.125, 0.75, 50 / 64])
        (lines,) = ax.collections
        np.testing.assert_allclose([segment[0, 1] for segment in lines.get_segments()], [0.5, 1, 1])
        assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "8", "all"]
        assert [t.get_text() for t in ax.texts] == ["8", "48", "50"]
        assert [t.get_text() for t in ax.get_legend().get_texts()] == ["most there can be", "usage", "perplexity"]
        for line, bar in zip(lines.get_segments(), perplexity, strict=True):
            np.testing.assert_allclose(line[:, 0], [bar.get_x(), bar.get_x() + bar.get_width()], atol=1e-9)


def test_what_is_returned(adata):
    _, ax = plt.subplots()
    assert pl.codebook_usage(adata, ax=ax, show=False) is ax
    figure = pl.codebook_usage(adata, ax=ax, return_fig=True)
    assert isinstance(figure, Figure)
    assert figure is ax.get_figure()
    assert pl.codebook_usage(adata, show=True) is None


def test_the_object_is_not_written(adata):
    pl.codebook_usage(adata, show=False)
    assert set(adata.uns) == {"var_st", "other"}
    pd.testing.assert_frame_equal(adata.uns["var_st"]["codebook"], TABLE)


def test_errors(adata):
    with pytest.raises(KeyError, match="`key`: key 'var_sr' not found.*Did you mean 'var_st'"):
        pl.codebook_usage(adata, key="var_sr")
    with pytest.raises(KeyError, match=r"`key`: key 'codebook' not found in `adata.uns\['other'\]`"):
        pl.codebook_usage(adata, key="other")
