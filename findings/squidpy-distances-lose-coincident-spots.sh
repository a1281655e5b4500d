#!/usr/bin/env bash
# squidpy 1.8.2
# Spots on one point are neighbors at distance 0. `spatial_connectivities` has these edges, `spatial_distances` does not
# store them: read as a sparse graph, three spots on one point have two neighbors each in one and none in the other.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet squidpy==1.8.2 anndata==0.12.19 "pandas<3"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import numpy as np
import squidpy as sq
from anndata import AnnData

adata = AnnData(np.ones((6, 1), dtype=np.float32))
adata.obsm["spatial"] = np.array([[0, 0], [0, 0], [0, 0], [5, 5], [6, 6], [7, 7]], dtype=float)
sq.gr.spatial_neighbors_knn(adata, n_neighs=2)
stored = {key: np.diff(adata.obsp[f"spatial_{key}"].tocsr().indptr).tolist() for key in ("connectivities", "distances")}
print(stored)
assert stored == {"connectivities": [2] * 6, "distances": [0, 0, 0, 2, 2, 2]}
PYTHON
