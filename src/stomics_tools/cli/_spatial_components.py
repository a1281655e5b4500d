"""``stomics spatial-components``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from stomics_tools import __version__


def spatial_components(
    input: Path,
    *,
    output: Path,
    reference: Path | None = None,
    overwrite: bool = False,
    modalities: list[str] | None = None,
    modality: Literal["rna", "protein", "atac"] | None = None,
    counts: bool | None = None,
    keep_controls: bool = False,
    spatial_key: str = "spatial",
    batch_key: str | None = None,
    label_key: str | None = None,
    n_domains: int | None = None,
    n_components: int | None = None,
    n_neighbors: int | None = None,
    n_hops: int | None = None,
    signal_threshold: float | None = None,
    seed: int = 0,
) -> None:
    """Spatial domains from one or several modalities, in closed form (spatial components).

    Prepares each modality, finds the directions in which neighbors agree, and writes the input with what was found:
    obsm["X_spatial_components"] (representation), obs["spatial_components_domain"] (domains, if their number is given or
    there are labels), and the fit in uns["spatial_components"]. Nothing is trained.

    Parameters
    ----------
    input
        Slice: an h5ad or h5mu file, or a zarr folder of either object.
    output
        File of the results, .h5ad for one object, .h5mu for several modalities, .zarr for either.
    reference
        Results of this command, whose fit is applied to the input. Raw counts are prepared like those of the reference;
        what is prepared must have been so by the same recipe.
    overwrite
        Replace the output if it is there, even if it is the input.
    modalities
        NAME or NAME=KEY of those to use, such as rna=X_pca; an obsm key is taken as it is. Default: all, prepared.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    keep_controls
        Take control features (negative control probes, blanks, ...) as features; they are left out by default.
    spatial_key
        Key of the coordinates in obsm.
    batch_key
        Column that tells several slices apart, or none. Default: one with a usual name (slice, section, sample, ...).
    label_key
        Column of true labels, to compare domains with, or none. Default: one with a usual name (domain, layer, ...).
    n_domains
        Number of domains. Default: as many as there are labels; without labels, no domains.
    n_components
        Components at most. Default: 64.
    n_neighbors
        Nearest spots that are the neighbors of each. Default: 6.
    n_hops
        Steps over these neighbors up to which a spot is predicted. Default: 3.
    signal_threshold
        Least correlation of a spot and its neighbors along a component. Default: 0.1.
    seed
        Seed of the preparation and of the domains.

    Examples
    --------
    stomics simulate multiomics --output slice.h5mu --n-obs 1000
    stomics spatial-components slice.h5mu --output domains.h5mu --n-domains 6
    stomics spatial-components slice.h5mu --reference domains.h5mu --output again.h5mu --n-domains 6
    """
    from stomics_tools.cli._checks import check_input, check_numbers, check_paths
    from stomics_tools.cli._output import Clock

    clock = Clock()
    settings: dict[str, Any] = {
        "n_components": n_components,
        "n_neighbors": n_neighbors,
        "n_hops": n_hops,
        "signal_threshold": signal_threshold,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    check_paths([input], output, None, overwrite=overwrite)
    if reference is not None:
        check_input(reference, argument="reference")
        unused = [*settings, *(["modalities"] if modalities else [])]
        if unused:
            raise ValueError(f"`{unused[0]}` is of a fit, but `reference` names one that is there. Leave one out.")
        if output.resolve() == reference.resolve():
            raise ValueError(f"`output`: '{output}' is the reference and would be overwritten. Choose another.")
    check_numbers(n_domains=n_domains, seed=seed)

    # These take a while to import, which help and a mistyped option need not wait for.
    from stomics_tools import _keys, tl
    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._apply import in_form_of
    from stomics_tools.cli._domains import finish
    from stomics_tools.cli._features import usable_features
    from stomics_tools.cli._files import check_fits, check_writable, read_input
    from stomics_tools.cli._prepare import as_mudata, representations
    from stomics_tools.tl._spatial_components_record import find_record

    key = _keys.SPATIAL_COMPONENTS
    clock.step("import", f"stomics-tools {__version__}")
    report = partial(clock.say, "features")
    data = usable_features(read_input(input), modality, keep_controls=keep_controls, report=report)
    check_fits(data, output)
    if output.suffix == ".h5mu":
        data = as_mudata(data, modality, report=report)
    fit: dict[str, Any] = {}
    if reference is not None:
        record, _ = find_record(read_input(reference, argument="reference"), key)
        data, batch_key = in_form_of(record["params"], data, batch_key, what="reference", say=clock.say)
        fit = {"reference": record}
    known = Annotation.of(data, spatial_key=spatial_key, label_key=label_key, batch_key=batch_key)
    clock.step("read", f"{input}, {data.n_obs} spots{known.by_slices}")
    for remark in known.remarks:
        clock.say("columns", remark)
    check_writable(data, output)
    if reference is None:
        fit["modalities"] = representations(
            data, modality, modalities, seed=seed, report=lambda line: clock.step("prepare", line), counts=counts
        )
    with known.named():
        tl.spatial_components(data, **fit, **settings, spatial_key=spatial_key, batch_key=known.slice_key)
    values = data.uns[key]["eigenvalues"]
    of = "" if reference is None else f", those of {reference}"
    clock.step("fit", f"{len(values)} components, correlation with neighbors {values[0]:.2f} to {values[-1]:.2f}{of}")
    finish(data, data, key, known, n_domains, seed=seed, output=output, save_model=None, clock=clock)
