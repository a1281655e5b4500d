"""Pictures of the gallery: the tutorials on measured tissue, by their one cell that switches to a file. See README.md."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from PIL import Image

ROOT = Path(__file__).parents[1]
SECTIONS = ("C2", "C3", "C4", "C5")


def cortex(data: Path) -> AnnData:
    return ad.read_h5ad(data / "dlpfc_151673.h5ad")


def breast_cancer(data: Path) -> AnnData:
    """Four sections of one patient, with features of the image of each spot."""
    parts = []
    for name in SECTIONS:
        part = ad.read_h5ad(data / f"her2st_{name}_image.h5ad")
        part.obsm["X_image"] = np.load(data / "features" / f"her2st_{name}_handcrafted.npy")
        parts.append(part)
    return ad.concat(parts, join="inner", index_unique="-", keys=SECTIONS)


def starmap(data: Path) -> AnnData:
    return ad.read_h5ad(data / "starmap_mpfc_3sections.h5ad")


def osmfish(data: Path) -> AnnData:
    return ad.read_h5ad(data / "osmfish_sscortex.h5ad")


PICTURES: dict[str, tuple[Callable[[Path], AnnData], dict[str, Any]]] = {
    "01_spatial_domains": (cortex, {"label_key": "layer", "n_domains": 7}),
    "02_expression_from_histology": (breast_cancer, {"split": "section"}),
    "03_tissue_reassembly": (starmap, {"section_key": "section", "color": "region", "max_epochs": 10}),
    "04_graphst_and_spikes": (osmfish, {"label_key": "region", "n_domains": 11}),
    "05_larger_data": (starmap, {"batch_key": "section", "n_domains": 4}),
}


def last_figure(notebook: Path, settings: dict[str, Any]) -> bytes:
    """PNG of the last figure of a notebook whose first code cell, of settings, is replaced."""
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    names: dict[str, Any] = {"display": print}
    sources = ["\n".join(f"{name} = {value!r}" for name, value in settings.items())]
    sources += ["".join(cell["source"]) for cell in cells[1:]]
    for number, source in enumerate(sources):
        plt.close("all")
        exec(compile(source, f"{notebook.name}, code cell {number}", "exec"), names)
    drawn = BytesIO()
    plt.gcf().savefig(drawn, dpi=80, bbox_inches="tight")
    plt.close("all")
    return drawn.getvalue()


def write(png: bytes, path: Path) -> None:
    """Few colours do for plots, and make small files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(BytesIO(png)).convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the h5ad files")
    parser.add_argument("--only", nargs="+", choices=list(PICTURES), default=list(PICTURES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "_static" / "gallery")
    arguments = parser.parse_args()
    matplotlib.use("agg")
    for name in arguments.only:
        read, settings = PICTURES[name]
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "slice.h5ad"
            read(arguments.data).write_h5ad(path)
            png = last_figure(ROOT / "tutorials" / f"{name}.ipynb", {"path": str(path), **settings})
        write(png, arguments.out / f"{name}.png")
        size = (arguments.out / f"{name}.png").stat().st_size
        print(f"{name}: {time.perf_counter() - start:.0f} s, {size // 1000} KB", flush=True)


if __name__ == "__main__":
    main()
