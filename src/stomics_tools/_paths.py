"""Paths that users give, and what is written there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """`path` as a Path, with a leading ``~`` replaced by the home folder, as a shell does it."""
    return Path(os.path.expanduser(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, that takes its place once the block has ended well.

    What is written may be a file or a folder. It is on disk before it takes its place. Whatever fails, and whenever the
    process or the machine stops, either the old or the new one is there: see :func:`standing` for folders.
    """
    path = path.resolve()  # a link stays a link: what it leads to is replaced
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield part
        _sync(part)
        if part.is_dir():
            _replace_folder(part, path)
        else:
            os.replace(part, path)
        _sync_folder(path.parent)
    finally:
        _remove(part)


def standing(path: Path) -> Path:
    """The folder at `path`, or the one before it, where a process was stopped while it replaced that one."""
    old = _old(path)
    return old if old.exists() and not path.exists() else path


def _replace_folder(part: Path, path: Path) -> None:
    """Put a folder in the place of `path`, which no single step can do; if it fails, the old one is back."""
    old = _old(path)
    if path.exists():
        _remove(old)
        try:
            path.rename(old)
            part.rename(path)
        except BaseException:
            if old.exists() and not path.exists():
                _put_back(old, path)
            raise
    else:
        part.rename(path)
    with suppress(OSError):  # the new one is in its place: what cannot be removed now is removed the next time
        _remove(old)


def _put_back(old: Path, path: Path) -> None:
    try:
        os.replace(old, path)
    except OSError:
        shutil.copytree(old, path)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.stem}.old{path.suffix}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder with all in it, is on disk."""
    if path.is_dir():
        for inside in path.iterdir():
            _sync(inside)
        _sync_folder(path)
    else:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # not every file system knows this of folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
