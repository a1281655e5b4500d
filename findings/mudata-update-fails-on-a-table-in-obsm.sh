#!/usr/bin/env bash
# mudata 0.3.10, anndata 0.12.19
# A DataFrame in `mdata.obsm`, which mudata takes and writes, makes `mdata.update()` fail with a KeyError of pandas as soon as
# spots change their order: rows are taken as `table[order]`, which are columns of a DataFrame. An array is reordered.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet mudata==0.3.10 anndata==0.12.19 "pandas<3"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

def outcome(make):
    adata = AnnData(np.zeros((4, 1), dtype=np.float32))
    adata.obs_names = list("abcd")
    mdata = MuData({"rna": adata})
    mdata.obsm["table"] = make(pd.DataFrame({"weight": np.arange(4.0)}, index=mdata.obs_names))
    mdata.mod["rna"] = mdata["rna"][["d", "c", "b", "a"]].copy()
    try:
        mdata.update()
    except KeyError as error:
        return "KeyError"
    return np.asarray(mdata.obsm["table"]).ravel().tolist()

found = outcome(lambda table: table), outcome(lambda table: table.to_numpy())
print("DataFrame:", found[0], "array:", found[1])
assert found == ("KeyError", [3.0, 2.0, 1.0, 0.0])
PYTHON
