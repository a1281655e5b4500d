"""``stomics simulate``."""

from __future__ import annotations

import inspect
from typing import get_args, get_type_hints

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

import stomics_tools as st
from stomics_tools.cli import main
from stomics_tools.cli._simulate import COMMANDS
from stomics_tools.datasets import _simulate

SIMULATORS = {name: getattr(st.datasets, f"simulate_{name}") for name in COMMANDS}


def run(*arguments) -> int:
    return main(["simulate", *map(str, arguments)])


@pytest.mark.parametrize(
    ("kind", "target", "options", "arguments", "holds"),
    [
        ("multiomics", "a.h5mu", ("--n-obs", 90, "--n-domains", 3), {"n_obs": 90, "n_domains": 3}, MuData),
        (
            "multiomics",
            "a.zarr",
            ("--n-obs", 90, "--n-domains", 3, "--modalities", "rna", "atac", "--layout", "square", "--missing", 0.2),
            {"n_obs": 90, "n_domains": 3, "modalities": ("rna", "atac"), "layout": "square", "missing": 0.2},
            MuData,
        ),
        (
            "multiomics",
            "a.h5ad",
            ("--n-obs", 90, "--n-domains", 3, "--modalities", "protein"),
            {"n_obs": 90, "n_domains": 3, "modalities": ("protein",)},
            AnnData,
        ),
        ("histology", "a.h5ad", ("--n-patients", 2, "--n-spots", 20), {"n_patients": 2, "n_spots": 20}, AnnData),
        ("histology", "a.h5mu", ("--n-sections", 1, "--n-genes", 15), {"n_sections": 1, "n_genes": 15}, MuData),
        ("sections", "a.zarr", ("--n-cells", 30, "--symmetric"), {"n_cells": 30, "symmetric": True}, AnnData),
    ],
)
def test_same_data_as_in_python(tmp_path, kind, target, options, arguments, holds):
    output = tmp_path / target
    assert run(kind, "--output", output, "--seed", 5, *options) == 0
    found, expected = st.datasets.read_slice(output), SIMULATORS[kind](**arguments, seed=5)
    assert isinstance(found, holds)
    assert [path.name for path in tmp_path.iterdir()] == [target]
    expected = dict(expected.mod) if isinstance(expected, MuData) else {"rna": expected}
    found = dict(found.mod) if isinstance(found, MuData) else {next(iter(expected)): found}
    assert found.keys() == expected.keys()
    for name, adata in expected.items():
        np.testing.assert_array_equal(found[name].X.toarray(), adata.X.toarray())
        np.testing.assert_array_equal(found[name].obsm["spatial"], adata.obsm["spatial"])


def test_a_file_that_exists_is_replaced_only_if_told(tmp_path, capsys):
    output = tmp_path / "a.h5ad"
    output.write_text("mine")
    command = ("histology", "--output", output, "--n-patients", 1, "--n-spots", 10)
    assert run(*command) == 1
    assert "exists. Choose another name, or replace it by `--overwrite`" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert run(*command, "--overwrite") == 0
    assert st.datasets.read_slice(output).n_obs == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["multiomics", "--output", "{}/a.h5ad"],
            "`output`: an h5ad file holds one modality, the data have ['rna', 'protein']",
        ),
        (["multiomics", "--output", "{}/a.csv"], "`output` must end in .h5ad, .h5mu or .zarr"),
        (["multiomics", "--output", "{}/a.h5mu", "--modalities", "dna"], "`modalities['dna']`: unknown option 'dna'"),
        (["histology", "--output", "{}/a.h5ad", "--n-spots", "2"], "`n_spots` must be at least 10"),
        (["sections", "--output", "{}/a.h5ad", "--seed", "-1"], "`seed` must be at least 0"),
    ],
)
def test_errors_are_one_line_and_leave_no_file(tmp_path, capsys, options, message):
    assert run(*(option.format(tmp_path) for option in options)) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"stomics: error: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", COMMANDS)
def test_options_and_defaults_are_those_of_the_simulators(kind):
    own, theirs = (inspect.signature(function).parameters for function in (COMMANDS[kind], SIMULATORS[kind]))
    for name in own.keys() - {"output", "overwrite", "modalities"}:
        assert own[name].default == theirs[name].default


def test_choices_are_those_of_the_simulators():
    hints = get_type_hints(COMMANDS["multiomics"])
    assert get_args(hints["mode"]) == get_args(_simulate.Mode)
    assert get_args(hints["layout"]) == get_args(_simulate.Layout)
