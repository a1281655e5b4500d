#!/usr/bin/env bash
# scvi-tools 1.4.2, rich 15.0.0
# `model.view_anndata_setup()` of a stock SCVI ends in AttributeError: module 'rich' has no attribute 'pretty', since
# scvi-tools uses `rich.pretty` without importing it and rich 15 does not import it by itself. It works after
# `import rich.pretty`.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet torch==2.13.0 scvi-tools==1.4.2 rich==15.0.0 "pandas<3"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import contextlib
import io

import numpy as np
import scvi
from anndata import AnnData

adata = AnnData(np.random.default_rng(0).poisson(3, size=(20, 5)).astype(np.float32))
scvi.model.SCVI.setup_anndata(adata)
model = scvi.model.SCVI(adata)

def outcome():
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model.view_anndata_setup()
    except AttributeError as error:
        return str(error)
    return "shown"

first = outcome()
import rich.pretty

found = first, outcome()
print(found)
assert found == ("module 'rich' has no attribute 'pretty'", "shown")
PYTHON
