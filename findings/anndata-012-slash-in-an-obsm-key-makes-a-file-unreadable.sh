#!/usr/bin/env bash
# anndata 0.12.19, h5py 3.16.0
# `obsm["a/b"]` is written to h5ad without a word, as a group "a" with a member "b". Reading the file fails with
# AttributeError: 'dict' object has no attribute 'shape', so that nothing of it can be had through anndata. A key of `uns`
# with a slash comes back as nested mappings instead.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet anndata==0.12.19 h5py==3.16.0 "pandas<3"
cd "$place"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import anndata as ad
import numpy as np

def written_and_read(adata):
    adata.write_h5ad("a.h5ad")
    try:
        return ad.read_h5ad("a.h5ad")
    except AttributeError as error:
        return f"AttributeError: {error}"

adata = ad.AnnData(np.ones((3, 2), dtype=np.float32))
adata.obsm["a/b"] = np.ones((3, 2))
obsm = written_and_read(adata)
del adata.obsm["a/b"]
adata.uns["a/b"] = "value"
uns = dict(written_and_read(adata).uns)
print(obsm, "|", uns)
assert obsm == "AttributeError: 'dict' object has no attribute 'shape'"
assert uns == {"a": {"b": "value"}}
PYTHON
