"""A table of runs in a CSV file, from which a benchmark that was stopped goes on."""

from __future__ import annotations

import csv
import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

KEYS = ("dataset", "method", "seed")
MEASURED = ("seconds", "peak_mib", "error", "versions", "date")
PACKAGES = ("stomics-tools", "torch", "numpy", "scipy", "scikit-learn", "scanpy", "SpatialGlue", "GraphST")


class Runs:
    """Rows keyed by data set, method and seed, each written as soon as its run has ended.

    Parameters
    ----------
    path
        CSV file; made with its folder if it is not there.
    results
        Names of what the runs return, the columns between the key and the measurements.
    """

    def __init__(self, path: str | Path, results: Sequence[str]) -> None:
        self.path = Path(path)
        self.columns = [*KEYS, *results, *MEASURED]
        self.done: set[tuple[str, ...]] = set()
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append(self.columns)
            return
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != self.columns:
                raise ValueError(f"{self.path} has the columns {reader.fieldnames}, expected {self.columns}.")
            self.done = {tuple(row[key] for key in KEYS) for row in reader}

    def has(self, dataset: str, method: str, seed: int) -> bool:
        """Whether the row is there."""
        return (dataset, method, str(seed)) in self.done

    def run(self, dataset: str, method: str, seed: int, function: Callable[[], Mapping[str, float]]) -> None:
        """Call `function` and append what it returns, with time and memory; nothing is done if the row is there.

        An ``ArithmeticError`` or ``ValueError`` of the run is kept in the column ``error``, so that seeds at which a
        method fails are counted.
        """
        if self.has(dataset, method, seed):
            return
        key = (dataset, method, str(seed))
        values, error = {}, ""
        _reset_peak()
        start = time.perf_counter()
        try:
            values = dict(function())
        except (ArithmeticError, ValueError) as caught:
            error = f"{type(caught).__name__}: {caught}"
        row = {
            **dict(zip(KEYS, key, strict=True)),
            **{name: f"{value:.5g}" for name, value in values.items()},
            "seconds": f"{time.perf_counter() - start:.3f}",
            "peak_mib": f"{peak_mib():.0f}",
            "error": error,
            "versions": _versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._append([row.get(column, "") for column in self.columns])
        self.done.add(key)
        print(*(f"{column}={row[column]}" for column in self.columns[:-2] if row.get(column)), flush=True)

    def _append(self, row: Sequence[str]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


def in_a_process(function: Callable[..., None], *arguments: Any) -> None:
    """Call `function` in a process of its own, so that its peak of memory is that of what it runs."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def in_a_new_process(script: str, *arguments: object) -> dict[str, float]:
    """Run ``script --one arguments`` in a fresh interpreter and read the JSON object in the last line that it prints."""
    command = [sys.executable, script, "--one", *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def _reset_peak() -> None:
    """Start the peak of resident memory anew; without Linux it stays that of the process so far."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    """Peak of the resident memory of the process, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)
