"""Folds messages that differ a little into one shared body and the pieces that differ: what a bulk call takes.

SendGrid's mail-send call has one body for up to 1,000 personalisations, and per person only ``substitutions``, of at
most 10,000 bytes together. The holes of a draft are such substitutions already. Drafts of one step and language differ
too (with a name or without, other products), so they are cut into pieces at their tags (HTML) and line ends (text) and
aligned; what all have in common is shared, and what stands between becomes a substitution, the same for everybody with
the same draft. Putting the pieces back gives every person's body exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from threading import Lock

from shopauto_pipelines.campaigns.drafts import MARK, Draft, cut, fill, valued
from shopauto_pipelines.outbox.channels import Envelope

#: Most bytes of one person's substitutions, tags and values together, with some room under the provider's 10,000.
MOST_BYTES = 9_500

#: Where the pieces that everybody with a draft has are larger, another call is cheaper than to say them a thousand times.
_ROOM = 3_000

#: Most drafts of a step and language that a folding is kept for.
_KEPT = 512

_HTML = re.compile(r"(<[^>]*>)")
_TEXT = re.compile(r"(\n)")


@dataclass(frozen=True)
class Folded:
    """Messages with one body. ``pieces[i]`` are the substitutions of ``envelopes[i]``."""

    envelopes: tuple[Envelope, ...]
    html: str
    text: str
    pieces: tuple[dict[str, str], ...]


class Folder:
    """Folds batch after batch. How the drafts of a step and language fold is worked out once, and again for new ones."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, str, str], _Shared] = {}
        self._lock = Lock()

    def fold(self, batch: Sequence[Envelope]) -> list[Folded]:
        """The batch in as few bodies as its drafts allow; every envelope is in exactly one of them.

        A message whose pieces are too large, or that holds text that looks like a mark of ours, gets a body of its own.
        """
        groups: dict[tuple[str, str, str], list[Envelope]] = {}
        for envelope in batch:
            groups.setdefault((envelope.key.campaign, envelope.key.step, envelope.language), []).append(envelope)
        return [part for name, group in groups.items() for part in self._fold_group(name, group)]

    def _fold_group(self, name: tuple[str, str, str], group: Sequence[Envelope]) -> list[Folded]:
        drafts = dict.fromkeys(envelope.draft for envelope in group)
        with self._lock:
            shared = self._shared.get(name)
            if shared is None or any(draft not in shared.by_draft for draft in drafts):
                known = {draft: None for draft in shared.by_draft if draft.names} if shared else {}
                shared = _Shared(known | drafts if len(known) + len(drafts) <= _KEPT else drafts)
                self._shared[name] = shared
        by_body: dict[_Body, list[tuple[Envelope, dict[str, str]]]] = {}
        alone = []
        for envelope in group:
            body = shared.by_draft[envelope.draft]
            pieces = body.pieces(envelope) if body else None
            if body is None or pieces is None:
                alone.append(Folded((envelope,), envelope.html, envelope.text, ({},)))
            else:
                by_body.setdefault(body, []).append((envelope, pieces))
        return [
            Folded(tuple(e for e, _ in found), body.html, body.text, tuple(pieces for _, pieces in found))
            for body, found in by_body.items()
        ] + alone


def fold(batch: Sequence[Envelope]) -> list[Folded]:
    """One batch folded by itself."""
    return Folder().fold(batch)


class _Shared:
    """The bodies of a set of drafts; none for a draft whose messages have to be alone."""

    def __init__(self, drafts: Iterable[Draft]) -> None:
        self.by_draft: dict[Draft, _Body | None] = {}
        self._divide([draft for draft in drafts if self._is_foldable(draft)])

    def _is_foldable(self, draft: Draft) -> bool:
        self.by_draft[draft] = None
        return all(MARK not in literal for part in _parts(draft) for literal in cut(part)[::2]) and (
            bool(draft.names) or not any(MARK in part for part in _parts(draft))
        )

    def _divide(self, drafts: Sequence[Draft]) -> None:
        """One body for all, but for those that differ so much that another one is needed, or one for each draft."""
        if not drafts:
            return
        body = _Body(drafts)
        large = [draft for draft in drafts if body.size(draft) > _ROOM]
        if not large:
            self.by_draft |= dict.fromkeys(drafts, body)
        elif len(large) < len(drafts):
            self._divide([draft for draft in drafts if draft not in set(large)])
            self._divide(large)
        else:
            by_shape: dict[tuple[object, ...], list[Draft]] = {}
            for draft in drafts:
                by_shape.setdefault(_shape(draft), []).append(draft)
            parts = list(by_shape.values()) if len(by_shape) > 1 else [[draft] for draft in drafts]
            for part in parts:
                self._divide(part)


