"""A slice gets the same rows alone, beside other slices, and in any order of slices and spots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

from stomics_tools.model import PRAGA, GraphST, PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
# Slices differ in all that one could leak to another: shift, scale, size, unit of length, height, missing modalities.
SLICES = {
    "a": {"side": 9, "shift": 0.0},
    "b": {"side": 11, "shift": 6.0, "unit": 50.0, "height": 1.0},
    "c": {"side": 8, "shift": -3.0, "unit": 0.01, "height": 2.0},
    "no_protein": {"side": 9, "shift": 3.0, "missing": 1.0, "height": 3.0},
    "some_protein": {"side": 10, "shift": -6.0, "missing": 0.3, "height": 4.0},
    "one_protein": {"side": 8, "shift": 2.0, "missing": 0.985, "height": 5.0},
}


def _slice(name: str) -> AnnData:
    given: dict[str, Any] = {"unit": 1.0, "missing": 0.0, "height": 0.0, **SLICES[name]}
    rng = np.random.default_rng(sorted(SLICES).index(name))
    basis = np.random.default_rng(99)
    side, n = given["side"], given["side"] ** 2
    grid = np.stack(np.unravel_index(np.arange(n), (side, side)), axis=1) / side
    domain = ((grid > 0.5) @ [1, 2]).astype(int)
    rna = 1.5 * basis.normal(size=(4, 12))[domain] + rng.normal(size=(n, 12)) + given["shift"]
    protein = 1.5 * basis.normal(size=(4, 6))[domain] + rng.normal(size=(n, 6)) - given["shift"]
    protein[rng.permutation(n)[: round(given["missing"] * n)]] = np.nan
    rate = np.exp(0.7 * basis.normal(size=(4, 30)))[domain] * rng.uniform(2, 6, size=(n, 1))
    adata = AnnData(rng.poisson(rate).astype(np.float32))
    adata.obs_names = [f"{name}{i}" for i in range(n)]
    adata.obs["slice"] = name
    places = np.column_stack([grid + rng.normal(size=grid.shape) / 1000, np.full(n, given["height"])])
    adata.obsm.update({"X_pca": rna, "X_protein": protein, "spatial": places * given["unit"]})
    return adata


def _together(names: Sequence[str], seed: int | None = None) -> AnnData:
    """Slices one after the other, or with `seed` their spots mixed."""
    joined = anndata.concat([_slice(name) for name in names])
    joined.obs["slice"] = joined.obs["slice"].astype("category")
    return joined if seed is None else joined[np.random.default_rng(seed).permutation(joined.n_obs)].copy()


def _praga_spike(names: Sequence[str], **arguments: Any) -> PRAGASpike:
    adata = _together(names)
    PRAGASpike.setup_anndata(adata, MODALITIES, batch_key="slice")
    model = PRAGASpike(adata, **{"n_latent": 8, "n_feature_neighbors": 5, "layer_scale": 0.5, **arguments})
    model.train(6, key_added=None, **QUIET)
    return model


def _praga(names: Sequence[str], **arguments: Any) -> PRAGA:
    adata = _together(names)
    PRAGA.setup_anndata(adata, MODALITIES, batch_key="slice")
    model = PRAGA(adata, n_latent=8, n_feature_neighbors=5, **arguments)
    # As published, values are of any size: steps must be small.
    model.train(6, key_added=None, lr=0.01 if arguments else 1e-6, **QUIET)
    return model


def _graphst(names: Sequence[str], **arguments: Any) -> GraphST:
    adata = _together(names)
    GraphST.setup_anndata(adata, batch_key="slice")
    model = GraphST(adata, n_latent=8, **arguments)
    model.train(6, key_added=None, **QUIET)
    return model


def _check(rows_of: Callable[[AnnData], np.ndarray], names: Sequence[str], companies: Sequence[Sequence[str]]) -> None:
    alone = {name: rows_of(_slice(name)) for name in names}
    for seed, company in enumerate(companies):
        for given in (None, seed):
            adata = _together(company, given)
            found = rows_of(adata)
            assert np.isfinite(found).all()
            for name in alone.keys() & company:
                mine = (adata.obs["slice"] == name).to_numpy()
                at = adata.obs_names[mine].str.removeprefix(name).astype(int)
                np.testing.assert_allclose(found[mine], alone[name][at], atol=1e-5, err_msg=f"{name} in {company}")


COMPANIES = [
    ["a", "b"],
    ["c", "b", "a"],
    ["no_protein", "a"],
    ["some_protein", "no_protein"],
    ["one_protein", "b", "some_protein"],
    ["one_protein", "no_protein", "c", "some_protein", "b", "a"],
]


@pytest.mark.parametrize("trained_on", [["a"], ["a", "b"], ["a", "b", "some_protein", "no_protein"]], ids=len)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"edges": "uniform", "homogeneity_weight": 0.0},
        {"edges": "free"},
        {"encoder": "ssa", "residual": "sew"},
        {"encoder": "dssa"},
        {"encoder": "sdt3", "graph_fusion": "conv"},
        {"attention_windows": (None, 16)},
        {"use_fusion": False, "n_feature_neighbors": 20},
        {"praga": {"standardize": True}},
        {"praga": {}},
    ],
    ids=str,
)
def test_praga_and_praga_spike(arguments: dict[str, Any], trained_on: list[str]) -> None:
    published = "praga" in arguments
    model = _praga(trained_on, **arguments["praga"]) if published else _praga_spike(trained_on, **arguments)
    names, companies = list(SLICES), COMPANIES
    if published:  # needs neighbours among the spots that have a modality
        names = [name for name in names if name != "one_protein"]
        companies = [company for company in companies if "one_protein" not in company]
    if published or arguments.get("edges") == "free":
        # What was learned of single edges of the object of training counts there alone.
        names = [name for name in names if [name] != trained_on]
        companies = [company for company in companies if sorted(company) != sorted(trained_on)]
    _check(model.get_latent_representation, names, companies)
    for modality in MODALITIES:
        _check(lambda adata: model.get_latent_representation(adata, modality=modality), ["b", "c"], [["b", "c"]])  # noqa: B023


@pytest.mark.parametrize("trained_on", [["a"], ["a", "b", "c"]], ids=len)
@pytest.mark.parametrize("arguments", [{}, {"preset": "dense"}, {"preset": "sparse"}, {"standardize": False}], ids=str)
def test_graphst(arguments: dict[str, Any], trained_on: list[str]) -> None:
    model = _graphst(trained_on, **arguments)
    companies = [["a", "b"], ["b", "c", "a"], ["c", "no_protein", "some_protein"]]
    _check(model.get_latent_representation, list(SLICES), companies)
    _check(model.get_reconstruction, ["a", "b", "c"], [["a", "b", "c"]])


def test_slices_of_the_object_of_training() -> None:
    model = _praga_spike(["a", "b", "no_protein"])
    inside = model.get_latent_representation()
    for name in ("a", "b", "no_protein"):
        own = (model.adata.obs["slice"] == name).to_numpy()
        np.testing.assert_allclose(model.get_latent_representation(_slice(name)), inside[own], atol=1e-5)


def test_learned_weights_of_single_edges_count_in_the_object_of_training_alone() -> None:
    model = _praga_spike(["a", "b"], edges="free")
    inside, alone = model.get_latent_representation()[:81], model.get_latent_representation(_slice("a"))
    assert np.abs(inside - alone).max() > 1e-4  # as documented
    permuted = model.get_latent_representation(_together(["b", "a"]))[-81:]
    np.testing.assert_allclose(permuted, alone, atol=1e-5)


@pytest.mark.parametrize("several", [True, False])
def test_how_slices_are_centered_is_kept_in_a_file(several: bool, tmp_path: Path) -> None:
    model = _praga_spike(["a", "b"] if several else ["a"])
    model.save(tmp_path / "model")
    loaded = PRAGASpike.load(tmp_path / "model", _slice("c"))  # one slice, whatever it was trained on
    np.testing.assert_array_equal(loaded.get_latent_representation(), model.get_latent_representation(_slice("c")))
    lacking = PRAGASpike.load(tmp_path / "model", _slice("no_protein"))
    alone = model.get_latent_representation(_slice("no_protein"))
    np.testing.assert_array_equal(lacking.get_latent_representation(), alone)
    both = model.get_latent_representation(_slice("a"))
    np.testing.assert_array_equal(lacking.get_latent_representation(_slice("a")), both)  # the unit of training is kept
    shifted = _slice("c")
    shifted.obsm["X_pca"] += 5.0
    shift = np.abs(loaded.get_latent_representation(shifted) - loaded.get_latent_representation()).max()
    assert shift < 1e-4 if several else shift > 1


def test_mudata_of_a_slice_without_a_modality() -> None:
    def mudata_of(names: Sequence[str]) -> MuData:
        adata = _together(names)
        parts = {}
        for name, key in MODALITIES.items():
            there = np.isfinite(adata.obsm[key]).all(axis=1)
            parts[name] = AnnData(obs=adata.obs[there][[]], obsm={key: adata.obsm[key][there]})
        mdata = MuData(parts)
        mdata.obsm["spatial"] = adata[mdata.obs_names].obsm["spatial"]
        mdata.obs["slice"] = adata.obs["slice"].reindex(mdata.obs_names)
        return mdata

    training = mudata_of(["a", "b"])
    PRAGASpike.setup_mudata(training, MODALITIES, batch_key="slice")
    model = PRAGASpike(training, n_latent=8)
    model.train(3, key_added=None, **QUIET)
    both = mudata_of(["no_protein", "b"])
    own = (both.obs["slice"] == "no_protein").to_numpy()
    alone = both[own].copy()
    assert alone["protein"].n_obs == 0
    np.testing.assert_allclose(
        model.get_latent_representation(alone), model.get_latent_representation(both)[own], atol=1e-5
    )


def test_order_of_the_slices_of_training() -> None:
    latents = []
    for names in permutations(["a", "b", "some_protein"]):
        latents.append(_praga_spike(names).get_latent_representation(_slice("c")))
    for other in latents[1:]:
        np.testing.assert_allclose(other, latents[0], atol=1e-4)
