"""``stomics simulate``: slices whose truth is known, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal


def multiomics(
    *,
    output: Path,
    overwrite: bool = False,
    n_obs: int = 2500,
    n_domains: int = 6,
    modalities: list[str] | None = None,
    mode: Literal["domains", "mixture"] = "domains",
    layout: Literal["hex", "square", "cells"] = "hex",
    n_dims: int = 2,
    n_batches: int = 1,
    noise: float = 1.0,
    batch_effect: float = 0.3,
    missing: float | None = None,
    seed: int = 0,
) -> None:
    """Slices with known spatial domains.

    Writes counts in X of each modality, obs["domain"] (the truth), obs["slice"] and obsm["spatial"]. No modality alone
    tells all domains apart.

    Parameters
    ----------
    output
        File: .h5mu, .zarr, or, of one modality, .h5ad.
    overwrite
        Replace the file if it is there.
    n_obs
        Spots of all slices together.
    n_domains
        Number of domains.
    modalities
        Among rna, protein and atac. Default: rna protein.
    mode
        domains: spots of a domain share their expression. mixture: each spot is a cell, a domain mixes cell types.
    layout
        Places of the spots.
    n_dims
        2, or 3 for a block of tissue.
    n_batches
        Number of slices.
    noise
        Factor on the variation that has nothing to do with domains; 1 is realistic.
    batch_effect
        Standard deviation of the shift of each feature in each slice, in natural logarithms.
    missing
        Share of the spots that each modality lacks.
    seed
        The same seed gives the same data.

    Examples
    --------
    stomics simulate multiomics --output slice.h5mu
    stomics simulate multiomics --output slices.zarr --n-obs 3000 --n-batches 3 --modalities rna protein atac
    """

    def make() -> Any:
        from stomics_tools.datasets import simulate_multiomics

        names = modalities or ["rna", "protein"]
        mdata = simulate_multiomics(
            n_obs,
            n_domains,
            modalities=names,
            mode=mode,
            layout=layout,
            n_dims=n_dims,
            n_batches=n_batches,
            noise=noise,
            batch_effect=batch_effect,
            missing=missing,
            seed=seed,
        )
        return mdata[names[0]] if output.suffix == ".h5ad" and len(names) == 1 else mdata

    _save(make, output, overwrite)


def histology(
    *,
    output: Path,
    overwrite: bool = False,
    n_patients: int = 6,
    n_sections: int = 2,
    n_spots: int = 400,
    n_genes: int = 200,
    n_features: int = 64,
    image_share: float = 0.6,
    depth: float = 3000.0,
    noise: float = 0.1,
    batch_effect: float = 0.3,
    seed: int = 0,
) -> None:
    """Spots with image features that tell a known part of the expression.

    Writes counts in X, obsm["X_image"], obsm["spatial"], obs["patient"], obs["section"], and layers["expected"], the
    best that anyone can predict.

    Parameters
    ----------
    output
        File: .h5ad, .h5mu or .zarr.
    overwrite
        Replace the file if it is there.
    n_patients
        Number of patients.
    n_sections
        Sections of each patient.
    n_spots
        Spots of each section.
    n_genes
        Number of genes.
    n_features
        Width of the image features.
    image_share
        Share of the variance of a gene that the image tells, on average.
    depth
        Median counts of a spot.
    noise
        Standard deviation of the noise of the image features.
    batch_effect
        Standard deviation of the offset of each gene of a patient, in natural logarithms.
    seed
        The same seed gives the same data.

    Examples
    --------
    stomics simulate histology --output spots.h5ad
    """

    def make() -> Any:
        from stomics_tools.datasets import simulate_histology

        return simulate_histology(
            n_patients,
            n_sections,
            n_spots,
            n_genes=n_genes,
            n_features=n_features,
            image_share=image_share,
            depth=depth,
            noise=noise,
            batch_effect=batch_effect,
            seed=seed,
        )

    _save(make, output, overwrite)


def sections(
    *,
    output: Path,
    overwrite: bool = False,
    n_sections: int = 4,
    n_cells: int = 1500,
    n_genes: int = 150,
    n_cell_types: int = 8,
    n_dims: int = 2,
    symmetric: bool = False,
    noise: float = 1.0,
    deformation: float = 0.02,
    seed: int = 0,
) -> None:
    """Sections of one tissue, each in a pose of its own.

    Writes counts in X, obsm["spatial"] (positions in the pose of the section), obsm["tissue"] (positions in the frame
    that all share), obs["section"] and obs["cell_type"].

    Parameters
    ----------
    output
        File: .h5ad, .h5mu or .zarr.
    overwrite
        Replace the file if it is there.
    n_sections
        Number of sections.
    n_cells
        Cells of each section.
    n_genes
        Number of genes.
    n_cell_types
        Number of cell types.
    n_dims
        2, or 3 for blocks of tissue.
    symmetric
        Make left and right of the tissue the same.
    noise
        Factor on the variation that has nothing to do with position or type.
    deformation
        Displacement of cells by the deformation of a section, as a share of its radius.
    seed
        The same seed gives the same data.

    Examples
    --------
    stomics simulate sections --output cells.h5ad --n-sections 3
    """

    def make() -> Any:
        from stomics_tools.datasets import simulate_sections

        return simulate_sections(
            n_sections,
            n_cells,
            n_genes,
            n_cell_types=n_cell_types,
            n_dims=n_dims,
            symmetric=symmetric,
            noise=noise,
            deformation=deformation,
            seed=seed,
        )

    _save(make, output, overwrite)


def _save(make: Callable[[], Any], output: Path, overwrite: bool) -> None:
    """Write what `make` returns."""
    from stomics_tools.cli._checks import check_output
    from stomics_tools.cli._output import Clock

    clock = Clock()
    check_output(output, [], overwrite=overwrite)

    from stomics_tools.cli._files import check_fits, holder, write_output

    data = holder(make(), None, output)
    check_fits(data, output)
    clock.step("simulate", f"{data.n_obs} spots")
    write_output(data, output)
    clock.step("write", str(output))


COMMANDS: dict[str, Callable[..., None]] = {"multiomics": multiomics, "histology": histology, "sections": sections}
