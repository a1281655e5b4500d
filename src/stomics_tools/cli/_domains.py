"""From a representation to domains, as many as asked for, or as there are labels."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData
from mudata import MuData

from stomics_tools import metrics, tl
from stomics_tools.cli import _files
from stomics_tools.cli._annotation import Annotation
from stomics_tools.cli._output import Clock


def number_of_domains(asked: int | None, known: Annotation) -> tuple[int | None, str]:
    """The number of domains, None if nothing tells it, and the reason for it."""
    if asked is not None:
        return asked, "as asked for"
    if known.labels is not None:
        return known.labels.nunique(), f"as many as labels in {known.label_key!r}"
    return None, "suggested by the data"


def find_domains(data: AnnData | MuData, key: str, known: Annotation, n_domains: int | None, *, seed: int) -> str:
    """Write domains from ``obsm["X_<key>"]`` to ``obs["<key>_domain"]`` if their number is known; one line on them."""
    number, why = number_of_domains(n_domains, known)
    if number is None:
        return "none: neither `--n-domains` nor labels"
    column = f"{key}_domain"
    tl.spatial_domains(data, number, use_rep=f"X_{key}", seed=seed, key_added=column)
    line = f"{number} in obs[{column!r}], {why}"
    if known.labels is None:
        return line
    scores = metrics.score_labels(known.labels, data.obs[column])
    return f"{line}; {known.label_key!r}: ARI {scores['ari']:.3f}, NMI {scores['nmi']:.3f}"


def finish(
    data: AnnData | MuData,
    whole: AnnData | MuData,
    key: str,
    known: Annotation,
    n_domains: int | None,
    *,
    seed: int,
    output: Path,
    save_model: Path | None,
    clock: Clock,
) -> None:
    """Find domains and write `whole`, which holds `data`; if there can be no domains, the rest is written first."""
    try:
        found = find_domains(data, key, known, n_domains, seed=seed)
    except Exception as error:
        _files.write_output(whole, output)
        error.add_note(f"Everything but the domains is in '{output}'.")
        raise
    clock.step("domains", found)
    _files.write_output(whole, output)
    clock.step("write", _files.written(output, save_model))
