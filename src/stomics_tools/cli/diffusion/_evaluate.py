"""The scores of a trained model."""

from __future__ import annotations

import json
from pathlib import Path


def evaluate(
    *,
    checkpoint: Path,
    data_dir: Path | None = None,
    num_samples: int = 8,
    num_steps: int = 20,
    hidden_share: float = 0.3,
    unit_scale: float = 1.0,
    seed: int = 0,
) -> None:
    """Score a trained model on the slices held out.

    Positions given expression, and expression of cells that are hidden given positions, as far as the model was trained
    for them. Prints means, and writes scores_positions.csv, scores_expression.csv and scores.json beside the model.

    Parameters
    ----------
    checkpoint
        Folder of the training, outputs/NAME, or its model or checkpoint; or a model saved in Python.
    data_dir
        Folder that holds test.h5ad. Default: that of training.
    num_samples
        Draws; their consensus is scored from two on.
    num_steps
        Passes through the network a draw.
    hidden_share
        Share of the cells whose expression is hidden.
    unit_scale
        Micrometres in one unit of the coordinates.
    seed
        Seed of the draws and of what is hidden.

    Examples
    --------
    stomics diffusion test --checkpoint outputs/brain
    """
    from stomics_tools import __version__
    from stomics_tools._paths import replacing
    from stomics_tools._validate import check_integer, check_number
    from stomics_tools.cli._checks import check_permission
    from stomics_tools.cli._config_file import VERSION
    from stomics_tools.cli._output import Clock
    from stomics_tools.cli.diffusion._data import read_part
    from stomics_tools.cli.diffusion._run import Run

    clock = Clock()
    for argument, value, minimum in (("num_samples", num_samples, 1), ("num_steps", num_steps, 1), ("seed", seed, 0)):
        check_integer(value, argument=argument, minimum=minimum)
    check_number(hidden_share, argument="hidden_share", low=0.0, high=0.95, open_low=True)
    check_number(unit_scale, argument="unit_scale", low=0.0, open_low=True)
    run = Run.at(checkpoint)
    check_permission(run.folder, "checkpoint")
    model, config = run.load()
    if data_dir is None and "data_dir" not in config:
        raise ValueError("`data_dir`: name the folder that holds test.h5ad, of which the saved model knows nothing.")
    adata = read_part(Path(config["data_dir"]) if data_dir is None else data_dir, "test")
    clock.step("read", f"{adata.n_obs} cells")

    from stomics_tools.cli.diffusion._scores import expression_scores, position_scores, summary, write_csv

    draws = {"num_samples": num_samples, "num_steps": num_steps, "seed": seed}
    mode, tables = config.get("training_mode", model._arguments()["training_mode"]), {}
    if mode in ("joint", "expr_to_pos"):
        tables["positions"] = position_scores(model, adata, **draws, unit_scale=unit_scale)
        write_csv(tables["positions"], run.folder / "scores_positions.csv")
    if mode in ("joint", "pos_to_expr"):
        tables["expression"] = expression_scores(model, adata, **draws, hidden_share=hidden_share)
        write_csv(tables["expression"], run.folder / "scores_expression.csv")
    clock.step("score", ", ".join(tables))

    settings = {VERSION: __version__, **draws, "hidden_share": hidden_share, "unit_scale": unit_scale}
    content = {**settings, **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}}
    with replacing(run.folder / "scores.json") as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    clock.step("write", f"{run.folder / 'scores.json'} and .csv")
    for name, table in tables.items():
        print(f"\n{name}\n{summary(table)}")
