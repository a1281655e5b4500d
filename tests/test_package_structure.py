"""Rules that hold for the whole package, read off its source and its public functions."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from anndata import AnnData
from mudata import MuData

import stomics_tools as st

PACKAGE = Path(st.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "lightning", "scvi", "scanpy", "squidpy")

OWN_LEAVES = {
    "",
    "_by_name",
    "_compat",
    "_intervals",
    "_keys",
    "_namespace",
    "_params",
    "_paths",
    "_random",
    "_validate",
    "_mixture",
    "_spatial_components",
    "_spot_sums",
}
MAY_IMPORT = {
    "_by_name": set(),
    "_compat": set(),
    "_intervals": {"_validate"},
    "_namespace": set(),
    "_keys": set(),
    "_params": {""},
    "_paths": set(),
    "_random": set(),
    "_validate": {"_by_name"},
    "_mixture": set(),
    "_spatial_components": {"_spot_sums"},
    "_spot_sums": set(),
    "metrics": OWN_LEAVES,
    "baselines": OWN_LEAVES,
    "nn": {"_namespace"},
    "data": OWN_LEAVES | {"nn"},
    "train": OWN_LEAVES | {"nn", "data"},
    "model": OWN_LEAVES | {"nn", "data", "train"},
    "datasets": OWN_LEAVES | {"data"},
    "pp": OWN_LEAVES | {"data", "nn"},
    "pl": OWN_LEAVES | {"data", "metrics"},
    "tl": OWN_LEAVES | {"data", "nn", "train", "model", "pp", "metrics", "baselines"},
    "cli": None,
}
"""Part of the package to the other parts that it may import ("" is the package itself, for its version)."""


def part_of(name: str) -> str:
    """``nn`` for ``stomics_tools.nn.graph``."""
    parts = name.split(".")[1:]
    return parts[0] if parts else ""


def imports_of(source: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, at any depth of it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{source} imports relatively"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                inside = PACKAGE.joinpath(*name.split(".")[1:])
                is_module = inside.is_dir() or inside.with_suffix(".py").exists()
                yield name if node.module == "stomics_tools" and is_module else str(node.module)


def relative(source: Path) -> str:
    return source.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_imports_flow_one_way(source):
    inside = source.relative_to(PACKAGE)
    part = inside.parts[0].removesuffix(".py")
    if part == "__init__":
        assert {part_of(name) for name in imports_of(source) if name.startswith("stomics_tools")} <= {"_namespace"}
        return
    allowed = MAY_IMPORT[part]
    if allowed is None:
        return
    used = {part_of(name) for name in imports_of(source) if name.split(".")[0] == "stomics_tools"} - {part}
    assert used <= allowed, f"{part} may import {sorted(allowed)}, not {sorted(used - allowed)}"


@pytest.mark.parametrize("source", sorted((PACKAGE / "nn").rglob("*.py")), ids=relative)
def test_blocks_know_torch_only(source):
    outside = {name.split(".")[0] for name in imports_of(source)} - {"stomics_tools", "__future__"}
    assert outside - set(sys.stdlib_module_names) <= {"torch"}


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_scvi_is_imported_at_its_seam_only(source):
    uses = any(name.split(".")[0] == "scvi" for name in imports_of(source))
    assert not uses or relative(source).startswith(("model/_base.py", "train/", "data/"))


@pytest.mark.parametrize("source", SOURCES, ids=relative)
def test_files_stay_small(source):
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 450
    assert n_lines_of_code(source) <= 300


def n_lines_of_code(source: Path) -> int:
    """Lines but for blank ones, comments and docstrings."""
    text = source.read_text(encoding="utf-8")
    code = {i for i, line in enumerate(text.splitlines(), start=1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(ast.parse(text)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(code)


def loaded_after(code: str) -> set[str]:
    code += "\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_import_loads_nothing_heavy():
    assert not loaded_after("import stomics_tools").intersection(HEAVY)


def test_import_of_the_command_loads_nothing_heavy():
    assert not loaded_after("from stomics_tools.cli import main").intersection(HEAVY)


def test_namespaces_load_when_touched():
    loaded = loaded_after("import stomics_tools as st\nst.metrics.score_labels\ndir(st)")
    assert "stomics_tools.metrics" in loaded
    assert "stomics_tools.model" not in loaded
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        st.nothing  # noqa: B018


@pytest.mark.parametrize("name", [name for name in st.__all__ if name != "__version__"])
def test_namespaces_list_what_is_public(name):
    namespace = getattr(st, name)
    assert dir(namespace) == sorted(namespace.__all__)
    assert all(callable(getattr(namespace, public)) for public in namespace.__all__)


@pytest.mark.parametrize(
    ("namespace", "wrong", "meant"),
    [
        ("", "plt", "pl"),
        ("", "dataset", "datasets"),
        ("model", "PragaSpike", "PRAGASpike"),
        ("model", "Graphst", "GraphST"),
        ("tl", "spatial_domain", "spatial_domains"),
        ("tl", "SpatialDomains", "spatial_domains"),
        ("pl", "domain", "domains"),
        ("pp", "rna_", "rna"),
        ("metrics", "score_label", "score_labels"),
        ("nn", "LifNode", "LIFNode"),
        ("datasets", "simulate_multiomic", "simulate_multiomics"),
        ("baselines", "Ridge", "PCARidge"),
    ],
)
def test_misspelled_attributes_get_a_suggestion(namespace, wrong, meant):
    place = getattr(st, namespace) if namespace else st
    with pytest.raises(AttributeError, match=f"no attribute '{wrong}'. Did you mean '{meant}'"):
        getattr(place, wrong)
    with pytest.raises(AttributeError, match=r"no attribute '\w+'$"):
        place.zzzzzz  # noqa: B018


@pytest.mark.parametrize(
    "touch",
    [
        "import stomics_tools as st; st.model.PRAGASpike",
        "import stomics_tools as st; st.tl.graphst; st.pp.rna; st.pl.domains; st.datasets; st.metrics; st.baselines; st.nn",
        "from stomics_tools.model import VARST",
        "from stomics_tools.tl import spatial_domains",
        "from stomics_tools.pp import rna",
        "from stomics_tools import pl",
        "from stomics_tools.datasets import read_slice",
        "from stomics_tools.cli import main",
    ],
)
def test_touching_the_package_draws_no_random_numbers(touch):
    code = f"""
