"""Images of tissue as scanpy and squidpy keep them: ``uns["spatial"][library]["images"]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stomics_tools._validate import check_key

_SHOWN = 5


def image_libraries(uns: Mapping[str, Any], *, argument: str) -> dict[str, Mapping[str, Any]]:
    """Entries of ``uns["spatial"]`` that are mappings with ``"images"``; others write flags and coordinates there.

    Raises
    ------
    KeyError
        If there is no ``uns["spatial"]``.
    ValueError
        If none of its entries is a library.
    """
    check_key("spatial", uns, argument=argument, where="adata.uns")
    spatial = uns["spatial"]
    entries = spatial if isinstance(spatial, Mapping) else {}
    libraries = {
        str(name): entry
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and isinstance(entry.get("images"), Mapping)
    }
    if not libraries:
        keys = [str(key) for key in entries]
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        found = f"the keys {keys[:_SHOWN]}{more}" if isinstance(spatial, Mapping) else f"a {type(spatial).__name__}"
        raise ValueError(
            f"`{argument}`: `adata.uns['spatial']` holds no library, a mapping with 'images', found {found}. "
            "Store the image as scanpy does: `uns['spatial'][library]['images']['hires']`."
        )
    return libraries


def stored_image(
    libraries: Mapping[str, Mapping[str, Any]], name: str, resolution: str | None, *, argument: str
) -> tuple[Any, float, str]:
    """Image of a library, its pixels per unit of the coordinates, and where it was.

    Without a `resolution` it is ``"hires"``, or ``"lowres"`` if there is only that.

    Raises
    ------
    KeyError
        If there is no such library or image, or none of its scale factors.
    """
    check_key(name, libraries, argument=argument, where="adata.uns['spatial']")
    images = libraries[name]["images"]
    if resolution is None:
        resolution = "lowres" if "lowres" in images and "hires" not in images else "hires"
    where = f"adata.uns['spatial'][{name!r}]"
    check_key(resolution, images, argument=argument, where=f"{where}['images']")
    factors = libraries[name].get("scalefactors")
    factors = factors if isinstance(factors, Mapping) else {}
    factor = f"tissue_{resolution}_scalef"
    check_key(factor, factors, argument=argument, where=f"{where}['scalefactors']")
    return images[resolution], float(factors[factor]), f"{where}['images'][{resolution!r}]"
