"""From a slice to its spatial domains, and a picture of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

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
    max_epochs: int | None = None,
    seed: int = 0,
) -> None:
    """Find the spatial domains of a simulated slice, or of your own.

    Prepares each modality, trains PRAGASpike, clusters its latent representation, prints scores and time, and writes
    demo.h5mu (data and results) and demo.png (labels, domains, loss).

    Parameters
    ----------
    input
        h5ad or h5mu file with counts and coordinates. Default: a simulated slice of RNA and protein.
    output_dir
        Folder of the results, made if need be.
    n_obs
        Spots of the simulated slice. Default: 2500.
    n_domains
        Number of domains. Default: as many as there are labels, else the number that the data suggest.
    label_key
        Column of true labels, to score the domains with. Default: one with a usual name (domain, layer, region, ...).
    batch_key
        Column that tells several slices apart. Default: one with a usual name (slice, section, sample, ...).
    spatial_key
        Key of the coordinates in obsm.
    modality
        What an h5ad file holds. Default: recognised by its feature types, names and values.
    max_epochs
        Steps of training. Default: that of the model.
    seed
        Seed of everything random.
    """
    from stomics_tools._validate import check_integer, check_obs_names
    from stomics_tools.cli._output import Clock, check_not_input, replacing

    clock = Clock()
    data_path, picture_path = output_dir / "demo.h5mu", output_dir / "demo.png"
    check_not_input(input, [data_path, picture_path])
    if input is not None and not input.exists():
        raise FileNotFoundError(f"`input`: no such file '{input}'.")
    if input is not None and n_obs is not None:
        raise ValueError("`n_obs` is the size of the simulated slice, but `input` names a file. Leave one of them out.")
    for argument, value, minimum in (("n_domains", n_domains, 2), ("max_epochs", max_epochs, 1), ("seed", seed, 0)):
        if value is not None:
            check_integer(value, argument=argument, minimum=minimum)
    output_dir.mkdir(parents=True, exist_ok=True)

    # These bring torch, which help and a mistyped option need not wait for.
    from stomics_tools import datasets, tl
    from stomics_tools._compat import columns_as_given
    from stomics_tools.cli._annotation import Annotation
    from stomics_tools.cli._picture import picture
    from stomics_tools.cli._prepare import as_mudata, prepare
    from stomics_tools.cli._scores import score_table
    from stomics_tools.model import PRAGASpike

    clock.step("import", f"stomics-tools {__version__}")

    if input is None:
        data = datasets.simulate_multiomics(2500 if n_obs is None else n_obs, n_domains or 6, seed=seed)
    else:
        data = datasets.read_slice(input)
    check_obs_names(data.obs_names)
    mdata = as_mudata(data, modality)
    known = Annotation.of(mdata, spatial_key=spatial_key, label_key=label_key, batch_key=batch_key)
    what = "simulated slice" if input is None else input.name
    by = f" in {known.n_slices} slices by {known.slice_key!r}" if known.slices is not None else ""
    clock.step("read", f"{what}, {mdata.n_obs} spots{by}")

    representations = {}
    for name, adata in mdata.mod.items():
        representations[name], how = prepare(name, adata, seed=seed)
        clock.step("prepare", how)

    PRAGASpike.setup_mudata(mdata, representations, spatial_key=spatial_key, batch_key=known.slice_key)
    model = PRAGASpike(mdata)
    model.train(max_epochs, seed=seed, enable_progress_bar=sys.stderr.isatty())
    loss = model.history["train_loss"]["train_loss"]
    clock.step("train", f"PRAGASpike, {len(loss)} epochs, loss {loss.iloc[0]:.3g} to {loss.iloc[-1]:.3g}")

    why = "as asked for" if n_domains is not None else "suggested by the data"
    if n_domains is None and known.labels is not None:
        n_domains, why = known.labels.nunique(), f"as many as labels in {known.label_key!r}"
    tl.spatial_domains(mdata, n_domains, use_rep="X_praga_spike", seed=seed, key_added=DOMAIN)
    clock.step("domains", f"{mdata.obs[DOMAIN].nunique()} domains, {why}")
    scores = score_table(mdata, representations, DOMAIN, known.labels, known.graph(), seed=seed)
    clock.step("score", "each modality alone, and the model" if known.labels is not None else "no labels to agree with")

    columns = {} if known.labels is None else {str(known.label_key): known.labels}
    columns |= {"PRAGASpike": mdata.obs[DOMAIN]}
    with replacing(picture_path) as part:
        picture(known.coordinates, columns, known.slices, model.history).savefig(part, dpi=100)
    with replacing(data_path) as part, columns_as_given():
        mdata.write_h5mu(part)
    clock.step("write", f"{data_path}, {picture_path}")
    print(f"{'total':10}{clock.total:7.1f} s\n\n{scores}")
