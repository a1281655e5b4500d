"""Make the figures of the page on plots, from simulated data."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

import stomics_tools as st


def main() -> None:
    """Write them into ``docs/_static``."""
    mpl.use("Agg")
    folder = Path(__file__).parent / "_static"
    mdata = st.datasets.simulate_multiomics(n_obs=600, n_domains=5)
    st.pp.rna(mdata["rna"])
    st.pp.protein(mdata["protein"])
    st.model.PRAGASpike.setup_mudata(mdata, modalities={"rna": "X_pca", "protein": "X_protein"})
    model = st.model.PRAGASpike(mdata)
    model.train(30, enable_progress_bar=False)
    st.pl.modality_weights(mdata, return_fig=True).savefig(folder / "plots_weights.png", dpi=70)
    st.pl.learned_graph(mdata, return_fig=True).savefig(folder / "plots_graph.png", dpi=80)


if __name__ == "__main__":
    main()
