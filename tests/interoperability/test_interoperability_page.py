"""The page of the user guide runs as it is, from its first block to its last."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

PAGE = Path(__file__).parents[2] / "docs" / "user_guide" / "interoperability.md"


def test_the_page_runs(tmp_path, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    plt.close("all")
    assert len(names["scores"]) == 5
    assert names["predicted"].shape == names["tissue"].shape
    assert "X_graphst" in names["sdata"]["table"].obsm
    assert {path.name for path in Path("logs").iterdir()} == {"csv", "board"}
