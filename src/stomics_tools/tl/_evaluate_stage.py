"""One fold of an evaluation: training, prediction and scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scanpy import logging as logg

from stomics_tools._intervals import LevelError
from stomics_tools.data import Fold
from stomics_tools.data._expression import Normalization
from stomics_tools.metrics import interval_coverage, interval_width, noise_ceiling, score_expression, score_samples
from stomics_tools.tl._evaluate_data import SpotCounts
from stomics_tools.tl._evaluate_methods import Keys, fresh_model

_FEWEST = 3
"""Spots without which nothing is scored."""


@dataclass(frozen=True)
class Stage:
    """One fold, on which methods run and are scored."""

    spots: SpotCounts
    fold: Fold
    panel: np.ndarray
    normalization: Normalization
    keys: Keys
    min_counts: float
    deep_counts: float | None

    def run(
        self, name: str, method: Any, seed: int, levels: Sequence[float], n_samples: int
    ) -> Iterator[dict[str, Any]]:
        """Rows of a method with a seed."""
        train = self.spots.part(self.fold.train, self.panel, self.normalization)
        test = self.spots.without_truth(self.fold.test, self.panel)
        truth = np.asarray(self.spots.part(self.fold.test, self.panel, self.normalization).X)
        train_mean = np.nanmean(np.asarray(train.X, dtype=np.float64), axis=0)
        model = fresh_model(method, seed, self.keys)
        start = time.perf_counter()
        model.fit(train)
        predicted = _checked(model.predict(test.copy()), truth.shape, name, "predict")
        seconds = time.perf_counter() - start
        ends: dict[float, list[np.ndarray]] = {}
        if hasattr(model, "interval"):
            for level in levels:
                try:
                    both = model.interval(test.copy(), level)
                except LevelError as error:  # too few patients in this fold: the rest of its scores are not lost
                    logg.warning(f"{name!r}, {self.fold.name!r} left out: {error} It has no scores.")
                    ends[level] = []
                    continue
                ends[level] = [_checked(end, truth.shape, name, "interval") for end in both]
        samples = None
        if n_samples and hasattr(model, "sample"):
            drawn = model.sample(test.copy(), n_samples, seed)
            samples = _checked(drawn, (n_samples, *truth.shape), name, "sample")

        for section, least, rows in self._scored():
            scores = score_expression(
                truth[rows],
                predicted[rows],
                train_mean=train_mean,
                sections=self._sections(rows) if section == "all" else None,
                log_depth=np.log(self.spots.total[self.fold.test][rows]),
                gene_rank=np.arange(len(self.panel)),
            )
            for level, found in ends.items():
                both = [end[rows] for end in found]
                scores[f"coverage_{level:g}"] = interval_coverage(truth[rows], *both) if both else np.nan
                scores[f"width_{level:g}"] = interval_width(truth[rows], *both) if both else np.nan
            if samples is not None:
                scores |= score_samples(truth[rows], samples[:, rows])
            counted = {"n_train": len(self.fold.train), "seconds": seconds}
            yield {**self._key(name, seed, section, least), **scores, **counted}

    def ceiling(self, seed: int) -> Iterator[dict[str, Any]]:
        """Rows of the noise ceiling."""
        counts = self.spots.counts[self.fold.test]
        for section, least, rows in self._scored():
            filled = counts[rows].copy()
            filled.data = np.nan_to_num(filled.data)
            ceilings = [noise_ceiling(filled, self.panel, without_depth=w, seed=seed) for w in (False, True)]
            means = [float(c[~np.isnan(c)].mean()) if not np.isnan(c).all() else np.nan for c in ceilings]
            scores = {"pcc": means[0], "pcc_depth_out": means[1], "n_obs": float(len(rows))}
            yield {**self._key("noise ceiling", seed, section, least), **scores}

    def _scored(self) -> Iterator[tuple[str, float, np.ndarray]]:
        """Section, least counts and rows of the test part, of all that is scored together."""
        test = self.fold.test
        parts = {"all": np.ones(len(test), dtype=bool)}
        sections = self._sections(np.arange(len(test)))
        if sections is not None:
            parts |= {str(name): sections == name for name in np.unique(sections)}
        depths = [self.min_counts]
        if self.deep_counts is not None and self.deep_counts > self.min_counts:
            depths.append(self.deep_counts)
        for section, inside in parts.items():
            for least in depths:
                rows = np.flatnonzero(inside & (self.spots.total[test] >= least))
                if len(rows) >= _FEWEST:
                    yield section, least, rows

    def _sections(self, rows: np.ndarray) -> np.ndarray | None:
        if self.keys.section is None:
            return None
        return self.spots.obs[self.keys.section].astype(str).to_numpy()[self.fold.test][rows]

    def _key(self, name: str, seed: int, section: str, least: float) -> dict[str, Any]:
        return {"method": name, "fold": self.fold.name, "seed": seed, "section": section, "min_counts": least}


def _checked(values: Any, shape: tuple[int, ...], name: str, what: str) -> np.ndarray:
    """What a method returned; ``ValueError`` for another shape and numbers that are not finite."""
    found = np.asarray(values)
    if found.shape != shape:
        raise ValueError(
            f"`methods[{name!r}]`: `{what}` returned shape {found.shape}, expected {shape}: "
            "all test spots and genes, in their order."
        )
    n_bad = int(found.size - np.isfinite(found).sum())
    if n_bad:
        raise ValueError(f"`methods[{name!r}]`: `{what}` returned {n_bad} NaN or infinite values.")
    return found
