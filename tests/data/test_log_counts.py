"""Counts or not: one rule, and the same answer for a slice and for the next one."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from stomics_tools.data import are_counts, check_same_unit, decide_counts
from stomics_tools.data._log_counts import check_same_total, log_total

COUNTS = np.array([[0.0, 3.0], [25.0, np.nan]])


def test_whole_and_not_negative_values_are_counts_however_small() -> None:
    assert are_counts(COUNTS)
    assert are_counts(COUNTS[:1].astype(np.int64))
    assert are_counts(np.minimum(COUNTS, 1))
    assert are_counts(sparse.csr_matrix(np.nan_to_num(COUNTS)))
    assert are_counts(np.array([[True, False]]))
    assert not are_counts(COUNTS + 0.5)
    assert not are_counts(np.log1p(COUNTS))
    assert not are_counts(COUNTS - 1)
    assert not are_counts(np.array([[np.inf, 1.0]]))


def test_the_last_value_of_many_is_looked_at() -> None:
    many = np.zeros((3000, 1000), dtype=np.float32)
    assert are_counts(many)
    many[-1, -1] = 0.5
    assert not are_counts(many)
    assert not are_counts(many.ravel())


def _decide(values: Any, counts: bool | None) -> bool:
    return decide_counts(values, counts, argument="layer", where="adata.X")


def test_the_user_decides_and_else_the_rule(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="stomics_tools"):
        assert _decide(COUNTS, None)
        assert not _decide(COUNTS / 2, None)
    assert [("taken as counts" in line, "taken as they are" in line) for line in caplog.messages] == [
        (True, False),
        (False, True),
    ]
    assert not _decide(COUNTS, False)
    assert _decide(COUNTS / 2, True)
    with pytest.raises(ValueError, match=r"`counts=True`: `adata.X` holds negative values \(minimum -1\)"):
        _decide(COUNTS - 1, True)
    with pytest.raises(TypeError, match="`counts` must be True, False or None"):
        _decide(COUNTS, "yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setup", "values", "message"),
    [
        ((True, True), COUNTS, None),
        ((True, True), np.log1p(COUNTS), "set up with counts, `adata.X` holds negative or fractional"),
        ((True, False), COUNTS / 3, None),
        ((True, False), COUNTS, None),
        ((False, False), np.log1p(COUNTS), None),
        ((False, False), COUNTS, "no counts.*`adata.X` holds counts"),
        ((False, True), COUNTS, None),
        ((False, True), COUNTS / 3, "set up with whole values"),
        ((False, False), COUNTS * 0, None),
    ],
)
def test_units_of_new_values(setup: tuple[bool, bool], values: np.ndarray, message: str | None) -> None:
    counts, whole = setup
    arguments = {"counts": counts, "whole": whole, "argument": "layer", "where": "adata.X"}
    if message is None:
        check_same_unit(values, **arguments)  # type: ignore[arg-type]
    else:
        with pytest.raises(ValueError, match=message):
            check_same_unit(values, **arguments)  # type: ignore[arg-type]


def _of_unit(unit: str) -> np.ndarray:
    counts = np.random.default_rng(3).poisson(4.0, (60, 40)) + 0.0
    values = counts / counts.sum(axis=1, keepdims=True) * 1e4
    if unit == "unlogged":
        return values
    values = np.log1p(values) if unit != "base 2" else np.log2(1 + values)
    return (values - values.mean(0)) / values.std(0) if unit == "scaled" else values


@pytest.mark.parametrize(
    ("unit", "found", "words"),
    [
        ("logarithms", [np.e, 1e4], "logarithms of base e of counts that add up to 10000"),
        ("base 2", [2.0, 1e4], "logarithms of base 2 of counts that add up to 10000"),
        ("unlogged", [1.0, 1e4], "`x` holds values that add up to 10000 in every spot.*and take logarithms"),
        ("scaled", [0.0, 0.0], "`x` holds negative values, as scaling makes them"),
    ],
)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_the_unit_of_values_that_are_no_counts(unit: str, found: list[float], words: str, kind: Any) -> None:
    own = log_total(kind(_of_unit(unit)))
    np.testing.assert_allclose(own, found, rtol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same_total(own, found, where="x")
        check_same_total(None, found, where="x")
    others = {"logarithms", "base 2", "unlogged", "scaled"} - {unit}
    for other in others:
        with pytest.warns(UserWarning, match=words if other == "logarithms" else "The model was set up with"):
            check_same_total(own, log_total(_of_unit(other)), where="x")