import random
import numpy as np
import torch
random.seed(5); np.random.seed(5); torch.manual_seed(5)
{touch}
print(random.random(), np.random.random(), torch.rand(1).item())
"""
    run = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True)
        for c in (code, code.replace(touch, ""))
    ]
    assert run[0].stdout == run[1].stdout


def namespaces() -> list[ModuleType]:
    """Public namespaces that have contents."""
    names = [name for name in st.__all__ if name != "__version__" and (PACKAGE / name / "__init__.py").exists()]
    return [importlib.import_module(f"stomics_tools.{name}") for name in names]


PUBLIC = {
    f"{namespace.__name__.split('.')[-1]}.{name}": getattr(namespace, name)
    for namespace in namespaces()
    for name in namespace.__all__
}
FUNCTIONS = {name: thing for name, thing in PUBLIC.items() if inspect.isfunction(thing)}


def is_ours(value: Any) -> bool:
    """Whether a method is of this package: those of scvi-tools are inherited with a check of their arguments."""
    return getattr(value, "__func__", value).__module__.startswith("stomics_tools")


METHODS = {
    f"{name}.{attribute}": getattr(thing, attribute)
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing) and name.startswith("model.")
    for owner in thing.__mro__
    if owner.__module__.startswith("stomics_tools")
    for attribute, value in vars(owner).items()
    if not attribute.startswith("_")
    and (isinstance(value, classmethod | staticmethod) | inspect.isfunction(value))
    and is_ours(value)
}
ON_DATA = {name: f for name, f in FUNCTIONS.items() if name.split(".")[0] in ("pp", "tl")}
ON_DATA = {
    name: f
    for name, f in ON_DATA.items()
    if "AnnData" in str(next(iter(inspect.signature(f).parameters.values())))
    and "DataFrame" not in str(inspect.signature(f).return_annotation)  # those write nothing
    and "path" not in inspect.signature(f).parameters  # those write a file
}


def each(things: dict[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("thing", things.values(), ids=list(things))


def positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def test_public_names_are_found():
    assert {"pp.rna", "tl.spatial_domains", "metrics.score_labels", "pl.domains"} <= set(FUNCTIONS)
    assert {"pp.rna", "tl.spatial_domains"} <= set(ON_DATA)
    assert "model.PRAGASpike.train" in METHODS


@each(FUNCTIONS | METHODS)
def test_annotations(thing):
    signature = inspect.signature(thing)
    assert signature.return_annotation is not inspect.Signature.empty
    bare = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")]
    assert not bare


@each(FUNCTIONS | METHODS)
def test_at_most_three_positional_parameters(thing):
    assert len([p for p in positional(thing) if p.name not in ("self", "cls")]) <= 3


@each(ON_DATA)
def test_functions_on_data(thing):
    parameters = list(inspect.signature(thing).parameters.values())
    first = parameters[0]
    assert first.name in ("adata", "mdata")
    assert first.default is first.empty
    fixed = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    copy, key_added = fixed[-1], fixed[-2]
    assert (copy.name, copy.default, copy.kind) == ("copy", False, inspect.Parameter.KEYWORD_ONLY)
    if any(p.name == "key_added" for p in fixed):
        assert key_added.name == "key_added"
    returned = inspect.signature(thing).return_annotation
    assert returned.split(" | ")[-1] == "None"
    assert returned.removesuffix(" | None") == first.annotation


@each({name: f for name, f in FUNCTIONS.items() if name.startswith("pl.")})
def test_plots_return_as_scanpy_does(thing):
    parameters = inspect.signature(thing).parameters
    assert {"ax", "save", "show", "return_fig"} <= set(parameters)
    assert 1 <= len(positional(thing)) <= 2


ON_ANNDATA = {
    name: f
    for name, f in FUNCTIONS.items()
    if name.split(".")[0] in ("pp", "tl", "pl")
    and next(iter(inspect.signature(f).parameters.values())).annotation in ("AnnData", "AnnData | MuData")
}


@each(ON_ANNDATA)
def test_anything_but_annotated_data_is_named(thing):
    first, *others = inspect.signature(thing).parameters.values()
    required = {p.name: "x" for p in others if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    model = SimpleNamespace(adata=None)
    with pytest.raises(
        TypeError,
        match=rf"`{first.name}` must be {first.annotation.replace(' | ', ' or ')}, found SimpleNamespace. Give",
    ):
        thing(model, **required)
    if first.annotation == "AnnData":
        with pytest.raises(TypeError, match=r"found MuData. Give one of its modalities, such as `mdata\['rna'\]`"):
            thing(MuData({"rna": AnnData(shape=(3, 2))}), **required)


def documented(thing: Any) -> set[str]:
    """Names in the Parameters sections of a docstring."""
    doc = inspect.getdoc(thing) or ""
    sections = re.findall(
        r"^(?:Other )?Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)", doc, flags=re.DOTALL | re.MULTILINE
    )
    names = re.findall(r"^([\w*, ]+?)(?: *:.*)?$", "\n".join(sections), flags=re.MULTILINE)
    return {part.strip(" *") for name in names if not name.startswith(" ") for part in name.split(",")}


@each(PUBLIC | METHODS)
def test_docstrings_document_every_parameter(thing):
    doc = inspect.getdoc(thing) or ""
    assert doc, "no docstring"
    assert doc.splitlines()[0].endswith("."), "the first line is no sentence"
    expected = {name for name in inspect.signature(thing).parameters if name not in ("self", "cls")}
    # The setup of a MuData says that its parameters are those of an AnnData.
    if "setup_anndata" in doc:
        expected -= documented(st.model.PRAGASpike.setup_anndata)
    missing = expected - documented(thing)
    assert not missing, f"not documented: {sorted(missing)}"


def test_every_public_name_is_in_the_api_documentation():
    pages = Path(__file__).parents[1] / "docs" / "api"
    listed = {
        line.strip() for page in pages.glob("*.md") for line in page.read_text(encoding="utf-8").splitlines() if line
    }
    assert set(PUBLIC) <= listed, sorted(set(PUBLIC) - listed)


def test_readme_gives_two_commands_for_a_fresh_machine():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.startswith("python3 -m venv")]
    assert [command.rsplit(" && ", 1)[-1] for command in commands] == [
        ".venv/bin/stomics demo",
        ".venv/bin/python -m pytest",
    ]
