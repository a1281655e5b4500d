"""Sections whose image features tell a known part of the expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._validate import check_integer, check_number
from stomics_tools.datasets._expected import expected_log_cp10k, log_cp10k, pearson_within
from stomics_tools.datasets._geometry import smooth_fields, tissue, unit_positions

_VISIBLE = 3
_HIDDEN = 4
_PROGRAMMES = 8
_MODULES = 10
_STAINS = 2
_SMOOTH = 0.8  # loading of a state on position; the rest of its variance is from spot to spot
_DEPTH_SD = 0.5
_PRIVATE = 0.2  # share of the variance not told by the image that a gene shares with no other


def simulate_histology(
    n_patients: int = 6,
    n_sections: int = 2,
    n_spots: int = 400,
    *,
    n_genes: int = 200,
    n_features: int = 64,
    image_share: float = 0.6,
    depth: float = 3000.0,
    depth_visible: float = 0.5,
    noise: float = 0.1,
    batch_effect: float = 0.3,
    seed: int = 0,
) -> AnnData:
    """Simulate spots with image features and counts of which the features tell a known part.

    Each spot has a visible state (3 numbers, smooth in space and scattered from spot to spot). The image features are
    smooth nonlinear functions of it with noise, then stained: a gain and a shift for each patient, of rank 2. The log
    rates of the genes are programmes of genes, which come in 10 modules: 8 nonlinear functions of the visible state, 4
    hidden programmes that leave no trace in the image but correlate the genes, and a gene's own hidden part. Patients
    differ by an offset of each gene. Counts are Poisson, so that they are overdispersed by what is hidden.

    How well anyone can predict from the image is known: ``layers["expected"]`` is the mean of log1p counts per 10,000
    (over these genes) given the visible state, averaged over the hidden programmes, hidden depth, counting, and
    the offsets of patients: the best prediction for a patient never seen before. ``var["ceiling"]`` is its correlation
    with what was drawn, within sections and averaged over them. Predictions that exceed it by more than chance have
    seen the expression.

    Parameters
    ----------
    n_patients
        Number of patients.
    n_sections
        Sections of each patient.
    n_spots
        Spots of each section, at least 10.
    n_genes
        Number of genes, at least 10.
    n_features
        Width of the image features, at least 4.
    image_share
        Share of the variance of a gene's log rate within a patient that the image tells, on average over genes; genes
        differ (``var["image_share"]``).
    depth
        Counts of a spot (median), at least 50.
    depth_visible
        Share of the variance of the log depth that the image tells.
    noise
        Standard deviation of the noise of the image features, whose own is 1. The default leaves the visible state
        known almost exactly; the ceiling does not account for noise.
    batch_effect
        Standard deviation, in natural logarithms, of the offset of each gene of a patient; it scales the stain as well.
    seed
        The same seed gives the same data.

    Returns
    -------
    An :class:`~anndata.AnnData` with

    ``X``
        Integer counts, float32 CSR.
    ``layers["expected"]``
        The best prediction described above, float32.
    ``obsm["X_image"]``
        Image features ``(n_obs, n_features)`` float32.
    ``obsm["spatial"]``
        Places on a hexagonal lattice, 100 µm apart, in each section; float64 in micrometres.
    ``obsm["visible"]``, ``obsm["hidden"]``
        The states ``(n_obs, 3)`` and ``(n_obs, 4)`` that were drawn, float32.
    ``obs["patient"]``, ``obs["section"]``
        Categorical.
    ``var["module"]``, ``var["image_share"]``, ``var["ceiling"]``
        The ceiling is NaN for a gene without varying counts in any section.
    ``uns["simulate_histology"]``
        The arguments and ``"ceiling"``, the mean over genes.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.
    """
    params = {
        "n_patients": check_integer(n_patients, argument="n_patients"),
        "n_sections": check_integer(n_sections, argument="n_sections"),
        "n_spots": check_integer(n_spots, argument="n_spots", minimum=10),
        "n_genes": check_integer(n_genes, argument="n_genes", minimum=_MODULES),
        "n_features": check_integer(n_features, argument="n_features", minimum=_VISIBLE + 1),
        "image_share": check_number(image_share, argument="image_share", low=0.0, high=1.0),
        "depth": check_number(depth, argument="depth", low=50.0, high=1e6),
        "depth_visible": check_number(depth_visible, argument="depth_visible", low=0.0, high=1.0),
        "noise": check_number(noise, argument="noise", low=0.0, high=10.0),
        "batch_effect": check_number(batch_effect, argument="batch_effect", low=0.0, high=3.0),
        "seed": check_integer(seed, argument="seed", minimum=0),
    }
    start = logg.info(f"simulating {n_patients * n_sections} sections of {n_spots} spots")
    layout, image, genetics, rest, average = np.random.default_rng(seed).spawn(5)

    section = np.repeat(np.arange(n_patients * n_sections), n_spots)
    patient = section // n_sections
    places = [tissue(n_spots, "hex", 2, layout) for _ in range(n_patients * n_sections)]
    visible, hidden = (_states(places, width, layout) for width in (_VISIBLE, _HIDDEN))
    features = _stain(
        _standardised(smooth_fields(visible, n_features, 2.0, image)), patient, noise, batch_effect, image
    )

    genes = _draw_genes(n_genes, image_share, genetics)
    programmes = _standardised(smooth_fields(visible, _PROGRAMMES + 1, 2.0, genetics))
    log_rate = genes.level + programmes[:, 1:] @ genes.seen
    log_depth = np.log(depth) + _DEPTH_SD * depth_visible**0.5 * programmes[:, 0]
    depth_sd = _DEPTH_SD * (1 - depth_visible) ** 0.5
    offset = batch_effect * genetics.normal(size=(n_patients, n_genes))
    counts = _draw_counts(log_rate + offset[patient], log_depth, hidden, genes, depth_sd, rest)
    expected = expected_log_cp10k(
        log_rate,
        log_depth,
        loadings=genes.hidden,
        private_sd=np.hypot(genes.private, batch_effect),
        depth_sd=depth_sd,
        rng=average,
    )
    ceiling = pearson_within(expected, log_cp10k(counts), section)

    patients = [f"patient{p}" for p in range(n_patients)]
    sections = [f"{p}_section{s}" for p in patients for s in range(n_sections)]
    adata = AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(
            {
                "patient": pd.Categorical.from_codes(patient, pd.Index(patients)),
                "section": pd.Categorical.from_codes(section, pd.Index(sections)),
            },
            index=[f"{name}_spot{i}" for name in sections for i in range(n_spots)],
        ),
        var=pd.DataFrame(
            {
                "module": pd.Categorical.from_codes(genes.module, pd.Index([f"module{m}" for m in range(_MODULES)])),
                "image_share": genes.share,
                "ceiling": ceiling,
            },
            index=[f"gene{j}" for j in range(n_genes)],
        ),
        layers={"expected": expected},
        obsm={_keys.IMAGE: features, _keys.SPATIAL: np.concatenate(places), "visible": visible, "hidden": hidden},
        uns={"simulate_histology": params | {"ceiling": float(np.nanmean(ceiling))}},
    )
    logg.info("    finished", time=start)
    return adata


@dataclass(frozen=True)
class _Genes:
    """How the log rates of the genes depend on the state of a spot."""

    module: np.ndarray  # (n_genes,)
    share: np.ndarray  # (n_genes,) of the variance that the image tells
    level: np.ndarray  # (n_genes,)
    seen: np.ndarray  # (_PROGRAMMES, n_genes)
    hidden: np.ndarray  # (_HIDDEN, n_genes)
    private: np.ndarray  # (n_genes,) standard deviation


def _draw_genes(n_genes: int, image_share: float, rng: np.random.Generator) -> _Genes:
    module = rng.permutation(np.arange(n_genes) % _MODULES)
    share = image_share + 0.6 * min(image_share, 1 - image_share) * rng.uniform(-1, 1, size=n_genes)
    scale = rng.uniform(0.7, 1.2, size=n_genes)
    unseen = scale * (1 - share) ** 0.5
    return _Genes(
        module=module,
        share=share,
        level=rng.normal(size=n_genes),
        seen=scale * share**0.5 * _directions(module, _PROGRAMMES, rng),
        hidden=unseen * (1 - _PRIVATE) ** 0.5 * _directions(module, _HIDDEN, rng),
        private=unseen * _PRIVATE**0.5,
    )


def _directions(module: np.ndarray, n_programmes: int, rng: np.random.Generator) -> np.ndarray:
    """Directions of length 1 in the space of programmes ``(n_programmes, n_genes)``, alike within a module."""
    centres = rng.normal(size=(n_programmes, _MODULES))
    directions = centres[:, module] + 0.5 * rng.normal(size=(n_programmes, len(module)))
    return directions / np.linalg.norm(directions, axis=0)


def _states(places: list[np.ndarray], width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw states of about standard normal law ``(n_obs, width)`` float32, sections one after the other."""
    smooth = np.concatenate([smooth_fields(unit_positions(xy), width, 0.3, rng) for xy in places])
    return (_SMOOTH * smooth + (1 - _SMOOTH**2) ** 0.5 * rng.normal(size=smooth.shape)).astype(np.float32)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _stain(
    features: np.ndarray, patient: np.ndarray, noise: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Add noise to features ``(n_obs, n_features)``, and to each patient a gain and a shift along two directions."""
    n_patients, n_features = patient.max() + 1, features.shape[1]
    stains = 0.35 * strength * rng.normal(size=(_STAINS, n_features)) / _STAINS**0.5
    log_gain, shift = rng.normal(size=(2, n_patients, _STAINS)) @ stains
    noisy = features + noise * rng.normal(size=features.shape)
    return (noisy * np.exp(0.7 * log_gain)[patient] + shift[patient]).astype(np.float32)


def _draw_counts(
    log_rate: np.ndarray,
    log_depth: np.ndarray,
    hidden: np.ndarray,
    genes: _Genes,
    depth_sd: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw counts ``(n_obs, n_genes)`` float32 given the visible part of rates and depth and the hidden states."""
    rate = np.exp(log_rate + hidden @ genes.hidden + genes.private * rng.normal(size=log_rate.shape))
    size = np.exp(log_depth + depth_sd * rng.normal(size=len(log_depth)))
    return rng.poisson(rate * (size / rate.sum(axis=1))[:, None]).astype(np.float32)
