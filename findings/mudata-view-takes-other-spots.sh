#!/usr/bin/env bash
# mudata 0.3.10, anndata 0.12.19
# A modality of a MuData is replaced by the same spots in another order, without `update()`. A view of spot "a" then holds
# spot "d" of that modality beside spot "a" of the other, silently: rows come from positions remembered in `obsmap`.
# After `update()` it holds "a" of both.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet mudata==0.3.10 anndata==0.12.19 "pandas<3"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import numpy as np
from anndata import AnnData
from mudata import MuData

def modality(gene):
    adata = AnnData(np.zeros((4, 1), dtype=np.float32))
    adata.obs_names, adata.var_names = list("abcd"), [gene]
    return adata

mdata = MuData({"rna": modality("g"), "protein": modality("p")})
mdata.mod["rna"] = mdata["rna"][["d", "c", "b", "a"]].copy()
view = mdata[["a"]]
before = [list(view[name].obs_names) for name in ("rna", "protein")]
mdata.update()
view = mdata[["a"]]
after = [list(view[name].obs_names) for name in ("rna", "protein")]
print("before update:", before, "after:", after)
assert (before, after) == ([["d"], ["a"]], [["a"], ["a"]])
PYTHON
