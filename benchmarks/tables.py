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
        cells = [
            runs.loc[(runs["method"] == method) & (runs["dataset"] == dataset), column].to_numpy()
            for dataset in datasets
        ]
        lines.append([method, *(cell(pd.Series(values)) for values in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(values: pd.Series) -> str:
    """``mean ± sd (n)``; seeds without a value failed and are told beside."""
    if values.empty:
        return ""
    n = values.count()
    failed = f", {len(values) - n} failed" if n < len(values) else ""
    if n == 0:
        return f"(0{failed})"
    digits = 3 if values.abs().max() < 10 else 0
    spread = f" ± {values.std():.{digits}f}" if n > 1 else ""
    return f"{values.mean():.{digits}f}{spread} ({n}{failed})"


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
