"""Recipes as arrays: what they give, when two are the same, and what is no recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from stomics_tools.data._recipe import Recipe

NAMES = tuple("abcdef")


@pytest.fixture
def recipe() -> Recipe:
    """A recipe of RNA: totals over five of six genes, three of which are used."""
    rng = np.random.default_rng(0)
    return Recipe(
        "rna",
        features=("d", "a", "c"),
        loadings=rng.normal(size=(3, 2)).astype(np.float32),
        center=np.array([1.0, 0.5, 0.2]),
        scale=np.array([1.0, 2.0, 4.0]),
        target_sum=100.0,
        total_features=tuple("abcde"),
        total_shares=np.array([0.3, 0.03, 0.3, 0.3, 0.07]),
    )


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(1).poisson(3.0, size=(7, 6))


def expected(recipe: Recipe, counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    logs = np.log1p(100.0 * counts[:, [3, 0, 2]] / totals[:, None])
    return ((logs - recipe.center) / recipe.scale) @ recipe.loadings


def transform(recipe: Recipe, counts: np.ndarray, names=NAMES) -> np.ndarray:
    return recipe.transform(sparse.csr_matrix(counts), names, argument="adata", where="adata.X")


def test_coordinates_by_the_formula(recipe, counts):
    np.testing.assert_allclose(
        transform(recipe, counts), expected(recipe, counts, counts[:, :5].sum(axis=1)), atol=1e-5
    )


def test_totals_without_a_rare_gene_are_scaled_up(recipe, counts):
    without = [0, 2, 3, 4, 5]
    with pytest.warns(UserWarning, match="over 5 genes, of which 1 with 3% of all counts are not in `adata.X`"):
        found = transform(recipe, counts[:, without], np.array(NAMES)[without])
    np.testing.assert_allclose(found, expected(recipe, counts, counts[:, [0, 2, 3, 4]].sum(axis=1) / 0.97), atol=1e-5)
    without = [0, 1, 2, 3, 5]
    with pytest.raises(ValueError, match="of which 1 with 7% of all counts"):
        transform(recipe, counts[:, without], np.array(NAMES)[without])


def test_names_that_repeat(recipe, counts):
    with pytest.raises(ValueError, match="feature names of `adata.X` repeat"):
        transform(recipe, counts, ["a", "a", "c", "d", "e", "f"])


@pytest.mark.parametrize(
    "change",
    [
        {"features": ("d", "a", "b")},
        {"total_features": tuple("abcdf")},
        {"target_sum": 101.0},
        {"center": np.array([1.0, 0.5, 0.3])},
        {"scale": np.array([1.0, 2.0, 4.1])},
        {"loadings": np.ones((3, 2), np.float32)},
        {"loadings": np.ones((3, 3), np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_the_coordinates_tells_recipes_apart(recipe, change):
    other = replace(recipe, **change)
    assert not recipe.gives_the_same_as(other)
    assert recipe.fingerprint != other.fingerprint
    again = Recipe.from_plain(recipe.entry(), argument="reference", where="here")
    assert recipe.gives_the_same_as(again)
    assert recipe.fingerprint == again.fingerprint


def test_another_place_of_the_counts_is_the_same_recipe(recipe):
    assert recipe.gives_the_same_as(replace(recipe, layer="counts"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "dna"}, "unknown kind 'dna'"),
        ({"scale": None}, "without"),
        ({"loadings": np.ones((4, 2))}, "arrays of different length"),
        ({"total_shares": np.ones(2)}, "totals of different length"),
        ({"center": ["x", "y", "z"]}, "could not convert"),
        ({"features": None}, "features"),
    ],
)
def test_what_is_no_recipe(recipe, change, message):
    plain = {name: value for name, value in {**recipe.plain(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=f"`reference`: `here` holds no recipe that can be read.*{message}"):
        Recipe.from_plain(plain, argument="reference", where="here")
