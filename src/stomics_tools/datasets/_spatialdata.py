"""Tables of a SpatialData as the AnnData that models take."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from anndata import AnnData

from stomics_tools import _keys
from stomics_tools._validate import check_key
from stomics_tools.data._feature_types import without_controls

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger("stomics_tools")

_ATTRS = "spatialdata_attrs"


def from_spatialdata(
    sdata: SpatialData,
    table_name: str | None = None,
    *,
    coordinate_system: str = "global",
    spatial_key: str = _keys.SPATIAL,
    section_key: str = "section",
    keep_controls: bool = False,
) -> AnnData:
    """Take a table of a SpatialData, with the places of its observations.

    The place of an observation is the centroid of what it annotates: a circle, a polygon, a point or a label of the
    element that its region names. `sdata` is left as it is. The rows are those of the table in its order, so that
    ``sdata.tables[table_name] = adata`` puts results back, and ``sdata[table_name].obsm[key] = adata.obsm[key]`` one of
    them.

    Parameters
    ----------
    sdata
        The object.
    table_name
        Table to take. Default: the only one.
    coordinate_system
        Coordinate system of the places, in whose units they are then. The transformation of each element to it is
        applied.
    spatial_key
        ``obsm`` key of the places; what the table has there is replaced. A table that annotates nothing must have it. So
        must one that annotates an element that `sdata` lacks (read without its labels, say): the places there are then
        taken for all rows as they are, in whatever coordinate system they are, with a warning.
    section_key
        ``obs`` column for the region of each observation: what models take as `batch_key` or `section_key` when there
        are several.
    keep_controls
        Keep control features (negative control probes, blanks, ...), which :func:`~stomics_tools.pp.drop_controls`
        describes. By default they are left out, and that is logged.

    Returns
    -------
    A copy of the table with ``obsm[spatial_key]``, float64 ``(n_obs, 2 or 3)``, and the categorical ``obs[section_key]``.

    Raises
    ------
    KeyError
        If there is no such table or coordinate system, or a region is no element; the message lists those there are.
    TypeError
        If `sdata` is no SpatialData.
    ValueError
        If there are several tables and none is named, if observations annotate what is not there or has no place, or if
        `section_key` holds something else.

    Warns
    -----
    UserWarning
        If places come from the table, since the element that it annotates is not there.
    """
    from spatialdata import SpatialData

    if not isinstance(sdata, SpatialData):
        raise TypeError(f"`sdata` must be a SpatialData, found {type(sdata).__name__}.")
    name = _only_table(sdata) if table_name is None else table_name
    check_key(name, sdata.tables, argument="table_name", where="sdata.tables")
    table = sdata.tables[name]
    attrs = table.uns.get(_ATTRS)
    if attrs is None:
        check_key(spatial_key, table.obsm, argument="spatial_key", where=f"sdata[{name!r}].obsm")
        places, regions = np.asarray(table.obsm[spatial_key], dtype=np.float64), np.full(table.n_obs, name)
    else:
        regions = table.obs[attrs["region_key"]].astype(str).to_numpy()
        own = _places_of_table(sdata, table, regions, spatial_key)
        instances = table.obs[attrs["instance_key"]]
        places = _places(sdata, regions, instances, coordinate_system) if own is None else own
    if section_key in table.obs and (table.obs[section_key].astype(str).to_numpy() != regions).any():
        raise ValueError(
            f"`section_key`: the table has a column {section_key!r} that is not that of the regions. Choose another name."
        )
    if keep_controls:
        adata = table.copy()
    else:
        kept, controls = without_controls(table)
        adata = kept.copy() if kept is table else cast(AnnData, kept)
        if controls:
            logger.warning("left out control features: %s (`keep_controls=True` keeps them)", controls)
    adata.obsm[spatial_key] = places
    adata.obs[section_key] = pd.Categorical(regions)
    return adata


def _only_table(sdata: SpatialData) -> str:
    names = list(sdata.tables)
    if len(names) != 1:
        raise ValueError(f"`table_name`: there are {len(names)} tables, {names}. Name one.")
    return names[0]


def _places_of_table(sdata: SpatialData, table: AnnData, regions: np.ndarray, spatial_key: str) -> np.ndarray | None:
    """The places that the table itself holds, if an element that it annotates is not there; else None."""
    there = {name for kind, name, _ in sdata.gen_spatial_elements() if kind != "images"}
    missing = [str(region) for region in pd.unique(pd.Series(regions)) if region not in there]
    if not missing:
        return None
    if spatial_key not in table.obsm:
        raise KeyError(
            f"`region`: key {missing[0]!r} not found in `sdata`. Available keys: {sorted(there)}. The table annotates it: "
            f"read it as well, or store the places of the observations in `obsm[{spatial_key!r}]` of the table."
        )
    warnings.warn(
        f"The table annotates {missing}, which are not in `sdata`: the places in its `obsm[{spatial_key!r}]` are taken "
        "as they are, in whatever coordinate system they are.",
        UserWarning,
        stacklevel=3,
    )
    return np.asarray(table.obsm[spatial_key], dtype=np.float64)


def _places(sdata: SpatialData, regions: np.ndarray, instances: pd.Series, coordinate_system: str) -> np.ndarray:
    """Centroids of what the observations annotate, ``(n_obs, d)``."""
    elements = {name: element for kind, name, element in sdata.gen_spatial_elements() if kind != "images"}
    parts = {}
    for region in pd.unique(pd.Series(regions)):
        parts[region] = _centroids(elements[region], region, coordinate_system)
    dims = {region: list(part.columns) for region, part in parts.items()}
    if len({tuple(axes) for axes in dims.values()}) > 1:
        raise ValueError(f"The regions have different axes: {dims}. Take tables of flat and of solid regions apart.")
    result = np.empty((len(regions), len(next(iter(dims.values())))))
    for region, part in parts.items():
        rows = np.flatnonzero(regions == region)
        found = part.index.get_indexer(pd.Index(instances.iloc[rows]))
        if (found < 0).any():
            missing = instances.iloc[rows[found < 0]].tolist()
            if set(missing) & set(_empty_shapes(elements[region])):
                raise ValueError(
                    f"{len(missing)} observations annotate shapes of {region!r} that are empty (first: {missing[:3]}) and "
                    f"have no place. Drop these rows of the table, for example by `table[~table.obs[{instances.name!r}]"
                    f".isin({missing[:3]})]`, or repair the shapes."
                )
            raise ValueError(
                f"{len(missing)} observations annotate what is not in {region!r} (first: {missing[:3]}; there are "
                f"{part.index[:3].tolist()} and more). Drop them, or repair the instance column of the table."
            )
        result[rows] = part.to_numpy(dtype=np.float64)[found]
    return result


def _centroids(element: Any, region: str, coordinate_system: str) -> pd.DataFrame:
    """Centroids of an element, by instance."""
    from spatialdata import get_centroids
    from spatialdata.transformations import get_transformation

    systems = get_transformation(element, get_all=True)
    empty = _empty_shapes(element)
    if len(empty):  # they have no centroid
        element = element.drop(index=empty)
    check_key(coordinate_system, systems, argument="coordinate_system", where=f"sdata[{region!r}]")
    centroids = get_centroids(element, coordinate_system=coordinate_system).compute()
    centroids = centroids[[axis for axis in ("x", "y", "z") if axis in centroids]]
    if not centroids.index.is_unique:
        raise ValueError(f"Instances of {region!r} have the same name, so that none can be told by it. Rename them.")
    return centroids


def _empty_shapes(element: Any) -> pd.Index:
    """Names of the geometries that are empty or missing; none of what is not made of geometries."""
    geometry = getattr(element, "geometry", None)
    if geometry is None or not hasattr(geometry, "is_empty"):
        return pd.Index([])
    return element.index[np.asarray(geometry.is_empty | geometry.isna())]
