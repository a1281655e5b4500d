"""Does PRAGASpike overtake the closed form as training data grow? Errors and domains on slices not trained on.

python benchmarks/learning_curves.py                                   # all sets
python benchmarks/learning_curves.py --data codex --seeds 2

Of each set, models are trained on growing parts and judged on slices that are in none of them: by the mean squared error
of the features of blind spots (a fifth of the spots, whose features are hidden from everything), and by the agreement of
domains with the labels. `components` is `tl.spatial_components` fitted to the same spots, in the same units. One row a
test slice, method and seed is appended to `results/learning_curves.csv`; the summary is paired by test slice.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from _runs import Runs, in_a_process
from domains import quiet
from scipy import sparse
from tables import RESULTS

import stomics_tools as st
from stomics_tools._spatial_components import SpatialComponents, fit_spatial_components
from stomics_tools.metrics import score_labels
from stomics_tools.model.praga_spike._inputs import Inputs, as_matrix

DEFAULT_OUT = RESULTS / "learning_curves.csv"
KEY, SLICE, TRUTH = "X_features", "slice", "truth"
BLIND = 0.2


@dataclass(frozen=True)
class Set:
    """Sizes of training (spots or sections), and what gives training and test slices of a size and seed."""

    sizes: tuple[int, ...]
    read: Callable[[int, int], tuple[ad.AnnData, list[ad.AnnData]]]


def data(file: str) -> ad.AnnData:
    if "STOMICS_DATA" not in os.environ:
        raise SystemExit("Set STOMICS_DATA to the folder of the data sets.")
    return ad.read_h5ad(Path(os.environ["STOMICS_DATA"]) / file)


def slices(adata: ad.AnnData, column: str) -> dict[str, ad.AnnData]:
    return {str(name): adata[adata.obs[column] == name].copy() for name in adata.obs[column].unique()}


def ready(adata: ad.AnnData, name: str, label: str | None) -> ad.AnnData:
    """One slice with its cell types as features."""
    x = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
    result = ad.AnnData(obs=pd.DataFrame({SLICE: name}, index=adata.obs_names), obsm={"spatial": adata.obsm["spatial"]})
    result.obsm[KEY] = x.astype(np.float32)
    if label is not None:
        result.obs[TRUTH] = adata.obs[label].astype(object).to_numpy()
    return result


def codex(size: int, seed: int) -> tuple[ad.AnnData, list[ad.AnnData]]:
    first, second = slices(data("codex_spleen_2slices.h5ad"), SLICE).values()
    center = first.obsm["spatial"][np.random.default_rng(seed).integers(first.n_obs)]
    near = np.argsort(np.abs(first.obsm["spatial"] - center).max(axis=1))[:size]  # a square of the tissue
    return ready(first[np.sort(near)], "train", None), [ready(second, "second", "region")]


def merfish(size: int, seed: int) -> tuple[ad.AnnData, list[ad.AnnData]]:
    everything = data("merfish_hypothalamus_types_36animals.h5ad")
    own = everything.obs["animal"].astype(str) == "1"
    others = everything.obs.loc[~own, "section"].unique()
    chosen = np.random.default_rng(seed).choice(np.asarray(others, dtype=str), size, replace=False)
    train = [ready(everything[(everything.obs["section"].astype(str) == c).to_numpy()], c, None) for c in chosen]
    labelled = slices(everything[(own & everything.obs["region"].notna()).to_numpy()], "section")
    return ad.concat(train), [ready(part, name, "region") for name, part in labelled.items()]


def her2st(size: int, seed: int) -> tuple[ad.AnnData, list[ad.AnnData]]:
    everything = slices(data("her2st_patients_AtoF.h5ad"), "section")
    test = {name: part for name, part in everything.items() if name.endswith("1")}
    others = [name for name in everything if name not in test]
    chosen = np.random.default_rng(seed).choice(others, size, replace=False)
    train = ad.concat([everything[name] for name in chosen])
    st.pp.rna(train)
    train.obsm[KEY], train.obs[SLICE] = train.obsm["X_pca"], train.obs["section"].astype(str)
    for part in test.values():
        st.pp.rna(part, reference=train)
        part.obsm[KEY] = part.obsm["X_pca"]
        part.obs[SLICE] = part.obs["section"].astype(str)
        labels = part.obs["pathology"].astype(object)
        part.obs[TRUTH] = labels.where(labels != "undetermined").to_numpy()
    return train, list(test.values())


def simulation(size: int, seed: int) -> tuple[ad.AnnData, list[ad.AnnData]]:
    mdata = st.datasets.simulate_multiomics(n_obs=2 * size, n_domains=6, n_batches=2, modalities=["rna"], seed=seed)
    train, test = slices(mdata["rna"], "slice").values() if "slice" in mdata["rna"].obs else (None, None)
    if train is None:
        parts = [mdata["rna"][(mdata.obs["slice"] == name).to_numpy()].copy() for name in mdata.obs["slice"].unique()]
        for part in parts:
            part.obsm["spatial"] = mdata[part.obs_names].obsm["spatial"]
            part.obs["domain"] = mdata.obs.loc[part.obs_names, "domain"].astype(object)
        train, test = parts
    st.pp.rna(train)
    st.pp.rna(test, reference=train)
    for part in (train, test):
        part.obsm[KEY], part.obs[SLICE], part.obs[TRUTH] = (
            part.obsm["X_pca"],
            "slice",
            part.obs["domain"].astype(object),
        )
    return train, [test]


SETS = {
    "codex": Set((5_000, 20_000, 82_000), codex),
    "merfish_animals": Set((1, 4, 16, 32), merfish),
    "her2st": Set((1, 4, 12, 23), her2st),
    "simulation": Set((2_000, 20_000, 100_000), simulation),
}


def train(adata: ad.AnnData, seed: int) -> st.model.PRAGASpike:
    st.model.PRAGASpike.setup_anndata(adata, {"features": KEY}, batch_key=SLICE)
    model = st.model.PRAGASpike(adata)
    model.train(seed=seed, accelerator="cpu", key_added=None, enable_progress_bar=False)
    return model


def fit_components(inputs: Inputs) -> SpatialComponents:
    """The closed form of the same spots, whose features are centered and scaled already."""
    batch = torch.arange(len(inputs.segments) - 1).repeat_interleave(inputs.segments.diff())
    return fit_spatial_components(*arrays(inputs), inputs.distances, batch.numpy(), center_slices=False)


def arrays(inputs: Inputs) -> tuple[list[np.ndarray], list[np.ndarray], list[sparse.csr_matrix]]:
    present = [there[:, 0].numpy() > 0 for there in inputs.present]
    return [x.numpy() for x in inputs.values], present, [as_matrix(ring) for ring in inputs.rings]


@torch.no_grad()
def judge(
    model: st.model.PRAGASpike, fitted: SpatialComponents, test: ad.AnnData
) -> Iterator[tuple[str, float, float]]:
    """Method, error of blind spots, and agreement of domains."""
    inputs, module = model._inputs(test)[0], model.module
    blind = np.random.default_rng(0).random(inputs.n_obs) < BLIND
    values, present, rings = arrays(inputs)
    seen = torch.from_numpy(~blind[:, None]).to(inputs.values[0])
    predicted = module._features(module(inputs, [there * seen for there in inputs.present]).predicted)[0].numpy()
    own = fitted.own_values(values, [there & ~blind for there in present], np.zeros(inputs.n_obs, dtype=np.int64))
    closed, _ = fitted.predict(own, [there & ~blind for there in present], rings)
    batch = np.zeros(inputs.n_obs, dtype=np.int64)
    latents = {
        "praga_spike": model.get_latent_representation(test),
        "components": inputs.restore(fitted.transform(values, present, rings, batch)),
    }
    for name, found in (("praga_spike", predicted), ("components", closed @ fitted.decoders[0] * fitted.scales[0])):
        yield name, float(np.square(found - values[0])[blind].mean()), agreement(test, latents[name])


def agreement(test: ad.AnnData, latent: np.ndarray) -> float:
    if TRUTH not in test.obs:
        return float("nan")
    test.obsm["X_judged"] = latent
    n_domains = test.obs[TRUTH].nunique()
    st.tl.spatial_domains(test, n_domains, use_rep="X_judged", key_added="judged")
    return score_labels(test.obs[TRUTH], test.obs["judged"])["ari"]


def run(out: Path, name: str, size: int, seed: int) -> None:
    quiet()
    runs = Runs(out, ("mse", "ari", "n_train", "n_epochs"))
    adata, tests = SETS[name].read(size, seed)
    model = train(adata, seed)
    fitted = fit_components(model._inputs(None)[0])
    counts = {"n_train": adata.n_obs, "n_epochs": len(model.history["train_loss"])}
    for test in tests:
        for method, error, ari in judge(model, fitted, test):
            row = {"mse": error, "ari": ari, **counts}
            where = test.obs[SLICE].iloc[0]
            runs.run(f"{name} {size} -> {where}", method, seed, partial(dict, row))


def summary(path: Path) -> str:
    """Differences of the model from the closed form, paired by test slice and seed: mean ± sd over seeds."""
    runs = pd.read_csv(path)
    runs["set"] = runs["dataset"].str.split(" -> ").str[0]
    wide = runs.pivot_table(index=["set", "dataset", "seed"], columns="method", values=["mse", "ari"])
    ratio = 100 * (wide["mse", "praga_spike"] / wide["mse", "components"] - 1)
    gain = wide["ari", "praga_spike"] - wide["ari", "components"]
    lines = [
        "| training | error, closed form | error, change in % | ARI, closed form | ARI, change | seeds |",
        "|---" * 6 + "|",
    ]
    for name in dict.fromkeys(runs["set"]):
        of_seed = [
            x.loc[name].groupby("seed").mean()
            for x in (wide["mse", "components"], ratio, wide["ari", "components"], gain)
        ]
        cells = [f"{x.mean():.3f} ± {x.std():.3f}" for x in of_seed]
        lines.append(f"| {name} | {' | '.join(cells)} | {len(of_seed[0])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sizes", nargs="+", type=int, help="default: those of the set")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    arguments = parser.parse_args()
    for name in arguments.data:
        for size in arguments.sizes or SETS[name].sizes:
            done = pd.read_csv(arguments.out)[["dataset", "seed"]] if arguments.out.exists() else None
            for seed in range(arguments.seeds):
                of_size = f"{name} {size} -> "
                if done is None or not (done["dataset"].str.startswith(of_size) & (done["seed"] == seed)).any():
                    in_a_process(run, arguments.out, name, size, seed)
    print(summary(arguments.out))


if __name__ == "__main__":
    main()
