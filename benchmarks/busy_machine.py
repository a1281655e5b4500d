"""Seconds of training alone and beside a process that multiplies matrices, for all four models.

python benchmarks/busy_machine.py [--modes notebook command spinning] [--repeats 3] [--size 1.0] [--neighbor-threads 2]

Modes, each a process of its own: `notebook`, where torch was imported before us and nothing is set in the environment;
`command`, where OMP_WAIT_POLICY=passive is set before torch is imported, as `stomics` does; `spinning`, a notebook whose
threads spin while they wait, which is what happens without our care. Runs alone and beside the neighbor alternate (the
neighbor is stopped and goes on); medians are printed. The machine must have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from statistics import median

MODES = ("notebook", "command", "spinning")
SIZES = {
    "PRAGA": (20_000, 10),
    "PRAGASpike": (20_000, 4),
    "GraphST": (4_000, 40),
    "VARST": (600, 2),
    "MaskedDiffusion": (600, 2),
}
NEIGHBOR = "import torch\ntorch.set_num_threads({})\na = torch.rand(1500, 1500)\nwhile True:\n    a @ a"


def measure(mode: str, size: float, repeats: int, neighbor_threads: int) -> dict[str, list[list[float]]]:
    """Seconds of every training, alone and beside the neighbor, in this process."""
    import torch  # before us, as in a notebook

    if mode == "spinning":
        from stomics_tools.train import _threads

        _threads._gomp = lambda: None  # type: ignore[assignment]
    from _small_models import MAKE, train

    neighbor = subprocess.Popen([sys.executable, "-c", NEIGHBOR.format(neighbor_threads)])
    found: dict[str, list[list[float]]] = {}
    try:
        time.sleep(5)
        os.kill(neighbor.pid, signal.SIGSTOP)
        for name, (n_obs, n_epochs) in SIZES.items():
            n_obs = max(int(n_obs * size), 200)
            train(MAKE[name](n_obs), 1, accelerator="cpu")  # what is compiled or read at first use
            seconds: list[list[float]] = [[], []]
            for _ in range(repeats):
                for beside in (0, 1):
                    model = MAKE[name](n_obs)
                    if beside:
                        os.kill(neighbor.pid, signal.SIGCONT)
                        time.sleep(0.5)
                    start = time.perf_counter()
                    train(model, n_epochs, accelerator="cpu")
                    seconds[beside].append(time.perf_counter() - start)
                    os.kill(neighbor.pid, signal.SIGSTOP)
            found[name] = seconds
    finally:
        neighbor.kill()
    found["threads"] = [[float(torch.get_num_threads())]]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["notebook", "command"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=float, default=1.0, help="factor of the numbers of spots")
    parser.add_argument("--neighbor-threads", type=int, default=2)
    parser.add_argument("--here", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.here, options.size, options.repeats, options.neighbor_threads)))
        return
    print(f"load {os.getloadavg()[0]:.1f} before the start, {os.cpu_count()} processors")
    print(f"{'mode':10}{'model':17}{'alone':>8}{'beside':>8}{'times':>7}   all seconds, alone | beside")
    for mode in options.modes:
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
        if mode == "command":
            environment["OMP_WAIT_POLICY"] = "passive"
        command = [sys.executable, __file__, "--here", mode, "--size", str(options.size)]
        command += ["--repeats", str(options.repeats), "--neighbor-threads", str(options.neighbor_threads)]
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(run.stdout.splitlines()[-1])
        for name in SIZES:
            alone, beside = found[name]
            each = " | ".join(" ".join(f"{s:.1f}" for s in part) for part in (alone, beside))
            a, b = median(alone), median(beside)
            print(f"{mode:10}{name:17}{a:8.2f}{b:8.2f}{b / a:7.1f}   {each}", flush=True)


if __name__ == "__main__":
    main()
