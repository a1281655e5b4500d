"""The ``stomics`` command."""

from __future__ import annotations

from stomics_tools.cli._main import main

__all__ = ["main"]
