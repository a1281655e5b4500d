"""Prints the CSV files of runs as Markdown tables: mean ± sd over seeds (number of seeds)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).parent / "results"


def summary(runs: pd.DataFrame, column: str) -> str:
    """Data sets by methods, in the order of their first run, the more numerous of the two as lines."""
    datasets, methods = list(dict.fromkeys(runs["dataset"])), list(dict.fromkeys(runs["method"]))
    upright = len(datasets) <= len(methods)
    rows, columns = (methods, datasets) if upright else (datasets, methods)
    lines = [["method" if upright else "data", *columns], ["---"] * (len(columns) + 1)]
    for row in rows:
        of_row = runs[runs["method" if upright else "dataset"] == row]
        across = of_row["dataset" if upright else "method"]
        lines.append([row, *(cell(of_row[across == name], column) for name in columns)])
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
