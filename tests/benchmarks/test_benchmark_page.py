"""The page of benchmarks shows what the files of runs hold."""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEADER = "dataset,method,seed,score,error,versions,date"
ROWS = """\
a,x,0,0.5,,numpy 2.0; torch 2.1,2026-01-02T00:00:00
a,x,1,0.7,,numpy 2.0; torch 2.1,2026-01-03T00:00:00
b,x,0,0.1,,numpy 2.0; torch 2.1,2026-01-02T00:00:00
b,x,1,0.2,,numpy 2.0; torch 2.1,2026-01-02T00:00:00
b,x,2,0.9,,numpy 2.0; torch 2.1,2026-01-02T00:00:00
a,y,0,1234.5,,numpy 2.0; torch 2.1,2026-01-02T00:00:00
b,y,0,,ValueError: no,numpy 2.0; torch 2.1,2026-01-02T00:00:00
"""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import page

    yield page
    for name in [name for name in sys.modules if name == "tables" or name.startswith("page")]:
        del sys.modules[name]


def test_page_is_up_to_date(page: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["page.py", "--check"])
    assert page.main() == 0, "The tables of docs/benchmarks.md are others: run python benchmarks/page.py"


def test_a_cell_of_the_page_is_mean_and_deviation_of_its_runs(page: ModuleType) -> None:
    with (BENCHMARKS / "results" / "domains.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["dataset"], row["method"]) == ("151673", "graphst")]
    values = [float(row["ari"]) for row in rows]
    cell = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f} ({len(values)})"
    table = page.PAGE.read_text().split("<!-- table: graphst -->")[1].split("<!-- end of table -->")[0]
    (line,) = [line for line in table.splitlines() if line.startswith("| 151673")]
    assert line.endswith(f"| {cell} |")


def test_table_of_a_few_runs(page: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs.csv").write_text(f"{HEADER}\n{ROWS}")
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    lines = [page.Part("a", "a"), page.Part("both", ("a", "b")), page.Part("nowhere", "c"), page.Part("b", "b")]  # fmt: skip
    columns = [page.Part("X", method="x"), page.Part("Y", method="y")]
    text = page.render(page.Table("runs.csv", "data", lines, columns, column="score", digits=2))
    assert text.splitlines() == [
        "| data | X | Y |",
        "| --- | --- | --- |",
        "| a | 0.60 ± 0.14 | 1,234.50 |",
        "| both | 0.38 ± 0.11 | (1 failed) |",  # means over a and b: 0.3 and 0.45; the third seed is not in both
        "| b | 0.40 ± 0.44 (3) | (1 failed) |",
        "",
        "*`runs.csv`: 2 seeds where there is a deviation and nothing else is said, 6 runs, 2026-01-02 to 2026-01-03; "
        "numpy 2.0, torch 2.1.*",
    ]


def test_a_table_without_a_place_is_an_error(page: ModuleType) -> None:
    with pytest.raises(ValueError, match="no place for the tables \\['t'\\]"):
        page.filled("nothing", {"t": None})
