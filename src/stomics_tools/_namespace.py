"""What a namespace shows, and what it says of a name that it does not have."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def missing_attribute(module: str, name: str, public: Iterable[str]) -> AttributeError:
    """The error of ``module.name``, with the public name that was meant, whatever its capitals and underscores."""
    message = f"module {module!r} has no attribute {name!r}"
    if name.startswith("__"):  # asked for by Python itself and by notebooks
        return AttributeError(message)
    from difflib import get_close_matches

    plain = {other.replace("_", "").lower(): other for other in public}
    close = get_close_matches(name.replace("_", "").lower(), list(plain), n=1)
    return AttributeError(f"{message}. Did you mean {plain[close[0]]!r}?" if close else message)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Give the global generators of Python and numpy back as they were: lightning and scvi-tools draw when imported."""
    numpy_random = getattr(sys.modules.get("numpy"), "random", None)
    before, numpy_before = random.getstate(), None if numpy_random is None else numpy_random.get_state()
    try:
        yield
    finally:
        random.setstate(before)
        if numpy_random is not None:
            numpy_random.set_state(numpy_before)
