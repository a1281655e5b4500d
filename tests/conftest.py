from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data, named by the environment variable STOMICS_DATA."""
    folder = os.environ.get("STOMICS_DATA")
    if not folder:
        pytest.skip("STOMICS_DATA is not set: it names the folder of real data that this test reads")
    return Path(folder)
