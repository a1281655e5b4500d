"""Notebooks are kept without outputs, begin with their cell of settings, and are all on the page. The docs run them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_clean(path: Path) -> None:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    settings = ast.parse("".join(code[0]["source"]))
    assert all(isinstance(statement, ast.Assign) for statement in settings.body)
    assert ast.unparse(settings.body[0]) == "path = None"
    assert "What you learn" in "".join(cells[0]["source"])


def test_all_are_on_the_page() -> None:
    page = (FOLDER / "index.md").read_text()
    assert NOTEBOOKS
    assert [name for name in page.split() if name[:1] == "0"] == [path.stem for path in NOTEBOOKS]
