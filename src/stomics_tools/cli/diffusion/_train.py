"""Training, and the options to begin with."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stomics_tools.cli.diffusion._config import (
    Config,
    Diffusion,
    Kind,
    Masking,
    Mode,
    Network,
    Training,
    resumed,
)
from stomics_tools.cli.diffusion._run import Run, as_yaml

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

LoggerName = Literal["csv", "tensorboard", "wandb", "none"]


def config(kind: Kind = "full") -> None:
    """Print a configuration to edit.

    All options of training as YAML, for the `--config` of train.

    Parameters
    ----------
    kind
        basic: neither gate, nor experts, nor masking. gated, moe: with one of them. combined: with both. full: with both
        and masking.

    Examples
    --------
    stomics diffusion config
    stomics diffusion config --kind basic
    """
    print(as_yaml(Config.of_kind(kind).plain()), end="")


def train(
    *,
    data_dir: Path | None = None,
    exp_name: str | None = None,
    output_dir: Path = Path("outputs"),
    resume: bool | Path = False,
    num_genes: int | None = None,
    logger: LoggerName = "csv",
    training_mode: Mode = "joint",
    network: Network = Network(),
    diffusion: Diffusion = Diffusion(),
    training: Training = Training(),
    masking: Masking = Masking(),
) -> None:
    """Train on the cells of preprocess.

    Writes outputs/NAME: config.yaml (all options in effect), model, checkpoints and logs.

    Parameters
    ----------
    data_dir
        Folder written by preprocess. It must be named, unless resume names a training.
    exp_name
        Name of the folder of results. It must be named, unless resume names a training.
    output_dir
        Folder in which that is made.
    resume
        Go on with an interrupted training of the same name and options, or with that of a path: a folder outputs/NAME,
        or a checkpoint in it, whose options are then taken from its config.yaml.
    num_genes
        Learn the most variable of the genes of preprocess alone. Default: all of them.
    logger
        Where losses are logged, beside the model itself.
    training_mode
        All tasks, or one of them.
    network
        Options of the network.
    diffusion
        Options of the diffusion.
    training
        Options of training.
    masking
        Options of masking.

    Examples
    --------
    stomics diffusion train --data-dir data --exp-name brain
    stomics diffusion train --config outputs/brain/config.yaml --resume
    stomics diffusion train --resume outputs/brain/checkpoints/last.ckpt
    """
    from stomics_tools._validate import check_integer
    from stomics_tools.cli._checks import check_permission
    from stomics_tools.cli._genes import chosen_genes
    from stomics_tools.cli._output import Clock
    from stomics_tools.cli.diffusion._data import read_part, setup_arguments

    clock = Clock()
    options = Config(training_mode, network, diffusion, training, masking)
    checkpoint: Path | None = None
    if isinstance(resume, Path):
        run, checkpoint = _run_of(resume)
        before = run.options()
        given = {"data_dir": data_dir, "exp_name": exp_name, "num_genes": num_genes, "logger": logger}
        options = resumed(options, before, given, run.config)
        data_dir, exp_name, output_dir = Path(before["data_dir"]), run.folder.name, run.folder.parent
        logger, num_genes = before["logger"], before.get("num_genes")
    missing = [name for name, value in (("data_dir", data_dir), ("exp_name", exp_name)) if value is None]
    if missing:
        raise ValueError(
            f"`{missing[0]}`: name it by `--{missing[0].replace('_', '-')}`, or a training by `--resume PATH`."
        )
    assert data_dir is not None
    assert exp_name is not None
    if exp_name in ("", ".", "..") or Path(exp_name).name != exp_name:
        raise ValueError(f"`exp_name` must be the name of a folder, without a path, found {exp_name!r}.")
    _check_logger(logger)
    run = Run(output_dir / exp_name)
    check_permission(run.folder, "output_dir")
    folders = {"data_dir": str(data_dir.resolve()), "exp_name": exp_name, "output_dir": str(output_dir.resolve())}
    content = {**folders, "num_genes": num_genes, "logger": logger, **options.plain()}
    _check_folder(run, resume is not False)
    if resume is True:
        run.check_same(content)
    adata = read_part(data_dir, "train")
    setup = setup_arguments(adata, data_dir)
    if num_genes is not None:
        check_integer(num_genes, argument="num_genes")
        adata = adata[:, chosen_genes(adata, setup["layer"], num_genes, setup["counts"])].copy()

    from stomics_tools.model import MaskedDiffusion

    MaskedDiffusion.setup_anndata(adata, **setup)
    model = MaskedDiffusion(adata, **options.model_arguments())
    clock.step("read", f"{adata.n_obs} cells, {adata.n_vars} genes")
    if resume is False:
        run.write_config(content)
    if checkpoint is None and resume is not False and run.has_checkpoint():
        checkpoint = run.checkpoints
    try:
        model.train(
            **options.training_arguments(),
            checkpoint_dir=run.checkpoints,
            ckpt_path=checkpoint,
            key_added=None,
            logger=_make_logger(logger, run),
            enable_progress_bar=sys.stderr.isatty(),
        )
    except BaseException:
        run.discard_unless_resumable()
        raise
    loss = model.history["train_loss"]["train_loss"]
    how = "" if checkpoint is None else ", resumed"
    clock.step("train", f"{len(loss)} epochs{how}, loss {loss.iloc[0]:.3g} to {loss.iloc[-1]:.3g}")
    model.save(run.model)
    clock.step("write", f"{run.config}, {run.model}")


def _run_of(path: Path) -> tuple[Run, Path | None]:
    """The training that a path given to ``--resume`` belongs to, and the checkpoint if it is one."""
    path = path.expanduser()
    if not path.exists():
        raise FileNotFoundError(f"`resume`: no such file or folder '{path}'.")
    run = Run.at(path)
    if not run.config.is_file():
        raise FileNotFoundError(
            f"`resume`: '{path}' belongs to no training (no config.yaml). Name the folder of one, outputs/NAME, or a "
            "checkpoint in it."
        )
    return run, path if path.is_file() and path.suffix == ".ckpt" else None


def _check_folder(run: Run, resume: bool) -> None:
    if not resume and run.folder.exists():
        raise FileExistsError(
            f"`exp_name`: '{run.folder}' exists. Choose another name, or go on with it by `--resume`."
        )
    if resume and not run.config.is_file():
        raise FileNotFoundError(f"`resume`: there is no training in '{run.folder}' to go on with (no config.yaml).")
    if resume and run.model.exists():
        raise FileExistsError(f"`resume`: the training in '{run.folder}' has ended, '{run.model}' is there.")


def _check_logger(name: LoggerName) -> None:
    if name in ("tensorboard", "wandb") and find_spec(name) is None:
        raise ValueError(
            f"`logger`: {name!r} needs the package {name}, which is not installed. "
            f'Run `pip install "stomics-tools[{name}]"`, or choose csv or none.'
        )


def _make_logger(name: LoggerName, run: Run) -> Logger | Literal[False]:
    if name == "none":
        return False
    from lightning.pytorch import loggers

    if name == "wandb":
        return loggers.WandbLogger(name=run.folder.name, save_dir=run.folder, project="stomics-diffusion")
    make = loggers.CSVLogger if name == "csv" else loggers.TensorBoardLogger
    return make(run.folder, name="logs")
