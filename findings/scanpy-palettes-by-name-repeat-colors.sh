#!/usr/bin/env bash
# scanpy 1.11.5, matplotlib
# `palette="tab10"` does not take the colors of tab10 one after the other: it samples the colormap evenly from end to end.
# Three categories get the first, sixth and last color, and twelve categories share ten colors, without a warning.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet scanpy==1.11.5 anndata==0.12.19 "pandas<3"
MPLBACKEND=Agg "$place/env/bin/python" -W ignore - << 'PYTHON'
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib import colormaps
from matplotlib.colors import to_rgb

TAB10 = [to_rgb(color) for color in colormaps["tab10"].colors]

def colors(n_categories):
    adata = AnnData(np.zeros((n_categories, 1)), obsm={"spatial": np.random.default_rng(0).uniform(size=(n_categories, 2))})
    adata.obs["c"] = pd.Categorical([f"{i:02d}" for i in range(n_categories)])
    sc.pl.embedding(adata, "spatial", color="c", palette="tab10", show=False)
    found = [to_rgb(color) for color in adata.uns["c_colors"]]
    return [int(np.abs(np.array(TAB10) - color).sum(axis=1).argmin()) for color in found]

three, twelve = colors(3), colors(12)
print("of tab10, 3 categories:", three, "12 categories:", twelve)
assert three == [0, 5, 9] and len(set(twelve)) == 10
PYTHON
