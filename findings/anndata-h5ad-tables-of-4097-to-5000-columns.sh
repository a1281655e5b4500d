#!/usr/bin/env bash
# anndata 0.12.19, h5py 3.16.0
# A DataFrame in `obsm` is stored one dataset a column, with the names of the columns in one attribute. 4,000 columns are
# written and so are 5,001; 4,500 are not: OSError "object header message is too large".
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet anndata==0.12.19 h5py==3.16.0 "pandas<3"
cd "$place"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import anndata as ad
import numpy as np
import pandas as pd

def outcome(n_columns):
    adata = ad.AnnData(np.ones((2, 1), dtype=np.float32))
    columns = [f"gene{i}" for i in range(n_columns)]
    adata.obsm["table"] = pd.DataFrame(np.ones((2, n_columns), dtype=np.float32), adata.obs_names, columns)
    try:
        adata.write_h5ad(f"{n_columns}.h5ad")
    except OSError as error:
        return "too large" if "header message is too large" in str(error) else str(error)
    return "written"

found = {n: outcome(n) for n in (4000, 4500, 5001)}
print(found)
assert found == {4000: "written", 4500: "too large", 5001: "written"}
PYTHON
