"""The folder of one training: config.yaml, checkpoints, logs, model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stomics_tools import __version__
from stomics_tools.cli._config_file import VERSION, flat, read_config

if TYPE_CHECKING:
    from stomics_tools.model import MaskedDiffusion


@dataclass(frozen=True)
class Run:
    """A folder ``outputs/NAME``."""

    folder: Path

    @classmethod
    def at(cls, path: Path) -> Run:
        """The run that a path belongs to: its folder, its model, its checkpoints or one of these."""
        own = (path, *path.absolute().parents[:2]) if path.exists() else (path,)
        return cls(next((folder for folder in own if (folder / "config.yaml").is_file()), path))

    @property
    def config(self) -> Path:
        """The effective configuration."""
        return self.folder / "config.yaml"

    @property
    def model(self) -> Path:
        """The trained model."""
        return self.folder / "model"

    @property
    def checkpoints(self) -> Path:
        """What an interrupted run goes on from."""
        return self.folder / "checkpoints"

    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return self.checkpoints.is_dir() and any(self.checkpoints.glob("*.ckpt"))

    def write_config(self, content: dict[str, Any]) -> None:
        """Write the effective configuration, and which version wrote it."""
        from stomics_tools._paths import replacing

        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.config) as part:
            part.write_text(as_yaml(content), encoding="utf-8")

    def discard_unless_resumable(self) -> None:
        """Remove the folder of a training that ended before its first checkpoint."""
        if not self.has_checkpoint():
            shutil.rmtree(self.folder, ignore_errors=True)

    def options(self) -> dict[str, Any]:
        """The options that it was begun with."""
        return read_config(self.config)

    def check_same(self, content: dict[str, Any]) -> None:
        """Raise ``ValueError`` at the first option that differs from the run that is to be resumed."""
        sections = [name for name, value in content.items() if isinstance(value, dict)]
        before = dict(flat(read_config(self.config), sections))
        for name, value in flat(content, sections):
            if before.get(name) != value:
                raise ValueError(
                    f"`resume`: '{name}' is {value!r} here, {before.get(name)!r} in '{self.config}'. "
                    f"Repeat the options of that run by `--config {self.config} --resume`."
                )

    def load(self) -> tuple[MaskedDiffusion, dict[str, Any]]:
        """The trained model, without data, and the configuration."""
        from stomics_tools.model import MaskedDiffusion

        if not self.folder.is_dir():
            raise FileNotFoundError(f"`checkpoint`: no such folder '{self.folder}'.")
        if (self.folder / "model.json").is_file():  # saved in Python, without a record of a training
            return MaskedDiffusion.load(self.folder), {}
        if not self.config.is_file():
            raise FileNotFoundError(
                f"`checkpoint`: no config.yaml in '{self.folder}'. Name the folder of a training, outputs/NAME."
            )
        content = read_config(self.config)
        if not self.model.is_dir():
            raise FileNotFoundError(
                f"`checkpoint`: no trained model in '{self.folder}': its training has not ended. Go on with it by "
                f"`stomics diffusion train --config {self.config} --resume`."
            )
        return MaskedDiffusion.load(self.model), content


def as_yaml(content: dict[str, Any]) -> str:
    """A file of options."""
    return yaml.safe_dump({VERSION: __version__, **content}, sort_keys=False)
