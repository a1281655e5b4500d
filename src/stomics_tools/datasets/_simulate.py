"""Spatial multi-omics slices whose domains are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_integer, check_number, check_option
from stomics_tools.datasets._counts import KINDS, Modality, simulate_counts, views
from stomics_tools.datasets._geometry import domain_shares, draw_domains, tissue, unit_positions
from stomics_tools.datasets._join import join

Layout = Literal["hex", "square", "cells"]
Mode = Literal["domains", "mixture"]

_SPOTS_PER_DOMAIN = 10
_UBIQUITOUS_TYPES = 2
_PURITY = 0.6
_TYPE_CONTRAST = 1.8  # cell types differ more than the averages of domains


def simulate_multiomics(
    n_obs: int = 2500,
    n_domains: int = 6,
    *,
    modalities: Sequence[str] | Mapping[str, str | Modality] = ("rna", "protein"),
    mode: Mode = "domains",
    layout: Layout = "hex",
    n_dims: int = 2,
    n_batches: int = 1,
    noise: float = 1.0,
    batch_effect: float = 0.3,
    missing: float | Mapping[str, float] | None = None,
    seed: int = 0,
) -> MuData:
    """Simulate spatial multi-omics slices with known domains.

    A tissue of irregular outline has curved layers and islets of uneven size. Every modality takes some pairs of
    domains for one, each another pairing, so that none suffices to find the domains while all together do. Time and
    memory are linear in the number of spots.

    Parameters
    ----------
    n_obs
        Spots of all slices together, at least 10 for each domain of each slice.
    n_domains
        Number of domains, at least 3, present in every slice. The first two thirds are layers in their order, the
        others islets.
    modalities
        Names among ``"rna"``, ``"protein"`` and ``"atac"``, or a mapping of any names to one of these or to a
        :class:`Modality`. One alone sees all domains.
    mode
        ``"domains"``: spots of a domain share their expression. ``"mixture"``: every spot is a cell of one type and a
        domain is a mixture of types; over half of its cells are of a type that leads in it, all types occur in all
        domains, and the modalities confuse types instead of domains.
    layout
        ``"hex"`` (100 µm apart, as on Visium), ``"square"`` (50 µm) or ``"cells"`` (scattered, about 10 µm).
    n_dims
        2, or 3 for a block of tissue.
    n_batches
        Number of slices, each with a layout and coordinates of its own.
    noise
        Factor on the variation that has nothing to do with domains (smooth in space, from spot to spot, and of depth).
        0 leaves the noise of counting, 1 is realistic.
    batch_effect
        Standard deviation, in natural logarithms, of the shift of each feature in each slice, if there are several.
    missing
        Share of the spots that a modality lacks, for every modality or by name. Every spot keeps at least one
        modality, hence the shares sum up to at most the number of modalities less one.
    seed
        The same seed gives the same data.

    Returns
    -------
    A :class:`~mudata.MuData` with, in itself as in every modality, ``obs["domain"]`` (the truth) and ``obs["slice"]``,
    in mode ``"mixture"`` also ``obs["cell_type"]``, all categorical, and ``obsm["spatial"]``, float64 in micrometres.
    ``X`` of a modality holds integer counts as float32 CSR; its ``var["marks"]`` says which domains (cell types) a
    feature is a marker of. ``uns["simulate_multiomics"]`` holds the arguments.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, lies outside its range or is no known option.
    """
    specs = _modalities(modalities)
    check_option(mode, get_args(Mode), argument="mode")
    check_option(layout, get_args(Layout), argument="layout")
    check_option(n_dims, (2, 3), argument="n_dims")
    n_domains = check_integer(n_domains, argument="n_domains", minimum=3)
    n_batches = check_integer(n_batches, argument="n_batches")
    n_obs = check_integer(n_obs, argument="n_obs")
    needed = _SPOTS_PER_DOMAIN * n_domains * n_batches
    if n_obs < needed:
        raise ValueError(
            f"`n_obs` must be at least {needed} for `n_domains={n_domains}` and `n_batches={n_batches}` "
            f"({_SPOTS_PER_DOMAIN} spots for each domain of each slice), found {n_obs}."
        )
    noise = check_number(noise, argument="noise", low=0.0, high=10.0)
    batch_effect = check_number(batch_effect, argument="batch_effect", low=0.0, high=10.0)
    lacking = _shares_missing(missing, list(specs))
    seed = check_integer(seed, argument="seed", minimum=0)
    start = logg.info(f"simulating {n_obs} spots of {list(specs)}")

    rng, *streams = np.random.default_rng(seed).spawn(1 + len(specs))
    shares = domain_shares(n_domains, rng)
    sizes = [len(part) for part in np.array_split(np.arange(n_obs), n_batches)]
    slices = [tissue(size, layout, n_dims, rng) for size in sizes]
    positions = [unit_positions(xyz) for xyz in slices]
    domain = np.concatenate([draw_domains(u, shares, rng) for u in positions])
    n_groups, group, word, contrast = n_domains, domain, "domain", 1.0
    if mode == "mixture":
        n_groups, word, contrast = n_domains + _UBIQUITOUS_TYPES, "type", _TYPE_CONTRAST
        group = _draw_cell_types(domain, n_domains, rng)

    obs = pd.DataFrame(
        {
            _keys.TRUTH: _categorical(domain, n_domains, "domain"),
            "slice": _categorical(np.repeat(np.arange(n_batches), sizes), n_batches, "slice"),
        },
        index=[f"slice{b}_spot{i}" for b, size in enumerate(sizes) for i in range(size)],
    )
    if mode == "mixture":
        obs["cell_type"] = _categorical(group, n_groups, "type")
    coordinates = np.concatenate(slices)
    seen = views(n_groups, len(specs), rng)
    absent = _draw_missing(n_obs, lacking, rng)

    mods = {}
    for (name, spec), view, stream in zip(specs.items(), seen, streams, strict=True):
        x, marks = simulate_counts(
            replace(spec, contrast=contrast * spec.contrast),
            view[group],
            positions,
            noise=noise,
            batch_effect=batch_effect,
            rng=stream,
        )
        groups = ["|".join(f"{word}{i}" for i in np.flatnonzero(view == code)) for code in range(view.max() + 1)]
        var = pd.DataFrame(
            {"marks": pd.Categorical.from_codes(marks, pd.Index(groups))},
            index=[f"{name}_{KINDS[spec.kind].prefix}{j}" for j in range(x.shape[1])],
        )
        adata = AnnData(x, obs=obs.copy(), var=var, obsm={_keys.SPATIAL: coordinates.copy()})
        mods[name] = adata[~absent[name]].copy() if absent[name].any() else adata

    mdata = join(mods, obs, coordinates)
    mdata.uns["simulate_multiomics"] = {
        "n_obs": n_obs,
        "n_domains": n_domains,
        "modalities": {name: spec.kind for name, spec in specs.items()},
        "mode": mode,
        "layout": layout,
        "n_dims": n_dims,
        "n_batches": n_batches,
        "noise": noise,
        "batch_effect": batch_effect,
        "missing": lacking,
        "seed": seed,
    }
    logg.info("    finished", time=start)
    return mdata


def _modalities(modalities: Sequence[str] | Mapping[str, str | Modality]) -> dict[str, Modality]:
    """Return the specification of each modality by name."""
    if isinstance(modalities, str):
        raise TypeError(f"`modalities` must be a sequence of names or a mapping, found the string {modalities!r}.")
    named = dict(modalities) if isinstance(modalities, Mapping) else {name: name for name in modalities}
    if not named or len(named) != len(modalities):
        raise ValueError(f"`modalities` must hold at least one name and none twice, found {list(modalities)}.")
    for name, spec in named.items():
        if not isinstance(spec, Modality):
            check_option(spec, list(KINDS), argument=f"modalities[{name!r}]")
    return {name: spec if isinstance(spec, Modality) else Modality(spec) for name, spec in named.items()}  # type: ignore[arg-type]


def _shares_missing(missing: float | Mapping[str, float] | None, names: list[str]) -> dict[str, float]:
    """Return the share of spots that each modality lacks."""
    if missing is None:
        missing = 0.0
    if isinstance(missing, Mapping):
        for name in missing:
            check_option(name, names, argument="missing")
        shares = {name: check_number(missing.get(name, 0.0), argument=f"missing[{name!r}]", low=0.0) for name in names}
    else:
        shares = {name: check_number(missing, argument="missing", low=0.0) for name in names}
    if max(shares.values()) >= 1.0 or sum(shares.values()) > len(names) - 1 + 1e-9:
        raise ValueError(
            f"`missing` must leave every modality some spots and every spot a modality: shares below 1 "
            f"with a sum of at most {len(names) - 1} for the {len(names)} modalities {names}, found {shares}."
        )
    return shares


def _draw_missing(n_obs: int, shares: dict[str, float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw which spots lack each modality: arcs, one after the other, on a circle of spots in random order.

    No spot is covered by all arcs since their sum is at most one turn less than their number.
    """
    order = rng.permutation(n_obs)
    absent = {}
    start = 0
    for name, share in shares.items():
        stop = start + int(share * n_obs)
        absent[name] = np.zeros(n_obs, dtype=bool)
        absent[name][order[np.arange(start, stop) % n_obs]] = True
        start = stop
    return absent


def _draw_cell_types(domain: np.ndarray, n_domains: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the type of each cell ``(n_obs,)``: that which leads in its domain, or one of all types."""
    n_types = n_domains + _UBIQUITOUS_TYPES
    common = rng.choice(n_types, size=len(domain), p=rng.dirichlet(np.full(n_types, 5.0)))
    return np.where(rng.random(len(domain)) < _PURITY, domain, common)


def _categorical(codes: np.ndarray, n_categories: int, prefix: str) -> pd.api.extensions.ExtensionArray:
    return pd.Categorical.from_codes(codes, pd.Index([f"{prefix}{i}" for i in range(n_categories)]))
