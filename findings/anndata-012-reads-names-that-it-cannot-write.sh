#!/usr/bin/env bash
# anndata 0.12.19, pandas 2.3.3
# A file whose observation names are stored as "nullable-string-array", as anndata 0.13 with pandas 3 stores them, is read,
# and the object that was read cannot be written again: RuntimeError. The file is made here by the setting of anndata 0.12
# that writes such names.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet anndata==0.12.19 pandas==2.3.3
cd "$place"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import anndata as ad
import numpy as np

adata = ad.AnnData(np.ones((3, 2), dtype=np.float32))
adata.obs_names = adata.obs_names.astype("string")
with ad.settings.override(allow_write_nullable_strings=True):
    adata.write_h5ad("new.h5ad")
again = ad.read_h5ad("new.h5ad")
try:
    again.write_h5ad("again.h5ad")
    outcome = "written"
except RuntimeError as error:
    outcome = f"RuntimeError: {error}"
print(again.obs_names.dtype, "|", outcome)
assert str(again.obs_names.dtype) == "string"
assert outcome.startswith("RuntimeError") and "allow_write_nullable_strings" in outcome
PYTHON
