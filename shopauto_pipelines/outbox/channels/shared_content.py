"""Folds messages that differ a little into one shared body and the pieces that differ: what a bulk call takes.

SendGrid's mail-send call has one body for up to 1,000 personalisations, and per person only ``substitutions``, of at
most 10,000 bytes together. Our bodies are rendered per person (conditions, languages, product blocks), so the shared
part is found afterwards: bodies are cut at their tags (HTML) and at line ends (text); messages with the same sequence of
cuts fold together; a piece that is the same in all of them is shared, the others become substitutions. Putting the
pieces back gives every person's body exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shopauto_pipelines.outbox.channels import Envelope

#: Most bytes of one person's substitutions, tags and values together, with some room under the provider's 10,000.
MOST_BYTES = 9_500

_HTML = re.compile(r"(<[^>]*>)")
_TEXT = re.compile(r"(\n)")


@dataclass(frozen=True)
class Folded:
    """Messages with one body. ``pieces[i]`` are the substitutions of ``envelopes[i]``."""

    envelopes: tuple[Envelope, ...]
    html: str
    text: str
    pieces: tuple[dict[str, str], ...]


def fold(batch: Sequence[Envelope]) -> list[Folded]:
    """The batch in as few bodies as its shapes allow; every envelope is in exactly one of them.

    A message whose pieces are too large, or that holds text that looks like a tag of ours, gets a body of its own.
    """
    shapes: dict[tuple[object, ...], list[Envelope]] = {}
    alone: list[Envelope] = []
    for envelope in batch:
        if "%sa" in envelope.html or "%sa" in envelope.text:
            alone.append(envelope)
        else:
            shapes.setdefault(_shape(envelope), []).append(envelope)
    folded = [part for group in shapes.values() for part in _fold_group(group)]
    return folded + [Folded((envelope,), envelope.html, envelope.text, ({},)) for envelope in alone]


def _shape(envelope: Envelope) -> tuple[object, ...]:
    """Messages fold together that come from one step and language and have the same tags in the same order."""
    tags = tuple(piece.split(maxsplit=1)[0] for piece in _HTML.split(envelope.html)[1::2])
    return envelope.key.campaign, envelope.key.step, envelope.language, tags, envelope.text.count("\n")


def _fold_group(group: Sequence[Envelope]) -> Iterator[Folded]:
    bodies = [(_HTML.split(envelope.html), _TEXT.split(envelope.text)) for envelope in group]
    html, html_pieces = _shared([html for html, _ in bodies], "h")
    text, text_pieces = _shared([text for _, text in bodies], "t")
    pieces = [mine | also for mine, also in zip(html_pieces, text_pieces, strict=True)]
    small = [n for n, mine in enumerate(pieces) if _size(mine) <= MOST_BYTES]
    if small:
        yield Folded(tuple(group[n] for n in small), html, text, tuple(pieces[n] for n in small))
    for n, mine in enumerate(pieces):
        if _size(mine) > MOST_BYTES:
            yield Folded((group[n],), group[n].html, group[n].text, ({},))


def _shared(bodies: Sequence[Sequence[str]], mark: str) -> tuple[str, list[dict[str, str]]]:
    """The shared body with tags in place of what differs, and each body's pieces by tag."""
    body: list[str] = []
    pieces: list[dict[str, str]] = [{} for _ in bodies]
    tags: dict[tuple[str, ...], str] = {}
    for variants in zip(*bodies, strict=True):
        if len(set(variants)) == 1:
            body.append(variants[0])
            continue
        tag = tags.setdefault(variants, f"%sa{mark}{len(tags)}%")
        body.append(tag)
        for mine, variant in zip(pieces, variants, strict=True):
            mine[tag] = variant
    return "".join(body), pieces


def _size(pieces: dict[str, str]) -> int:
    return sum(len(tag) + len(value.encode()) + 6 for tag, value in pieces.items())
