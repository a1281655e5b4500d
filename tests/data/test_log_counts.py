"""Counts or not: one rule, and the same answer for a slice and for the next one."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from stomics_tools.data import are_counts, check_same_unit, decide_counts

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
