"""The rows of a comparison, kept in a file from which a stopped one goes on."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

_TEXTS = ("model", "error", "arguments", "data", "domains")


class Rows:
    """Rows keyed by model and seed, in memory, and in a CSV file if there is one.

    Parameters
    ----------
    scores
        Names of the measured columns.
    data
        What all rows must share: a hash of the data and labels.
    arguments
        Model to what its rows must share: its arguments, as text.
    out
        The file. It is replaced as a whole by each new row, so that it is never torn.

    Raises
    ------
    ValueError
        If the file has other columns, or rows of other data or arguments.
    """

    def __init__(self, scores: Sequence[str], data: str, arguments: Mapping[str, str], out: Path | None) -> None:
        self._scores = list(scores)
        self._data, self._arguments, self._out = data, arguments, out
        self._rows: list[dict[str, Any]] = [] if out is None or not out.exists() else self._read(out)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)

    @property
    def _columns(self) -> list[str]:
        return ["model", "seed", *self._scores, "error", "arguments", "data", "domains"]

    def _read(self, out: Path) -> list[dict[str, Any]]:
        try:
            header = list(pd.read_csv(out, nrows=0, compression=None).columns)
        except ValueError as error:  # nothing in it, or not a table
            raise ValueError(f"`out`: {str(out)!r} is no table of a comparison: {error}") from error
        if header != self._columns:
            raise ValueError(
                f"`out`: {str(out)!r} has the columns {header}, this comparison needs {self._columns}. "
                "Name another file, or give `labels_key` as in the call that wrote it."
            )
        table = pd.read_csv(
            out,
            dtype={**dict.fromkeys(_TEXTS, str), "seed": np.int64, **dict.fromkeys(self._scores, np.float64)},
            keep_default_na=False,  # a model may well be called "NA"
            na_values={name: [""] for name in self._scores},
            float_precision="round_trip",
            compression=None,
        )
        rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
        for row in rows:
            self._check(row, out)
        return rows

    def _check(self, row: Mapping[str, Any], out: Path) -> None:
        if row["data"] != self._data:
            raise ValueError(f"`out`: {str(out)!r} was written for other data or labels. Name another file.")
        expected = self._arguments.get(row["model"], row["arguments"])
        if row["arguments"] != expected:
            raise ValueError(
                f"`out`: {str(out)!r} holds model {row['model']!r} with other arguments: {row['arguments']} there, "
                f"{expected} here. Name another file, or give the model another name."
            )

    def __contains__(self, key: tuple[str, int]) -> bool:
        return any((row["model"], row["seed"]) == key for row in self._rows)

    def add(self, model: str, seed: int, values: Mapping[str, Any], domains: np.ndarray | None) -> None:
        """Keep a finished run: its scores and error, and the domains ``(n_obs,)`` as codes if it came to any."""
        row = {"model": model, "seed": seed, **dict.fromkeys(self._scores, np.nan), "error": "", **values}
        row |= {"arguments": self._arguments[model], "data": self._data, "domains": _packed(domains)}
        self._rows.append(row)
        if self._out is not None:
            part = self._out.with_name(f"{self._out.name}.part")
            self._frame(self._rows).to_csv(part, index=False, compression=None)
            os.replace(part, self._out)

    def _frame(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        return pd.DataFrame(rows, columns=self._columns).astype({"n_domains": "Int64"})

    def table(self, models: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
        """The rows of these models and seeds in that order, with the stability of each model."""
        found = {(row["model"], row["seed"]): row for row in self._rows}
        chosen = [found[model, seed] for model in models for seed in seeds]
        table = self._frame(chosen)
        stable = {
            model: stability(
                [_unpacked(found[model, seed]["domains"]) for seed in seeds if found[model, seed]["domains"]]
            )
            for model in models
        }
        table["stability"] = table["model"].map(stable).astype(np.float64)
        return table[["model", "seed", *self._scores, "stability", "error"]]


def stability(partitions: Sequence[np.ndarray]) -> float:
    """Mean adjusted Rand index of all pairs of partitions ``(n_obs,)``; NaN of fewer than two."""
    pairs = [adjusted_rand_score(a, b) for a, b in combinations(partitions, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")


def _packed(domains: np.ndarray | None) -> str:
    if domains is None:
        return ""
    return base64.b64encode(zlib.compress(domains.astype("<u4").tobytes())).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<u4")
