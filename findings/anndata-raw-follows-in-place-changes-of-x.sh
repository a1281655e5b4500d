#!/usr/bin/env bash
# anndata 0.12.19, scanpy 1.11.5
# `adata.raw = adata` is used to keep counts while X is normalized. The two share memory: `sc.pp.log1p(adata)`, which works
# in place, turns `adata.raw.X` into logarithms as well, dense and CSR, silently. `adata.raw = adata.copy()` keeps them.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet anndata==0.12.19 scanpy==1.11.5 "pandas<3"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import numpy as np
import scanpy as sc
from anndata import AnnData
from scipy import sparse

def raw_after_log1p(make, copy):
    adata = AnnData(make(np.array([[1.0, 3.0], [7.0, 15.0]], dtype=np.float32)))
    adata.raw = adata.copy() if copy else adata
    sc.pp.log1p(adata)
    values = adata.raw.X.toarray() if sparse.issparse(adata.raw.X) else adata.raw.X
    return values.round(2).tolist()

counts, logarithms = [[1.0, 3.0], [7.0, 15.0]], [[0.69, 1.39], [2.08, 2.77]]
for make in (np.array, sparse.csr_matrix):
    found = raw_after_log1p(make, copy=False), raw_after_log1p(make, copy=True)
    print(make.__name__, found)
    assert np.allclose(found[0], logarithms, atol=0.01) and found[1] == counts
PYTHON
