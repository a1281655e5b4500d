"""Draws of a trained model, as a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stomics_tools.cli.diffusion._config import Mode

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData

    from stomics_tools.model import MaskedDiffusion
    from stomics_tools.model.masked_diffusion._predictions import Consensus

_POSITION, _DRAWS, _DISPERSION = "spatial_predicted", "spatial_draws", "spatial_dispersion"


def sample(
    *,
    checkpoint: Path,
    input: Path | None = None,
    mode: Mode | None = None,
    output: Path | None = None,
    num_samples: int | None = None,
    num_steps: int = 20,
    num_cells: int | None = None,
    landmarks: str | None = None,
    hidden: str | None = None,
    sampler: Literal["ddim", "dpm++", "ancestral"] = "dpm++",
    temperature: float | None = None,
    guidance: float = 0.0,
    keep_controls: bool = False,
    seed: int = 0,
) -> None:
    """Draw positions, expression, or new tissue.

    expr_to_pos writes the cells with obsm["spatial_predicted"], of several draws their consensus, beside it
    obsm["spatial_dispersion"] (of draws at temperature 1) and obsm["spatial_draws"] (cells x draws x dimensions). pos_to_expr writes the cells with
    the genes of training in X, of several draws their mean, beside it layers["draw_0"] and so on. joint writes new
    cells, those of several draws as slices by obs["sample"].

    Parameters
    ----------
    checkpoint
        Folder of the training, outputs/NAME, or its model or checkpoint; or a model saved in Python.
    input
        h5ad file of the cells, with the keys of training; not of joint.
    mode
        What is drawn: positions given expression, expression given positions, or both. Default: joint without an input;
        with one, positions, if the model was trained for them.
    output
        h5ad file of the results. Default: a new file samples_MODE.h5ad in the folder of the training.
    num_samples
        Draws. Default: 1. Of joint without num_cells, the cells of one draw.
    num_steps
        Passes through the network a draw.
    num_cells
        Cells of a draw of joint.
    landmarks
        Boolean column of the cells whose positions are known, of expr_to_pos.
    hidden
        Boolean column of the cells whose expression is asked for, of pos_to_expr. Default: those without (NaN).
    sampler
        Kind of the steps.
    temperature
        Of expr_to_pos: 1 for draws as far off as the model is unsure, less for layouts nearer the truth, as dense as
        tissue. Default: 0.1, with landmarks 1.
    guidance
        How much more what is given counts than it would; of models trained for all modes.
    keep_controls
        Take control features (negative control probes, blanks, ...) as genes; they are left out by default.
    seed
        Seed of the draws.

    Examples
    --------
    stomics diffusion sample query.h5ad --checkpoint outputs/brain --mode expr_to_pos --output placed.h5ad
    stomics diffusion sample --checkpoint outputs/brain --num-samples 1000
    """
    from stomics_tools._params import plain_params
    from stomics_tools.cli._checks import check_permission
    from stomics_tools.cli._files import check_writable, unused, write_output
    from stomics_tools.cli._output import Clock, check_not_input
    from stomics_tools.cli.diffusion._data import read_object
    from stomics_tools.cli.diffusion._run import Run

    clock = Clock()
    run = Run.at(checkpoint)
    if output is not None:
        check_not_input(input, [output], argument="output")
        if output.suffix != ".h5ad":
            raise ValueError(f"`output` must end in .h5ad, found '{output}'.")
        if not output.parent.is_dir():
            raise FileNotFoundError(f"`output`: no such folder '{output.parent}'.")
        check_permission(output.parent, "output")
    if mode is not None:
        _check_mode(mode, input)
    model, _ = run.load()
    if mode is None:
        mode = "joint" if input is None else _task_of(model)
        _check_mode(mode, input)
        clock.say("mode", mode)
    if mode == "joint" and num_cells is None:
        num_cells, num_samples = num_samples, 1
    num_samples = 1 if num_samples is None else num_samples
    if output is None:
        check_permission(run.folder, "checkpoint")
        output = unused(run.folder / f"samples_{mode}.h5ad")
    query = None
    if input is not None:
        report = partial(clock.say, "features")
        query = read_object(input, argument="input", keep_controls=keep_controls, report=report)
        check_writable(query, output)
    clock.step("read", f"{checkpoint}" if query is None else f"{checkpoint}, {query.n_obs} cells")
    options: dict[str, Any] = {"n_samples": num_samples, "n_steps": num_steps, "n_cells": num_cells}
    options |= {"landmarks": landmarks, "hidden": hidden, "sampler": sampler, "seed": seed}
    options |= {"temperature": temperature, "guidance": guidance}
    drawn = model.sample(query, mode=mode, **options)
    clock.step("draw", f"{num_samples} x {mode}")
    draws = drawn if isinstance(drawn, dict) else {"drawn": drawn}
    if num_samples == 1:
        draws = {name: values[None] for name, values in draws.items()}
    if query is None:
        result = _new_cells(draws["position"], draws["expression"], model.gene_names, model._spec.spatial_key)
    elif mode == "expr_to_pos":
        agreed = None
        if num_samples > 1:
            how: dict[str, Any] = {"n_steps": num_steps, "landmarks": landmarks, "sampler": sampler, "seed": seed}
            agreed = model.consensus(query, n_samples=num_samples, **how)
        result = _placed(query, draws["drawn"], agreed)
    else:
        result = _expressed(query, draws["drawn"], model.gene_names)
    result.uns[model._key] = {"sample": plain_params({"checkpoint": str(checkpoint), "mode": mode, **options})}
    write_output(result, output)
    clock.step("write", f"{output}")


def _check_mode(mode: Mode, input: Path | None) -> None:
    """Raise ``ValueError`` unless there is an input exactly where one is needed."""
    if (input is None) != (mode == "joint"):
        why = "draws new cells: leave `input` out" if mode == "joint" else "draws for cells: name their file by `input`"
        raise ValueError(f"`mode`: {mode!r} {why}.")


def _task_of(model: MaskedDiffusion) -> Mode:
    """What is drawn for given cells by a model of one task, or of all."""
    return "pos_to_expr" if model._arguments()["training_mode"] == "pos_to_expr" else "expr_to_pos"


def _placed(query: AnnData, draws: np.ndarray, agreed: Consensus | None) -> AnnData:
    """The query with positions: those of the only one of the draws ``(k, n, d)``, or what they agree on."""
    query.obsm[_POSITION] = draws[0] if agreed is None else agreed.position
    if agreed is not None:
        query.obsm[_DRAWS] = draws.swapaxes(0, 1).copy()
        query.obsm[_DISPERSION] = agreed.dispersion[:, None]
    return query


def _expressed(query: AnnData, draws: np.ndarray, genes: list[str]) -> AnnData:
    """The cells of the query with the genes of training; draws ``(k, n, n_genes)``."""
    import pandas as pd
    from anndata import AnnData

    result = AnnData(draws.mean(axis=0), obs=query.obs, var=pd.DataFrame(index=genes), obsm=dict(query.obsm))
    if len(draws) > 1:
        for number, draw in enumerate(draws):
            result.layers[f"draw_{number}"] = draw
    return result


def _new_cells(position: np.ndarray, expression: np.ndarray, genes: list[str], spatial_key: str) -> AnnData:
    """Cells of all draws one after the other; ``(k, n, d)`` and ``(k, n, n_genes)``."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    n_draws, n_cells = position.shape[:2]
    draw = np.repeat(np.arange(n_draws).astype(str), n_cells)
    names = [f"sample{d}_cell{i}" for d in range(n_draws) for i in range(n_cells)]
    return AnnData(
        expression.reshape(-1, len(genes)),
        obs=pd.DataFrame({"sample": pd.Categorical(draw)}, index=names),
        var=pd.DataFrame(index=genes),
        obsm={spatial_key: position.reshape(n_draws * n_cells, -1)},
    )
