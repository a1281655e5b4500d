"""A section that a model has not seen: its cells labelled by those of the other sections, by way of preparing it.

A PRAGASpike is trained on two of three sections of cortex; cells of the third get the region of most of their 15 nearest
neighbors in its latent representation. See README.md.
"""

from __future__ import annotations

import argparse
import os
import warnings
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
from _runs import Runs
from anndata import AnnData
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from tables import RESULTS, print_tables

import stomics_tools as st

DEFAULT_OUT = RESULTS / "new_section.csv"
FILE, BATCH, LABELS = "starmap_mpfc_3sections.h5ad", "section", "region"
METHODS = ("fit_of_its_own", "reference", "prepared_together")
"""`pp.rna(new)`; `pp.rna(new, reference=training)`; one `pp.rna` of all three sections."""


def prepared(method: str, training: AnnData, new: AnnData) -> tuple[AnnData, AnnData]:
    """The sections of training and the new one, each with the representation of `method`."""
    if method == "prepared_together":
        both = ad.concat([training, new])
        st.pp.rna(both)
        return both[: training.n_obs].copy(), both[training.n_obs :].copy()
    st.pp.rna(training)
    if method == "reference":
        st.pp.rna(new, reference=training)
    elif method == "fit_of_its_own":
        st.pp.rna(new)
        del new.uns["X_pca"], new.varm["X_pca"]  # the model would refuse it
    return training, new


def run(whole: AnnData, held_out: str, method: str, seed: int, epochs: int | None) -> dict[str, float]:
    """Accuracy and macro F1 of the cells of a section that neither the model nor, but for one method, a fit has seen."""
    there = (whole.obs[BATCH] == held_out).to_numpy()
    training, new = prepared(method, whole[~there].copy(), whole[there].copy())
    st.model.PRAGASpike.setup_anndata(training, {"rna": "X_pca"}, batch_key=BATCH)
    model = st.model.PRAGASpike(training)
    model.train(**({} if epochs is None else {"max_epochs": epochs}), seed=seed, enable_progress_bar=False)
    known = KNeighborsClassifier(15).fit(model.get_latent_representation(), training.obs[LABELS])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Modality 'rna': nothing says")
        found = known.predict(model.get_latent_representation(new))
    true = new.obs[LABELS].to_numpy()
    return {"accuracy": float(np.mean(found == true)), "macro_f1": float(f1_score(true, found, average="macro"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="default: that of the model")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--all-sections", action="store_true", help="hold out each of the sections, not the last alone")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    args = parser.parse_args()
    whole = ad.read_h5ad(Path(os.environ["STOMICS_DATA"]) / FILE)
    sections = sorted(whole.obs[BATCH].unique())
    runs = Runs(args.out, ("accuracy", "macro_f1"))
    for held_out in sections if args.all_sections else sections[-1:]:
        for seed in range(args.seeds):
            for method in args.methods:
                runs.run(held_out, method, seed, partial(run, whole, held_out, method, seed, args.epochs))
    print_tables(args.out)


if __name__ == "__main__":
    main()
