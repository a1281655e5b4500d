"""What models write survives every file format, and is as good after reading as before."""

from __future__ import annotations

from collections.abc import Mapping

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from mudata import MuData
from scipy import sparse

import stomics_tools as st

N_FOUND = 3


def through_file(data, folder, kind="h5"):
    """Write an object, and read it by the function of its own library."""
    library, h5 = (md, "h5mu") if isinstance(data, MuData) else (ad, "h5ad")
    name = "zarr" if kind == "zarr" else h5
    path = folder / f"data.{name}"
    getattr(data.copy(), f"write_{name}")(path)
    return getattr(library, f"read_{name}")(path)


def assert_same(found, expected, where=""):
    """Values, types and names are the same; files turn lists into arrays."""
    if isinstance(expected, Mapping):
        assert set(found) == set(expected), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected, check_names=False, obj=where)
    elif sparse.issparse(expected):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        assert abs(found - expected).nnz == 0, where
    else:
        kinds = ["U" if np.asarray(v).dtype.kind in "OTU" else np.asarray(v).dtype.kind for v in (found, expected)]
        assert kinds[0] == kinds[1] or isinstance(expected, list), where  # zarr has a type of its own for text
        np.testing.assert_array_equal(found, expected, err_msg=where)


def assert_same_data(found, expected):
    if isinstance(expected, AnnData):
        parts = ("X", "var", "layers", "obs", "obsm", "obsp", "uns")
    else:
        parts = ("obsm", "obsp", "uns")
        assert_same(found.obs[expected.obs.columns], expected.obs, "obs")  # mudata before 0.4 adds columns
        for modality in expected.mod:
            assert_same_data(found[modality], expected[modality])
    for part in parts:
        assert_same(getattr(found, part), getattr(expected, part), part)


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_everything_is_read_as_it_was_written(each, tmp_path, kind):
    read = through_file(each.data, tmp_path, kind)
    assert f"X_{each.key}" in read.obsm
    assert "stomics_tools_version" in read.uns[each.key]["params"]
    assert_same_data(read, each.data)
    (path,) = tmp_path.iterdir()
    assert_same_data(st.datasets.read_slice(path), each.data)


def test_a_saved_model_goes_on_with_what_was_read(each, tmp_path):
    read = through_file(each.data, tmp_path)
    each.model.save(tmp_path / "model")
    loaded = type(each.model).load(tmp_path / "model", read)
    loaded.write_results(key_added="again")
    np.testing.assert_array_equal(loaded.get_latent_representation(), each.model.get_latent_representation())
    for part in ("obsm", "obsp", "layers"):
        now, before = (getattr(data, part, None) or {} for data in (read, each.data))
        for name in [name for name in before if each.key in str(name)]:
            assert_same(now[name.replace(each.key, "again")], now[name], name)


def test_domains_and_plots_of_what_was_read(each, tmp_path):
    data = each.data.copy()
    st.tl.spatial_domains(data, N_FOUND, use_rep=f"X_{each.key}", key_added="found")
    read = through_file(data, tmp_path)
    st.tl.spatial_domains(read, N_FOUND, use_rep=f"X_{each.key}", key_added="anew")
    assert read.obs["found"].tolist() == data.obs["found"].tolist() == read.obs["anew"].tolist()
    assert len(st.pl.domains(read, color="found", show=False).collections)
    plt.close("all")
