"""From a slice to its spatial domains, and a picture of them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stomics_tools import __version__

DOMAIN = "praga_spike_domain"
"""Column of the domains found; ``domain`` may hold the true ones."""


def demo(
    input: Path | None = None,
    *,
    output_dir: Path = Path("."),
    n_obs: int | None = None,
    n_domains: int | None = None,
    label_key: str | None = None,
    batch_key: str | None = None,
    spatial_key: str = "spatial",
    modality: Literal["rna", "protein", "atac"] | None = None,
    counts: bool | None = None,
    keep_controls: bool = False,
    max_epochs: int | None = None,
    seed: int = 0,
) -> None:
    """Find the spatial domains of a simulated slice, or of your own.

    Prepares each modality, trains PRAGASpike, clusters its latent representation, prints scores and time, and writes
    demo.h5mu (data and results) and demo.png (labels, domains, loss).

    Parameters
    ----------
    input
        h5ad or h5mu file, or zarr folder, with counts and coordinates. Default: a simulated slice of RNA and protein.
    output_dir
        Folder of the results, made if need be.
    n_obs
        Spots of the simulated slice. Default: 2500.
    n_domains
        Number of domains. Default: as many as there are labels, else the number that the data suggest.
    label_key
        Column of true labels, to score the domains with, or none. Default: one with a usual name (domain, layer, ...).
    batch_key
        Column that tells several slices apart, or none. Default: one with a usual name (slice, section, sample, ...).
    spatial_key
        Key of the coordinates in obsm.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    counts
        Whether values are counts. Default: those that are whole and not negative.
    keep_controls
        Take control features (negative control probes, blanks, ...) as features; they are left out by default.
    max_epochs
        Steps of training. Default: that of the model.
    seed
        Seed of everything random.

    Examples
    --------
    stomics demo
    stomics demo slice.h5mu --output-dir results --label-key domain
    """
    from stomics_tools._paths import replacing
    from stomics_tools._validate import check_obs_names
    from stomics_tools.cli._checks import check_input, check_numbers, check_permission
    from stomics_tools.cli._output import Clock, check_not_input, losses

    clock = Clock()
    data_path, picture_path = output_dir / "demo.h5mu", output_dir / "demo.png"
    check_not_input(input, [data_path, picture_path])
    if input is not None:
        check_input(input)
    if input is not None and n_obs is not None:
        raise ValueError("`n_obs` is the size of the simulated slice, but `input` names a file. Leave one of them out.")
    check_numbers(n_domains=n_domains, max_epochs=max_epochs, seed=seed)
    check_permission(output_dir, "output_dir")
    output_dir.mkdir(parents=True, exist_ok=True)

    # These bring torch, which help and a mistyped option need not wait for.
    from stomics_tools import datasets, tl
    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._domains import number_of_domains
    from stomics_tools.cli._features import usable_features
    from stomics_tools.cli._files import check_writable, model_kept, read_input, write_output
    from stomics_tools.cli._picture import picture
    from stomics_tools.cli._prepare import as_mudata, representations
    from stomics_tools.cli._scores import score_table
    from stomics_tools.model import PRAGASpike

    clock.step("import", f"stomics-tools {__version__}")

    if input is None:
        data = datasets.simulate_multiomics(2500 if n_obs is None else n_obs, n_domains or 6, seed=seed)
    else:
        data = read_input(input)
    check_obs_names(data.obs_names)
    report = partial(clock.say, "features")
    data = usable_features(data, modality, keep_controls=keep_controls, report=report)
    mdata = as_mudata(data, modality, report=report)
    known = Annotation.of(mdata, spatial_key=spatial_key, label_key=label_key, batch_key=batch_key)
    what = "simulated slice" if input is None else input.name
    clock.step("read", f"{what}, {mdata.n_obs} spots{known.by_slices}")
    for remark in known.remarks if input is not None else ():
        clock.say("columns", remark)
    check_writable(mdata, data_path, argument="output_dir")
    keys = representations(mdata, None, None, seed=seed, report=lambda line: clock.step("prepare", line), counts=counts)

    with known.named():
        PRAGASpike.setup_mudata(mdata, keys, spatial_key=spatial_key, batch_key=known.slice_key)
        model = PRAGASpike(mdata)
    given: dict[str, Any] = {} if max_epochs is None else {"max_epochs": max_epochs}
    model.train(**given, seed=seed, enable_progress_bar=sys.stderr.isatty())
    clock.step("train", f"PRAGASpike, {losses(model.history)}")

    with model_kept(model, data_path, None):
        number, why = number_of_domains(n_domains, known)
        try:
            tl.spatial_domains(mdata, number, use_rep="X_praga_spike", seed=seed, key_added=DOMAIN)
        finally:  # the latent representation is kept whatever happens to its clusters
            write_output(mdata, data_path)
    clock.step("domains", f"{mdata.obs[DOMAIN].nunique()} domains, {why}")
    scores = score_table(mdata, keys, DOMAIN, known.labels, known.graph(), seed=seed)
    clock.step("score", "each modality alone, and the model" if known.labels is not None else "no labels to agree with")

    columns = {} if known.labels is None else {str(known.label_key): known.labels}
    columns |= {"PRAGASpike": mdata.obs[DOMAIN]}
    with replacing(picture_path) as part:
        picture(known.coordinates, columns, known.slices, model.history).savefig(part, dpi=100)
    clock.step("write", f"{data_path}, {picture_path}")
    print(f"{'total':10}{clock.total:7.1f} s\n\n{scores}")
