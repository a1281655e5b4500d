"""Seconds and peak memory of `tl.spatial_components`, graph included, and scores by recipe and number of starts.

python benchmarks/spatial_components.py                      # 100,000 spots x 50 features in one and in two modalities
python benchmarks/spatial_components.py --sizes 10000 1000000
python benchmarks/spatial_components.py --recipes 151675 osmfish starmap_BZ5

The features carry signal in 20 directions on random positions, so that no direction is left out as noise. It prints and
writes no file. With `--recipes` slices of `domains.py` are prepared by `pp.rna` and by the usual recipe of scanpy
(logarithms, 3,000 variable genes, scaled or not, 20 to 50 components), and clustered from the starts of
`tl.spatial_domains`, from 5 starts, and by 5 starts of scikit-learn's mixture; beside them averages over two steps.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

import numpy as np
import pandas as pd
import scanpy as sc
from _runs import in_a_new_process, peak_mib
from anndata import AnnData
from sklearn.mixture import GaussianMixture

import stomics_tools as st

FEATURES, SIGNALS = 50, 20
RECIPES = {"pp.rna": None} | {
    f"{'scaled' if scaled else 'unscaled'}, {n}": (scaled, n) for scaled in (False, True) for n in (20, 30, 50)
}


def tissue(n_obs: int, n_modalities: int) -> AnnData:
    """Waves of many lengths, mixed into noisy features."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(n_obs, 2)) * n_obs**0.5
    waves = np.sin(xy @ rng.normal(0, 0.1, size=(2, SIGNALS)) + rng.uniform(0, 6, SIGNALS))
    adata = AnnData(obsm={"spatial": xy})
    for name in "abc"[:n_modalities]:
        noise = rng.normal(size=(n_obs, FEATURES))
        adata.obsm[name] = (waves @ rng.normal(size=(SIGNALS, FEATURES)) + 2 * noise).astype(np.float32)
    return adata


def measure(n_obs: int, n_modalities: int) -> dict[str, float]:
    """One call, everything that it imports being there."""
    keys = {name: name for name in "abc"[:n_modalities]}
    st.tl.spatial_components(tissue(500, n_modalities), keys)
    adata, before = tissue(n_obs, n_modalities), peak_mib()
    start, processor = time.perf_counter(), time.process_time()
    st.tl.spatial_components(adata, keys)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    n_components = adata.obsm["X_spatial_components"].shape[1]
    return {
        "seconds": seconds,
        "processor_seconds": processor,  # on a machine that others use as well
        "components": n_components,
        "more_mib": peak_mib() - before,
    }


def usual(adata: AnnData, scaled: bool, n_comps: int) -> np.ndarray:
    """Components as scanpy's tutorials make them."""
    adata = adata.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    if adata.n_vars > 3000:
        sc.pp.highly_variable_genes(adata, n_top_genes=3000)
        adata = adata[:, adata.var["highly_variable"]].copy()
    if scaled:
        sc.pp.scale(adata, max_value=10)
    sc.pp.pca(adata, n_comps=min(n_comps, adata.n_vars - 1, adata.n_obs - 1), random_state=0)
    return adata.obsm["X_pca"]


def scores(name: str, n_seeds: int) -> pd.DataFrame:
    """Adjusted Rand index of the domains of a slice, mean over seeds, by recipe."""
    from _data import TRUTH, read

    mdata = read(name)
    rna, truth = mdata["rna"], mdata.obs[TRUTH]
    rows = {}
    for recipe, arguments in RECIPES.items():
        adata = AnnData(obs=mdata.obs, obsm={"spatial": mdata.obsm["spatial"]})
        adata.obsm["x"] = st.pp.rna(rna, copy=True).obsm["X_pca"] if arguments is None else usual(rna, *arguments)
        st.tl.spatial_components(adata, "x")
        st.pp.smooth(adata, "x", n_hops=2)
        z, k = adata.obsm["X_spatial_components"].astype(np.float64), truth.nunique()
        found: dict[str, list[float]] = {}
        for seed in range(n_seeds):
            for label, rep, n_starts in (
                ("default starts", "X_spatial_components", None),
                ("5 starts", "X_spatial_components", 5),
                ("two steps of smoothing", "X_smooth", None),
            ):
                st.tl.spatial_domains(adata, k, use_rep=rep, n_starts=n_starts, seed=seed)
                found.setdefault(label, []).append(_ari(truth, adata.obs["spatial_domain"]))
            mixture = GaussianMixture(k, covariance_type="tied", n_init=5, random_state=seed).fit(z)
            labels = pd.Series(mixture.predict(z).astype(str), index=truth.index)
            found.setdefault("scikit-learn, 5 starts", []).append(_ari(truth, labels))
        rows[recipe] = {label: np.mean(values) for label, values in found.items()} | {"components": z.shape[1]}
    return pd.DataFrame(rows).T


def _ari(truth: pd.Series, found: pd.Series) -> float:
    return st.metrics.score_labels(truth, found)["ari"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    parser.add_argument("--recipes", nargs="+", metavar="SLICE", help="scores of these slices instead")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=2, type=int, metavar=("N_OBS", "N_MODALITIES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
    elif arguments.recipes:
        for name in arguments.recipes:
            print(f"{name}\n{scores(name, arguments.seeds).round(3).to_string()}\n", flush=True)
    else:
        for n_obs in arguments.sizes:
            for n_modalities in (1, 2):
                found = in_a_new_process(__file__, n_obs, n_modalities)
                print(f"{n_obs:,} spots, {n_modalities} x {FEATURES} features: {found}", flush=True)


if __name__ == "__main__":
    main()
