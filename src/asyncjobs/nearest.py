"""Names that are not known, and those that were likely meant."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is spelled most like `name`, or None if none is near."""
    from difflib import get_close_matches  # dear, and mostly nobody has misspelt anything

    close = get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def unknown(name: object, known: Iterable[str]) -> str:
    """Return the rest of a sentence that ends with a name not known: what was likely meant, and what there is."""
    names = list(known)
    near = nearest(str(name), names)
    meant = f" (did you mean {near!r}?)" if near else ""
    return f"{name!r}{meant}; there are: {', '.join(names)}"
