"""Sections of one tissue, each in a pose of its own, whose expression tells where a cell lies."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse
from scipy.stats import ortho_group

from stomics_tools import _keys
from stomics_tools._validate import check_integer, check_number, check_option
from stomics_tools.datasets._geometry import smooth_fields

_HALF_WIDTH = 1500.0  # µm
_BOX = 1.7  # half-widths; holds the outline
_LENGTHS = (0.25, 0.5, 1.0)  # of patterns, in half-widths
_PATTERNED = 2 / 3  # of the genes; the others mark a type
_PATTERN_SD = 0.8
_MARKER_FOLD = 2.0
_REGIONAL = 1.5  # standard deviation of the log odds of a cell type over the tissue
_PROGRAMMES = 3
_PROGRAMME_SD = 0.2  # of the loadings of genes
_DEPTH_PER_GENE = 6.0
_DEPTH_SD = 0.4
_DISPERSION = 0.2  # of the negative binomial


def simulate_sections(
    n_sections: int = 4,
    n_cells: int = 1500,
    n_genes: int = 150,
    *,
    n_cell_types: int = 8,
    n_dims: int = 2,
    symmetric: bool = False,
    noise: float = 1.0,
    deformation: float = 0.02,
    seed: int = 0,
) -> AnnData:
    """Simulate sections of single cells whose positions follow from their expression, but for the pose of the section.

    All sections are draws from one tissue of irregular outline, about 3 mm wide and without symmetry. The odds of cell
    types change smoothly across it. Two thirds of the genes follow smooth functions of position, of three length
    scales, the others mark a cell type. Counts are negative binomial, with a depth for each cell and programmes of genes
    that have nothing to do with position. Each section has cells of its own, scattered evenly, and lies in a random
    pose: slightly deformed, rotated, reflected in half of the cases, and moved.

    With the defaults, regression on the 10 nearest cells of the other sections, in 50 principal components of the
    expression, recovers ``obsm["tissue"]`` with a root-mean-square error of about .13 of the root-mean-square radius
    (in 3-D .22).

    Parameters
    ----------
    n_sections
        Number of sections.
    n_cells
        Cells of each section, at least 10.
    n_genes
        Number of genes, at least 3.
    n_cell_types
        Number of cell types.
    n_dims
        2, or 3 for blocks of tissue.
    symmetric
        Make outline, odds of cell types and expression the same on either side of the plane where the first
        coordinate of ``obsm["tissue"]`` is 0, so that left and right cannot be told apart.
    noise
        Factor on the variation that has nothing to do with position or type (programmes, depth, overdispersion). 0
        leaves the noise of counting.
    deformation
        Root-mean-square displacement of the cells by the smooth deformation of a section, as a share of its
        root-mean-square radius; 0 for rigid poses.
    seed
        The same seed gives the same data.

    Returns
    -------
    An :class:`~anndata.AnnData` with

    ``X``
        Integer counts, float32 CSR.
    ``obsm["spatial"]``
        Positions in the pose of the section ``(n_obs, n_dims)``, float64 in micrometres.
    ``obsm["tissue"]``
        Positions in the frame of the tissue, which all sections share, float64 in micrometres.
    ``obs["section"]``, ``obs["cell_type"]``
        Categorical.
    ``var["length_scale"]``, ``var["marks"]``
        Length scale of the pattern of a gene in micrometres, NaN if it has none; the cell type that it marks, or
        missing.
    ``uns["simulation"]``
        The arguments, ``"rotation"`` ``(n_sections, n_dims, n_dims)`` and ``"translation"`` ``(n_sections, n_dims)``
        in micrometres: ``spatial = (tissue + displacement) @ rotation.T + translation``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.
    """
    params = {
        "n_sections": check_integer(n_sections, argument="n_sections"),
        "n_cells": check_integer(n_cells, argument="n_cells", minimum=10),
        "n_genes": check_integer(n_genes, argument="n_genes", minimum=3),
        "n_cell_types": check_integer(n_cell_types, argument="n_cell_types"),
        "n_dims": check_integer(n_dims, argument="n_dims"),
        "symmetric": bool(symmetric),
        "noise": check_number(noise, argument="noise", low=0.0, high=10.0),
        "deformation": check_number(deformation, argument="deformation", low=0.0, high=0.2),
        "seed": check_integer(seed, argument="seed", minimum=0),
    }
    check_option(n_dims, (2, 3), argument="n_dims")
    check_option(symmetric, (False, True), argument="symmetric")
    start = logg.info(f"simulating {n_sections} sections of {n_cells} cells")
    anatomy, scatter, posing, genetics, counting = np.random.default_rng(seed).spawn(5)

    section = np.repeat(np.arange(n_sections), n_cells)
    u = _draw_cells(len(section), n_dims, symmetric, anatomy, scatter)
    seen = _folded(u) if symmetric else u
    odds = _REGIONAL * smooth_fields(seen, n_cell_types, 0.5, anatomy)
    cell_type = (odds + scatter.gumbel(size=odds.shape)).argmax(axis=1)
    log_rate, var = _log_rates(seen, cell_type, n_cell_types, n_genes, genetics)

    tissue = _HALF_WIDTH * u
    rotation = np.stack([ortho_group.rvs(n_dims, random_state=posing) for _ in range(n_sections)])
    translation = posing.uniform(-5, 5, size=(n_sections, n_dims)) * _HALF_WIDTH
    spatial = np.empty_like(tissue)
    for s in range(n_sections):
        rows = section == s
        moved = tissue[rows] + _displacement(u[rows], deformation, posing) * _HALF_WIDTH
        spatial[rows] = moved @ rotation[s].T + translation[s]

    sections = [f"section{s}" for s in range(n_sections)]
    types = pd.Index([f"type{t}" for t in range(n_cell_types)])
    adata = AnnData(
        _draw_counts(log_rate, noise, counting),
        obs=pd.DataFrame(
            {
                "section": pd.Categorical.from_codes(section, pd.Index(sections)),
                "cell_type": pd.Categorical.from_codes(cell_type, types),
            },
            index=[f"{name}_cell{i}" for name in sections for i in range(n_cells)],
        ),
        var=var,
        obsm={_keys.SPATIAL: spatial, "tissue": tissue},
        uns={"simulation": params | {"rotation": rotation, "translation": translation}},
    )
    logg.info("    finished", time=start)
    return adata


def _draw_cells(
    n: int, n_dims: int, symmetric: bool, anatomy: np.random.Generator, scatter: np.random.Generator
) -> np.ndarray:
    """Scatter cells evenly inside an irregular outline ``(n, n_dims)`` with the volume of a stretched unit ball."""
    aspect = np.ones(n_dims)
    aspect[1] = anatomy.uniform(1.1, 1.4)
    ball = np.pi if n_dims == 2 else 4 / 3 * np.pi
    candidates = scatter.uniform(-_BOX, _BOX, size=(int(n * (2 * _BOX) ** n_dims / ball), n_dims))
    radius = np.linalg.norm(candidates, axis=1)
    direction = candidates / radius[:, None]
    reach = smooth_fields(_folded(direction) if symmetric else direction, 1, 0.5, anatomy)[:, 0]
    order = radius / (1 + 0.25 * np.clip(reach, -1.5, 1.5))
    return candidates[np.sort(np.argpartition(order, n - 1)[:n])] * aspect


def _folded(u: np.ndarray) -> np.ndarray:
    """Positions with their left side laid on the right one."""
    return np.column_stack([np.abs(u[:, 0]), u[:, 1:]])


def _log_rates(
    u: np.ndarray, cell_type: np.ndarray, n_cell_types: int, n_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray, pd.DataFrame]:
    """Log rates ``(n, n_genes)`` float32 given position and type, and the table of genes."""
    log_rate = np.tile(rng.normal(scale=0.7, size=n_genes).astype(np.float32), (len(u), 1))
    patterned, markers = np.split(rng.permutation(n_genes), [round(_PATTERNED * n_genes)])
    length = np.full(n_genes, np.nan)
    for k, scale in enumerate(_LENGTHS):
        genes = patterned[k :: len(_LENGTHS)]
        log_rate[:, genes] += _PATTERN_SD * _standardised(smooth_fields(u, len(genes), scale, rng))
        length[genes] = scale * _HALF_WIDTH
    marked = np.full(n_genes, -1)
    marked[markers] = np.arange(len(markers)) % n_cell_types
    log_rate += _MARKER_FOLD * (cell_type[:, None] == marked)
    types = pd.Index([f"type{t}" for t in range(n_cell_types)])
    var = pd.DataFrame(
        {"length_scale": length, "marks": pd.Categorical.from_codes(marked, types)},
        index=[f"gene{j}" for j in range(n_genes)],
    )
    return log_rate, var


def _standardised(fields: np.ndarray) -> np.ndarray:
    return (fields - fields.mean(axis=0)) / fields.std(axis=0)


def _displacement(u: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth displacement ``(n, n_dims)`` of mean 0, its root mean square `size` times that of the radius."""
    field = smooth_fields(u, u.shape[1], 1.0, rng).astype(np.float64)
    field -= field.mean(axis=0)
    return size * field * np.linalg.norm(u - u.mean(axis=0)) / np.linalg.norm(field)


def _draw_counts(log_rate: np.ndarray, noise: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw negative binomial counts ``(n, n_genes)`` of cells of varying depth."""
    n, n_genes = log_rate.shape
    loadings = noise * _PROGRAMME_SD * rng.normal(size=(_PROGRAMMES, n_genes))
    rate = np.exp(log_rate + rng.normal(size=(n, _PROGRAMMES)) @ loadings)
    depth = _DEPTH_PER_GENE * n_genes * np.exp(noise * _DEPTH_SD * rng.normal(size=n))
    rate *= (depth / rate.sum(axis=1))[:, None]
    if noise > 0:
        shape = 1 / (_DISPERSION * noise**2)
        rate *= rng.gamma(shape, 1 / shape, size=rate.shape)
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
