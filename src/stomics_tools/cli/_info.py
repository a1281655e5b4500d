"""What is installed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    "stomics-tools",
    "torch",
    "lightning",
    "scvi-tools",
    "scanpy",
    "squidpy",
    "anndata",
    "mudata",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
)


def info() -> None:
    """Print the versions of what is installed and the devices that models can train on.

    Examples
    --------
    stomics info
    """
    import torch

    print(f"{'python':14}{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        try:
            print(f"{package:14}{version(package)}")
        except PackageNotFoundError:
            print(f"{package:14}not installed")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"{'devices':14}{', '.join(['CPU', *devices])} ({torch.get_num_threads()} CPU threads)")
