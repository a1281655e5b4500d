from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from stomics_tools._compat import columns_as_given
from stomics_tools.cli._annotation import Annotation


@pytest.fixture
def mdata() -> MuData:
    adata = AnnData(np.ones((24, 2)))
    adata.obsm["spatial"] = np.stack(np.unravel_index(np.arange(24), (4, 6)), axis=1).astype(float)
    with columns_as_given():
        return MuData({"rna": adata})


def annotate(mdata, **keys) -> Annotation:
    return Annotation.of(mdata, **({"spatial_key": "spatial", "label_key": None, "batch_key": None} | keys))


def test_nothing_there(mdata):
    found = annotate(mdata)
    assert (found.label_key, found.labels, found.slice_key, found.slices, found.n_slices) == (None, None, None, None, 1)
    np.testing.assert_array_equal(found.coordinates, mdata["rna"].obsm["spatial"])


def test_usual_names_in_their_order(mdata):
    mdata["rna"].obs["cell_type"] = ["a", "b"] * 12
    assert annotate(mdata).label_key == "cell_type"
    mdata["rna"].obs["layer"] = ["1", "2", "3"] * 8
    assert annotate(mdata).label_key == "layer"
    mdata.obs["domain"] = ["x", "y"] * 12
    found = annotate(mdata)
    assert found.label_key == "domain"
    assert found.labels.tolist() == ["x", "y"] * 12
    assert annotate(mdata, label_key="layer").labels.tolist() == ["1", "2", "3"] * 8


def test_columns_without_variety_are_passed_over(mdata):
    mdata["rna"].obs["layer"] = "one"
    mdata["rna"].obs["pathology"] = pd.Categorical([None] * 24)
    mdata["rna"].obs["slice"] = "one"
    mdata["rna"].obs["section"] = [None] + ["a", "b"] * 11 + ["a"]
    mdata["rna"].obs["batch"] = ["p", "q"] * 12
    found = annotate(mdata)
    assert found.label_key is None
    assert (found.slice_key, found.n_slices) == ("batch", 2)


def test_the_graph_joins_no_two_slices(mdata):
    mdata["rna"].obs["slice"] = ["one"] * 12 + ["two"] * 12
    graph = annotate(mdata).graph().tocoo()
    assert graph.nnz == 24 * 6
    assert ((graph.row < 12) == (graph.col < 12)).all()


def test_errors(mdata):
    mdata["rna"].obs["layer"] = "one"
    with pytest.raises(ValueError, match="`label_key`: column 'layer' holds 1 different labels"):
        annotate(mdata, label_key="layer")
    with pytest.raises(KeyError, match="`label_key`: key 'lair' not found"):
        annotate(mdata, label_key="lair")
    with pytest.raises(KeyError, match="`spatial_key`: key 'xy' not found"):
        annotate(mdata, spatial_key="xy")
    with pytest.raises(KeyError, match="`batch_key`: key 'slide' not found"):
        annotate(mdata, batch_key="slide")
