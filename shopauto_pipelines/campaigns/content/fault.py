"""What is wrong with a message, and where."""

from __future__ import annotations

from collections.abc import Callable

from shopauto_pipelines.platform.errors import ShopAutoError


class ContentError(ShopAutoError):
    """A message cannot be rendered; the text names the template or text and the variable, and no private data.

    ``attribute`` is the path to what is at fault in the step's declaration.
    """

    def __init__(self, text: str, *attribute: str) -> None:
        super().__init__(text)
        self.attribute = attribute or ("template",)


def error_at(where: str, what: str | None) -> ContentError:
    """An error that begins with where it is, where that is known."""
    return ContentError(f"{where}: {what}" if where else str(what))


#: File and line of a line of a source that was put together.
At = Callable[[int], str]
