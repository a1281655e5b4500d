"""What a newcomer waits for: the install command of the README, imports, help, the first result. See README.md."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from _runs import Runs
from tables import RESULTS, print_tables

ROOT = Path(__file__).parents[1]
COLUMNS = ("install_s", "installed_mib", "import_s", "import_model_s", "help_s", "demo_s")
REPEATS = 5


def seconds(*command: str, cwd: Path) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=cwd, stdout=subprocess.DEVNULL, env=environment())
    return time.perf_counter() - start


def environment() -> dict[str, str]:
    """Without what would lead to another installation."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def mib(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def measure() -> dict[str, float]:
    """All of it in a copy of the tree, with Python as it stands on the path."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "stomics-tools"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__"))
        (line,) = [line for line in (tree / "README.md").read_text().splitlines() if line.endswith("stomics demo")]
        install, demo = line.rsplit(" && ", 1)
        result = {"install_s": seconds("bash", "-euc", install, cwd=tree)}
        python, stomics = str(tree / ".venv/bin/python"), str(tree / demo.split()[0])
        result["installed_mib"] = mib(tree / ".venv")
        result["demo_s"] = seconds(*demo.split(), cwd=tree)  # also compiles Python files, as for a newcomer
        for name, command in {
            "import_s": (python, "-c", "import stomics_tools"),
            "import_model_s": (python, "-c", "import stomics_tools as st; st.model"),
            "help_s": (stomics, "--help"),
        }.items():
            result[name] = statistics.median(seconds(*command, cwd=tree) for _ in range(REPEATS))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="fresh environments")
    parser.add_argument("--out", type=Path, default=RESULTS / "newcomer.csv")
    arguments = parser.parse_args()
    runs = Runs(arguments.out, COLUMNS)
    for repeat in range(arguments.repeats):
        runs.run("fresh environment", "README", repeat, measure)
    print_tables(arguments.out, COLUMNS)


if __name__ == "__main__":
    main()
