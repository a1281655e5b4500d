"""Writes the tables of docs/benchmarks.md from the CSV files of runs, or says whether they are those. See README.md."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tables import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_BLOCK = re.compile(r"(<!-- table: (?P<name>[\w ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_PACKAGES = ("torch", "numpy", "scikit-learn", "scanpy")
_PEERS = {"spatialglue": "SpatialGlue", "released": "GraphST"}  # by how methods that run them are called


@dataclass(frozen=True)
class Part:
    """A line or a column of a table: which runs it takes, and what it shows of them. None leaves that to the other.

    Several data sets count as one, by the mean over them of each seed that all have.
    """

    label: str
    dataset: str | Sequence[str] | None = None
    method: str | None = None
    column: str | None = None
    digits: int | None = None
    """Decimals; by default those of three significant digits of the mean."""
    unit: float = 1.0
    show: Callable[[pd.Series], str] | None = None
    """Text of the values by seed, instead of mean ± sd."""


@dataclass(frozen=True)
class Table:
    """What a table is made of; `dataset`, `method`, `column` and `digits` hold where neither line nor column says other."""

    file: str
    corner: str
    lines: Sequence[Part]
    columns: Sequence[Part]
    dataset: str | Sequence[str] | None = None
    method: str | None = None
    column: str | None = None
    digits: int | None = None
    counts: bool = False
    """Whether the number of seeds stands behind each mean; otherwise where it is not that of most. One is never told."""


def parts(names: Sequence[str] | Mapping[str, str], axis: str) -> list[Part]:
    """Lines or columns, one for each name along `axis`; of a mapping from names, labelled by its values."""
    labels = names if isinstance(names, Mapping) else {name: name for name in names}
    return [Part(label, **{axis: name}) for name, label in labels.items()]


def render(table: Table) -> str:
    """The table in Markdown without the lines that have no run, and what is to be known of the runs."""
    runs = pd.read_csv(RESULTS / table.file, dtype={"dataset": str, "method": str})
    found = [(line, [_values(runs, table, line, column) for column in table.columns]) for line in table.lines]
    lines, cells = zip(*((line, row) for line, row in found if any(len(values) for values in row)), strict=True)
    numbers = pd.Series([len(values) for row in cells for values in row if len(values) > 1])
    usual = int(numbers.mode().iloc[0]) if len(numbers) else 1
    text = [[table.corner, *(column.label for column in table.columns)]]
    text.append(["---"] * (len(table.columns) + 1 + table.corner.count(" | ")))
    for line, row in zip(lines, cells, strict=True):
        pairs = zip(table.columns, row, strict=True)
        text.append([line.label, *(_cell(values, table, line, column, usual) for column, values in pairs)])
    used = sorted({index for row in cells for values in row for index in values.attrs["runs"]})
    return "\n".join([*(f"| {' | '.join(row)} |" for row in text), "", _origin(table, runs.loc[used], usual)])


def _values(runs: pd.DataFrame, table: Table, line: Part, column: Part) -> pd.Series:
    """What a cell is made of, by seed; in ``attrs`` the rows it comes from, and how many runs failed."""

    def told(name: str) -> object:
        return next((v for v in (getattr(o, name) for o in (line, column, table)) if v is not None), None)

    datasets = told("dataset")
    wanted = [datasets] if isinstance(datasets, str) else list(datasets)  # type: ignore[call-overload]
    found = runs[runs["dataset"].isin(wanted) & (runs["method"] == told("method"))]
    by_seed = found.pivot(index="seed", columns="dataset", values=str(told("column"))).dropna()
    complete = len(by_seed.columns) == len(wanted)
    values = by_seed.mean(axis=1) * line.unit * column.unit if complete else pd.Series(dtype=float)
    shown = found[found["seed"].isin(values.index)]
    values.attrs = {"runs": list(shown.index), "failed": int(found["error"].notna().sum())}
    return values


def _cell(values: pd.Series, table: Table, line: Part, column: Part, usual: int) -> str:
    failed = f"{values.attrs['failed']} failed" if values.attrs["failed"] else ""
    if values.empty:
        return f"({failed})" if failed else ""
    show = line.show or column.show
    if show is not None:
        return show(values)
    told = (line.digits, column.digits, table.digits)
    digits = next((d for d in told if d is not None), None)
    mean = values.mean()
    if digits is None:
        digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 0
    spread = f" ± {values.std():,.{digits}f}" if len(values) > 1 else ""
    notes = [str(len(values))] if len(values) > 1 and (table.counts or len(values) != usual) else []
    notes += [failed] if failed else []
    return f"{mean:,.{digits}f}{spread}" + (f" ({', '.join(notes)})" if notes else "")


def _origin(table: Table, runs: pd.DataFrame, usual: int) -> str:
    days = sorted({date[:10] for date in runs["date"]})
    peers = [package for name, package in _PEERS.items() if runs["method"].str.startswith(name).any()]
    wanted = (*_PACKAGES, *peers)
    versions = {part for text in runs["versions"] for part in text.split("; ") if part.split()[0] in wanted}
    seeds = "" if table.counts or usual == 1 else f"{usual} seeds where there is a deviation and nothing else is said, "
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"*`{table.file}`: {seeds}{len(runs)} runs, {when}; {', '.join(sorted(versions, key=str.lower))}.*"


def filled(page: str, tables: Mapping[str, Table]) -> str:
    """`page` with every table between its marks as the runs have it."""
    missing = set(tables) - {match["name"] for match in _BLOCK.finditer(page)}
    if missing:
        raise ValueError(f"The page has no place for the tables {sorted(missing)}.")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{render(tables[match['name']])}\n\n{match[3]}", page)


def main() -> int:
    import page_domains
    import page_histology
    import page_positions

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is another")
    check = parser.parse_args().check
    page = PAGE.read_text()
    renewed = filled(page, page_domains.TABLES | page_histology.TABLES | page_positions.TABLES)
    if not check:
        PAGE.write_text(renewed)
    return int(check and renewed != page)


if __name__ == "__main__":
    raise SystemExit(main())
