"""``stomics spatial-components``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

import stomics_tools as st
from stomics_tools.cli import main
from stomics_tools.cli._files import write_output

KEY = "X_spatial_components"


def run(*arguments) -> int:
    return main(["spatial-components", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A slice of RNA and protein as h5mu and zarr, its RNA as h5ad and zarr."""
    folder = tmp_path_factory.mktemp("slices")
    mdata = st.datasets.simulate_multiomics(n_obs=150, n_domains=3, n_batches=2, seed=1)
    for name, data in (
        ("both.h5mu", mdata),
        ("both.zarr", mdata),
        ("rna.h5ad", mdata["rna"]),
        ("rna.zarr", mdata["rna"]),
    ):
        write_output(data, folder / name)
    return folder


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("both.h5mu", "out.h5mu", MuData),
        ("both.h5mu", "out.zarr", MuData),
        ("both.zarr", "out.h5mu", MuData),
        ("rna.h5ad", "out.h5ad", AnnData),
        ("rna.h5ad", "out.h5mu", MuData),
        ("rna.zarr", "out.zarr", AnnData),
    ],
)
def test_every_format_is_read_and_written(place, tmp_path, capsys, source, target, kind):
    assert run(place / source, "--output", tmp_path / target) == 0
    assert [path.name for path in tmp_path.iterdir()] == [target]
    result = st.datasets.read_slice(tmp_path / target)
    assert isinstance(result, kind)
    assert result.obsm[KEY].shape == (150, len(result.uns["spatial_components"]["eigenvalues"]))
    assert result.obs["spatial_components_domain"].nunique() == 3
    assert result.uns["spatial_components"]["params"]["batch_key"] == "slice"
    out = capsys.readouterr().out
    assert "150 spots in 2 slices by 'slice'" in out
    assert "3 in obs['spatial_components_domain'], as many as labels in 'domain'; 'domain': ARI" in out


def test_it_is_as_in_python(place, tmp_path):
    options = ("--n-components", 4, "--n-neighbors", 5, "--n-hops", 2, "--signal-threshold", 0.2, "--n-domains", 4)
    assert run(place / "both.h5mu", "--output", tmp_path / "out.h5mu", *options, "--seed", 3) == 0
    found = st.datasets.read_slice(tmp_path / "out.h5mu")
    mdata = st.datasets.read_slice(place / "both.h5mu")
    st.pp.rna(mdata["rna"], seed=3)
    st.pp.protein(mdata["protein"], seed=3)
    st.tl.spatial_components(mdata, batch_key="slice", n_components=4, n_neighbors=5, n_hops=2, signal_threshold=0.2)
    st.tl.spatial_domains(mdata, 4, use_rep=KEY, seed=3)
    np.testing.assert_array_equal(found.obsm[KEY], mdata.obsm[KEY])
    assert found.obs["spatial_components_domain"].tolist() == mdata.obs["spatial_domain"].tolist()


@pytest.mark.parametrize(("source", "target"), [("both.h5mu", "out.h5mu"), ("rna.h5ad", "out.h5ad")])
def test_a_reference_gives_the_same_rows(place, tmp_path, capsys, source, target):
    first, second = tmp_path / target, tmp_path / f"again{Path(target).suffix}"
    assert run(place / source, "--output", first) == 0
    assert run(place / source, "--reference", first, "--output", second) == 0
    assert f"those of {first}" in capsys.readouterr().out
    one, two = st.datasets.read_slice(first), st.datasets.read_slice(second)
    np.testing.assert_array_equal(one.obsm[KEY], two.obsm[KEY])


def test_a_single_slice_is_put_to_a_fit_on_several(place, tmp_path, capsys):
    assert run(place / "rna.h5ad", "--output", tmp_path / "first.h5ad") == 0
    adata = st.datasets.read_slice(place / "rna.h5ad")
    single = adata[adata.obs["slice"] == adata.obs["slice"].iloc[0]].copy()
    del single.obs["slice"]
    single.write_h5ad(tmp_path / "single.h5ad")
    where = ("--reference", tmp_path / "first.h5ad", "--output", tmp_path / "out.h5ad")
    assert run(tmp_path / "single.h5ad", *where) == 0
    assert "no obs['slice'] that told slices apart in training: taken as one slice" in capsys.readouterr().out
    whole = st.datasets.read_slice(tmp_path / "first.h5ad")[single.obs_names]
    np.testing.assert_allclose(st.datasets.read_slice(tmp_path / "out.h5ad").obsm[KEY], whole.obsm[KEY], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n-hops", "2"), "`n_hops` is of a fit, but `reference` names one that is there"),
        (("--modalities", "rna"), "`modalities` is of a fit"),
        (("--reference", "nowhere.h5ad"), "`reference`: no such file 'nowhere.h5ad'"),
        ((), "no entry of its `uns` was written by `tl.spatial_components`"),
        (("--overwrite", "--output"), "is the reference and would be overwritten"),
    ],
)
def test_mistakes_about_references(place, tmp_path, capsys, options, message):
    reference = tmp_path / "first.h5ad"
    st.datasets.read_slice(place / "rna.h5ad").write_h5ad(reference)
    options = (*options, reference) if options[-1:] == ("--output",) else options
    output = () if "--output" in options else ("--output", tmp_path / "out.h5ad")
    before = reference.read_bytes()
    assert run(place / "rna.h5ad", "--reference", reference, *output, *options) == 1
    assert message in capsys.readouterr().err
    assert reference.read_bytes() == before
    assert not (tmp_path / "out.h5ad").exists()


def test_bad_numbers_are_named(place, tmp_path, capsys):
    assert run(place / "rna.h5ad", "--output", tmp_path / "out.h5ad", "--signal-threshold", 3) == 1
    assert "`signal_threshold` must be in [0.0, 1.0]" in capsys.readouterr().err.replace("[0, 1]", "[0.0, 1.0]")
    assert run(place / "rna.h5ad", "--output", tmp_path / "out.h5ad", "--n-neighbors", 75) == 1
    assert "told apart by obs['slice']" in capsys.readouterr().err
