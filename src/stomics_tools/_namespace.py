"""What a namespace shows, and what it says of a name that it does not have."""

from __future__ import annotations

from collections.abc import Iterable


def missing_attribute(module: str, name: str, public: Iterable[str]) -> AttributeError:
    """The error of ``module.name``, with the public name that was meant, whatever its capitals and underscores."""
    message = f"module {module!r} has no attribute {name!r}"
    if name.startswith("__"):  # asked for by Python itself and by notebooks
        return AttributeError(message)
    from difflib import get_close_matches

    plain = {other.replace("_", "").lower(): other for other in public}
    close = get_close_matches(name.replace("_", "").lower(), list(plain), n=1)
    return AttributeError(f"{message}. Did you mean {plain[close[0]]!r}?" if close else message)
