#!/usr/bin/env bash
# scanpy 1.11.5, scikit-misc 0.5.3, torch 2.13.0 (on a machine with several cores)
# OMP_NUM_THREADS=1 holds torch to one thread, until `sc.pp.highly_variable_genes(flavor="seurat_v3")` has run: numba, which
# scanpy calls there, sets the number of threads of the OpenMP library that torch uses too.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet torch==2.13.0 scanpy==1.11.5 scikit-misc==0.5.3 anndata==0.12.19 "pandas<3"
OMP_NUM_THREADS=1 "$place/env/bin/python" -W ignore - << 'PYTHON'
import os

import numpy as np
import scanpy as sc
import torch
from anndata import AnnData
from scipy import sparse

if (os.cpu_count() or 1) < 2:
    raise SystemExit("this needs a machine with several cores")
before = torch.get_num_threads()
counts = np.random.default_rng(0).negative_binomial(2, 0.2, size=(300, 200)).astype(np.float32)
sc.pp.highly_variable_genes(AnnData(sparse.csr_matrix(counts)), flavor="seurat_v3", n_top_genes=50)
after = torch.get_num_threads()
print("threads of torch before:", before, "after:", after)
assert before == 1 and after > 1
PYTHON
