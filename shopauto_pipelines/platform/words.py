"""Words that help with a wrong name. What is wrong is said by whoever found it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


def nearest(
    name: str, valid: Iterable[str], quote: str = "`", most: int = 24, alike: Callable[[str], str] = str.lower
) -> str:
    """A half sentence: the nearest valid name, or all of them, at most so many. Names are compared as ``alike`` makes them."""
    names = list(valid)
    if (near := closest(name, names, alike)) is not None:
        return f"did you mean {quote}{near}{quote}?"
    shown = ", ".join(sorted(names)[:most])
    return f"there are {shown or 'none'}{f' and {len(names) - most} more' if len(names) > most else ''}"


def closest(name: str, valid: Iterable[str], alike: Callable[[str], str] = str.lower) -> str | None:
    """The valid name that is nearest; none where no one is near."""
    made = {alike(each): each for each in reversed(list(valid))}
    close = get_close_matches(alike(name), list(reversed(made)), n=1)
    return made[close[0]] if close else None
