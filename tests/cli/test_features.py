"""Which features the commands take, and what they say of the others."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import stomics_tools as st
from stomics_tools._compat import columns_as_given
from stomics_tools.cli import main
from stomics_tools.cli._features import usable_features
from stomics_tools.cli._files import write_output
from stomics_tools.cli._prepare import as_mudata

QUICK = ("--max-epochs", 1, "--accelerator", "cpu")


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def slice_of(**groups: tuple[str, int]) -> AnnData:
    """120 spots with counts of groups of features: name to feature type and number."""
    rng = np.random.default_rng(0)
    names = [f"{name}{i}" for name, (_, n) in groups.items() for i in range(n)]
    types = [kind for kind, n in groups.values() for _ in range(n)]
    rates = rng.gamma(1.0, 3.0, size=(3, len(names)))[np.arange(120) % 3]
    adata = AnnData(sparse.csr_matrix(rng.poisson(rates), dtype=np.float32))
    adata.obs_names = [f"cell{i}" for i in range(120)]
    adata.var_names = names
    adata.var["feature_types"] = types
    adata.obsm["spatial"] = np.stack(np.unravel_index(np.arange(120), (10, 12)), axis=1).astype(float)
    return adata


def xenium() -> AnnData:
    return slice_of(
        GENE=("Gene Expression", 60),
        PROT=("Protein Expression", 12),
        NegControlProbe_=("Negative Control Probe", 5),
        NegControlCodeword_=("Negative Control Codeword", 4),
        UnassignedCodeword_=("Unassigned Codeword", 3),
    )


def chosen(data, modality=None, keep=False):
    lines: list[str] = []
    data = usable_features(data, modality, keep_controls=keep, report=lines.append)
    return as_mudata(data, modality, report=lines.append), lines


def shapes(mdata: MuData) -> dict[str, int]:
    return {name: adata.n_vars for name, adata in mdata.mod.items()}


def test_genes_and_proteins_of_xenium():
    mdata, lines = chosen(xenium())
    assert shapes(mdata) == {"rna": 60, "protein": 12}
    assert mdata["protein"].var_names[0] == "PROT0"
    assert lines == [
        "left out control features: 5 'Negative Control Probe', 4 'Negative Control Codeword', "
        "3 'Unassigned Codeword' (`--keep-controls` keeps them)"
    ]
    mdata, lines = chosen(xenium(), keep=True)
    assert shapes(mdata) == {"rna": 72, "protein": 12}
    assert lines == []


@pytest.mark.parametrize(
    ("types", "expected", "said"),
    [
        (("Gene Expression", "Transcripts"), {"rna": 30}, []),
        (("Antibody Capture", "Protein Expression"), {"protein": 30}, []),
        (("GENE EXPRESSION", "Antibody Capture"), {"rna": 20, "protein": 10}, []),
        (("RNA", "Peaks"), {"rna": 20, "atac": 10}, []),
        (("Gene Expression", "Gene Activity"), {"rna": 20}, ["10 'Gene Activity'"]),
        (("Gene Expression", "Genomic Control"), {"rna": 20}, ["10 'Genomic Control'"]),
        (("protein", "CRISPR Guide Capture"), {"protein": 20}, ["10 'CRISPR Guide Capture'"]),
    ],
)
def test_types_by_their_whole_names(types, expected, said):
    mdata, lines = chosen(slice_of(a=(types[0], 20), b=(types[1], 10)))
    assert shapes(mdata) == expected
    assert said == [] or said[0] in lines[0]
    left_out = sum("left out" in line for line in lines)
    assert sum(expected.values()) + 10 * left_out == 30


def test_three_types_of_two_kinds_are_taken_together_and_said():
    mdata, lines = chosen(slice_of(a=("Gene Expression", 20), b=("Antibody Capture", 5), c=("RNA", 7)))
    assert shapes(mdata) == {"rna": 27, "protein": 5}
    assert lines == ["rna: the feature types ['Gene Expression', 'RNA'] taken together"]


def test_types_that_are_not_known_are_asked_about():
    metabolites = slice_of(m=("Metabolite", 20))
    with pytest.raises(ValueError, match=r"`modality`: the types of the features, \['Metabolite'\], are none .* rna"):
        chosen(metabolites)
    assert shapes(chosen(metabolites, "protein")[0]) == {"protein": 20}


def test_one_kind_of_several_by_name():
    assert shapes(chosen(xenium(), "protein")[0]) == {"protein": 12}
    assert shapes(chosen(xenium(), "rna")[0]) == {"rna": 60}


@pytest.mark.parametrize(
    ("control", "sort"),
    [
        ("BLANK_0069", "blank codeword"),
        ("Blank-12", "blank codeword"),
        ("NegControlProbe_00042", "negative control probe"),
        ("NegPrb03", "negative control probe"),
        ("Negative7", "negative control probe"),
        ("NegProbe-WTX", "negative control probe"),
        ("NegControlCodeword_0500", "negative control codeword"),
        ("SystemControl12", "system control"),
        ("FalseCode7", "false code"),
        ("antisense_PROKR2", "antisense"),
        ("Intergenic_Region_17", "genomic control"),
        ("DeprecatedCodeword_3", "deprecated codeword"),
        ("UnassignedCodeword_0001-1", "unassigned codeword"),
        ("ERCC-00002", "spike-in"),
    ],
)
def test_controls_by_their_names(control, sort):
    genes = ["NEGR1", "CTRL", "BLNK", "ERCC1", "ERCC6L2", "blanks", "AS3MT", "HOXA-AS2", "INTS1", "Neg", "FALZ"]
    adata = AnnData(np.ones((4, len(genes) + 1)))
    adata.var_names = [*genes, control]
    st.pp.drop_controls(adata)
    assert adata.var_names.tolist() == genes
    adata = AnnData(np.ones((4, 2)))
    adata.var_names, adata.var["feature_types"] = ["GENE", control], "Gene Expression"
    _, lines = chosen(adata)
    assert lines == [f"left out control features: 1 {sort!r} (`--keep-controls` keeps them)"]


def test_drop_controls_of_several_modalities():
    adata = slice_of(GENE=("Gene Expression", 8), NegPrb=("Gene Expression", 2))
    controls = slice_of(x=("whatever", 3))
    with columns_as_given():
        mdata = MuData({"rna": adata, "Negative Control Probe": controls})
    mdata.obs["group"] = np.arange(120) % 2
    mdata.obsm["place"] = np.arange(240).reshape(120, 2)
    with pytest.raises(TypeError, match="copy=True"):
        st.pp.drop_controls(mdata)
    kept = st.pp.drop_controls(mdata, copy=True)
    assert shapes(kept) == {"rna": 8}
    assert shapes(mdata) == {"rna": 10, "Negative Control Probe": 3}
    np.testing.assert_array_equal(kept.obsm["place"], mdata.obsm["place"])
    assert kept.obs["group"].tolist() == mdata.obs["group"].tolist()
    with pytest.raises(ValueError, match="All features are controls"):
        st.pp.drop_controls(AnnData(np.ones((2, 1)), var={"feature_types": ["Blank Codeword"]}), copy=True)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "xenium.h5ad"
    write_output(xenium(), path)
    return path


def test_praga_spike_takes_genes_and_proteins(file, tmp_path, capsys):
    assert run("praga-spike", file, "--output", tmp_path / "o.h5mu", *QUICK) == 0
    out = capsys.readouterr().out
    assert "left out control features: 5 'Negative Control Probe'" in out
    found = st.datasets.read_slice(tmp_path / "o.h5mu")
    assert shapes(found) == {"rna": 60, "protein": 12}
    assert dict(found.uns["praga_spike"]["params"]["modalities"]) == {"rna": "X_pca", "protein": "X_protein"}


def test_graphst_takes_genes_alone(file, tmp_path, capsys):
    assert run("graphst", file, "--output", tmp_path / "o.h5ad", *QUICK) == 0
    out = capsys.readouterr().out
    assert "60 features of rna; left out 12 of protein" in out
    assert "setup" in out
    assert "60 genes" in out
    assert st.datasets.read_slice(tmp_path / "o.h5ad").var_names.str.startswith("GENE").all()


def test_counts_as_the_user_says(file, tmp_path, capsys):
    for command in (("graphst",), ("praga-spike", "--modality", "rna")):
        output = ("--output", tmp_path / "o.h5ad", "--overwrite", *QUICK)
        assert run(*command, file, *output) == 0
        assert "counts" in capsys.readouterr().out.split("features")[-1]
        assert run(*command, file, *output, "--no-counts") == 0
        out = capsys.readouterr().out
        assert "values as they are" in out or "no counts: scaled, PCA" in out


def test_var_st_and_info_leave_controls_out(tmp_path, capsys):
    adata = st.datasets.simulate_histology(2, 1, 30, n_genes=12, n_features=4, seed=0)
    adata.var_names = [f"NegPrb{i}" if i < 2 else name for i, name in enumerate(adata.var_names)]
    write_output(adata, tmp_path / "a.h5ad")
    options = ("--size", "tiny", "--max-epochs", 1, "--accelerator", "cpu")
    assert run("var-st", tmp_path / "a.h5ad", "--output", tmp_path / "o.h5ad", *options) == 0
    assert "left out control features: 2 'negative control probe'" in capsys.readouterr().out
    assert st.datasets.read_slice(tmp_path / "o.h5ad").n_vars == 10
    assert run("info", tmp_path / "a.h5ad") == 0
    assert "2 'negative control probe'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda adata, own: adata.X.__setitem__((slice(None), own), 0),
            "All values of 120 spots x 12 features are zero",
        ),
        (lambda adata, own: adata._inplace_subset_var(~own | (adata.var_names == "PROT0")), "It has 1 features"),
    ],
)
def test_a_modality_that_cannot_be_used_is_named(tmp_path, capsys, change, message):
    adata = xenium()
    adata.X = adata.X.toarray()
    change(adata, (adata.var["feature_types"] == "Protein Expression").to_numpy())
    write_output(adata, tmp_path / "a.h5ad")
    assert run("praga-spike", tmp_path / "a.h5ad", "--output", tmp_path / "o.h5mu", *QUICK) == 1
    err = capsys.readouterr().err
    assert f"Modality 'protein' cannot be prepared. {message}" in err
    assert "`--modalities`" in err


def test_graphst_names_a_modality_without_counts(tmp_path, capsys):
    adata = slice_of(g=("Gene Expression", 20), p=("Protein Expression", 5))
    adata.X = adata.X.toarray()
    adata.X[:, :20] = 0
    write_output(adata, tmp_path / "a.h5ad")
    assert run("graphst", tmp_path / "a.h5ad", "--output", tmp_path / "o.h5ad", *QUICK) == 1
    assert "Modality 'rna' cannot be prepared. All values of 120 spots x 20 features" in capsys.readouterr().err


def test_a_modality_of_two_kinds_is_refused():
    with columns_as_given():
        mdata = MuData({"cells": xenium()})
    with pytest.raises(ValueError, match=r"Modality 'cells' holds features of several kinds, \['rna', 'protein'\]"):
        chosen(mdata)
