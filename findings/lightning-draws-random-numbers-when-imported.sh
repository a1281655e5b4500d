#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0
# Importing lightning.pytorch draws from Python's global generator: a script that seeds `random` and then imports has other
# numbers than one that imports first.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet torch==2.13.0 lightning==2.6.6
"$place/env/bin/python" -W ignore - << 'PYTHON'
import random

random.seed(5)
first = random.random()
random.seed(5)
import lightning.pytorch

after = random.random()
print("the first number after the seed:", first, "with the import between:", after)
assert first != after
PYTHON
