#!/usr/bin/env bash
# lightning 2.6.6, scvi-tools 1.4.2
# Importing lightning draws from Python's generator and importing scvi-tools from NumPy's: a script that seeds both and
# then imports has other numbers than one that imports first.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet torch==2.13.0 lightning==2.6.6 scvi-tools==1.4.2 "pandas<3"
"$place/env/bin/python" -W ignore - << 'PYTHON'
import random

import numpy as np

def state():
    kind, keys, position, *_ = np.random.get_state()
    return random.getstate(), (keys.tobytes(), position)

random.seed(5)
np.random.seed(5)
before = state()
import lightning.pytorch

middle = state()
import scvi

after = state()
found = {"lightning": middle[0] != before[0], "scvi-tools": after[1] != middle[1]}
print("moved by:", found)
assert found == {"lightning": True, "scvi-tools": True}
PYTHON
