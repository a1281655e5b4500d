"""Prints the CSV files of runs as Markdown tables: mean ± sd over seeds (number of seeds)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"


def summary(runs: pd.DataFrame, column: str) -> str:
    """One line a method, one column a data set, both in the order of their first run."""
    datasets, methods = list(dict.fromkeys(runs["dataset"])), list(dict.fromkeys(runs["method"]))
    lines = [["method", *datasets], ["---"] * (len(datasets) + 1)]
    for method in methods:
        of_method = runs[runs["method"] == method]
        lines.append([method, *(cell(of_method[of_method["dataset"] == dataset], column) for dataset in datasets)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(runs: pd.DataFrame, column: str) -> str:
    """``mean ± sd (n)`` of the runs of one method on one data set; seeds that failed are counted beside."""
    values, n_failed = runs[column].dropna(), int(runs["error"].notna().sum())
    notes = [f"{len(values)}"] * (not values.empty) + [f"{n_failed} failed"] * (n_failed > 0)
    if not notes:
        return ""
    if values.empty:
        return f"({notes[0]})"
    digits = 3 if values.abs().max() < 10 else 0
    spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread} ({', '.join(notes)})"


def print_tables(path: Path, columns: Sequence[str] | None = None) -> None:
    """Print a table of each of `columns`, by default of all that hold numbers."""
    runs = pd.read_csv(path, dtype={"dataset": str, "method": str})
    if columns is None:
        columns = [name for name in runs.select_dtypes("number") if name != "seed"]
    for column in columns:
        print(f"### {path.stem}: {column}\n\n{summary(runs, column)}\n")


if __name__ == "__main__":
    for file in [Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*.csv")):
        print_tables(file)
