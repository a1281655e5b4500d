"""What is installed, and what is in a file."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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


def info(input: Path | None = None, *, spatial_key: str = "spatial") -> None:
    """Print the versions of what is installed and the devices that models can train on, or what is in a file.

    Of a file: modalities, kinds of features, control features, and the columns that the other commands take for slices
    and labels unless they are told otherwise.

    Parameters
    ----------
    input
        h5ad or h5mu file, or zarr folder. Default: what is installed.
    spatial_key
        Key of the coordinates in obsm.

    Examples
    --------
    stomics info
    stomics info slice.h5mu
    """
    if input is not None:
        _print_slice(input, spatial_key)
        return
    import torch

    print(f"{'python':14}{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        try:
            print(f"{package:14}{version(package)}")
        except PackageNotFoundError:
            print(f"{package:14}not installed")
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"{'devices':14}{', '.join(['CPU', *devices])} ({torch.get_num_threads()} CPU threads)")


def _print_slice(path: Path, spatial_key: str) -> None:
    """What the other commands would find in a file."""
    from stomics_tools.cli._checks import check_input

    check_input(path)
    from anndata import AnnData

    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._files import read_input
    from stomics_tools.data import are_counts, open_matrix
    from stomics_tools.data._feature_types import control_features, counted, feature_kinds

    data = read_input(path)
    parts = {"features": data} if isinstance(data, AnnData) else dict(data.mod)
    print(f"{'spots':14}{data.n_obs}")
    for name, adata in parts.items():
        features = feature_kinds(adata.var)
        usable = ~features.is_control
        kinds = [kind or own or "features" for kind, own in zip(features.kinds, features.types, strict=True)]
        told = [kind for kind, kept in zip(kinds, usable, strict=True) if kept]
        values = "no values"
        if adata.X is not None:
            counts = are_counts(open_matrix(adata.X, argument="input", where="X"))
            values = "counts" if counts else "no counts"
        print(f"{name:14}{adata.n_vars}: {counted(told)}; X holds {values}; obsm {list(adata.obsm)}")
    controls = control_features(data)
    print(f"{'controls':14}{controls or 'none'}")
    known = Annotation.of(data, spatial_key=spatial_key, label_key=None, batch_key=None)
    print(f"{'coordinates':14}{known.coordinates.shape[1]} in obsm[{spatial_key!r}]")
    for remark in known.remarks or ["nothing is taken for slices or labels"]:
        print(f"{'columns':14}{remark}")