class _Body:
    """What drafts have in common, and the pieces of each."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        self.html, html = _common([_HTML.split(draft.html) for draft in drafts], "h")
        self.text, text = _common([_TEXT.split(draft.text) for draft in drafts], "t")
        holes = dict.fromkeys(name for part in (self.html, self.text) for name in cut(part)[1::2])
        self._holes = [(f"{MARK}{name}%", name) for name in holes]
        self._own = {d: _Own(one | other) for d, one, other in zip(drafts, html, text, strict=True)}

    def size(self, draft: Draft) -> int:
        """Bytes of the pieces that everybody with this draft has."""
        return self._own[draft].size

    def pieces(self, envelope: Envelope) -> dict[str, str] | None:
        """The substitutions of one person; ``None`` where they are too large."""
        own, values = self._own[envelope.draft], envelope.values
        pieces = own.same.copy()
        size = own.size
        for tag, name in self._holes:
            value = pieces[tag] = valued(name, values)
            size += len(tag) + 4 * len(value) + 6
        for tag, cut_up in own.with_holes:
            value = pieces[tag] = fill(cut_up, values)
            size += len(tag) + 4 * len(value) + 6
        return pieces if size <= MOST_BYTES or _size(pieces) <= MOST_BYTES else None


class _Own:
    """The pieces of one draft: the same for all its people, and those with holes in them."""

    def __init__(self, pieces: Mapping[str, str]) -> None:
        self.same = {tag: piece for tag, piece in pieces.items() if MARK not in piece}
        self.with_holes = [(tag, cut(piece)) for tag, piece in pieces.items() if MARK in piece]
        self.size = _size(self.same) + sum(len(part) for _, parts in self.with_holes for part in parts)


def _parts(draft: Draft) -> tuple[str, str]:
    return draft.html, draft.text


def _shape(draft: Draft) -> tuple[object, ...]:
    """The kinds of tags in their order, and the number of lines."""
    return *(piece.split(maxsplit=1)[0] for piece in _HTML.split(draft.html)[1::2]), draft.text.count("\n")


def _common(bodies: Sequence[Sequence[str]], mark: str) -> tuple[str, list[dict[str, str]]]:
    """The shared body with tags in place of what differs, and each body's pieces by tag."""
    first = bodies[0]
    aligned = _aligned(bodies)
    kept = [n for n in range(len(first)) if all(n in places and b[places[n]] == first[n] for b, places in aligned)]
    shared: list[str] = []
    pieces: list[dict[str, str]] = [{} for _ in bodies]
    tags: dict[tuple[str, ...], str] = {}
    ends = [0] * len(bodies)
    for n in [*kept, None]:
        starts, ends = ends, [len(b) if n is None else places[n] for b, places in aligned]
        between = tuple("".join(b[start:end]) for b, start, end in zip(bodies, starts, ends, strict=True))
        if len(set(between)) == 1:
            shared.append(between[0])
        else:
            tag = tags.setdefault(between, f"{MARK}{mark}{len(tags)}%")
            shared.append(tag)
            for mine, piece in zip(pieces, between, strict=True):
                mine[tag] = piece
        if n is not None:
            shared.append(first[n])
            ends = [end + 1 for end in ends]
    return "".join(shared), pieces


def _aligned(bodies: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], Mapping[int, int]]]:
    """Each body with the places in it that answer to places of the first one."""
    first = bodies[0]
    straight = {n: n for n in range(len(first))}
    by_shape: dict[tuple[str, ...], Mapping[int, int]] = {_kinds(first): straight}
    found = []
    for body in bodies:
        kinds = _kinds(body)
        if kinds not in by_shape:
            blocks = SequenceMatcher(None, first, body, autojunk=False).get_matching_blocks()
            by_shape[kinds] = {b.a + n: b.b + n for b in blocks for n in range(b.size)}
        found.append((body, by_shape[kinds]))
    return found


def _kinds(body: Sequence[str]) -> tuple[str, ...]:
    return str(len(body)), *(piece.split(maxsplit=1)[0] for piece in body[1::2] if piece.strip())


def _size(pieces: Mapping[str, str]) -> int:
    return sum(len(tag) + len(value.encode()) + 6 for tag, value in pieces.items())
