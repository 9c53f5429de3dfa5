"""Messages that no channel should be bothered with: what is wrong with each, in words without private data.

Every channel asks here first, so a message that cannot be sent is refused for the same reason everywhere, and the others
of its batch go. What only one provider minds stands with that channel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from shopauto_pipelines.outbox.channels import Envelope, Outcome

#: Most bytes of a message's bodies. The sum of a mail's parts is held to 10 MB by many receivers; ours carry no files.
MOST_BYTES = 10_000_000

#: Most characters of an SMS: ten segments, and what the providers take.
MOST_SMS_CHARACTERS = 1600

#: How often a template may print one value before a message's size is counted exactly.
_MOST_USES = 100

#: What can stand in a header without quoting (RFC 5322 dot-atom), and a domain of at least two labels.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?=.{{6,254}}$)(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_LABEL}")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


def sift(batch: Sequence[Envelope], *carried: str) -> tuple[list[Envelope], dict[int, Outcome]]:
    """The messages a channel that carries ``carried`` (email, sms) can be given, and the outcome of each other, by number."""
    refused = {e.message_id: Outcome("failed", why) for e in batch if (why := refusal(e, carried))}
    return [envelope for envelope in batch if envelope.message_id not in refused], refused


def refusal(envelope: Envelope, carried: Collection[str] = ("email", "sms")) -> str | None:
    """Why the message cannot be sent by anybody; ``None`` where nothing speaks against it."""
    if envelope.channel not in carried:
        return no_way(envelope.channel)
    if not (_EMAIL if envelope.channel == "email" else _E164).fullmatch(envelope.to):
        return "the address is not valid"
    draft, words = envelope.draft, "".join(envelope.values.values())
    try:
        f"{envelope.to_name}{words}".encode()
    except UnicodeEncodeError:
        return "a name or a value holds half a character"
    if not draft.text.strip():
        return "the message is empty"
    if envelope.channel == "sms" and len(envelope.text) > MOST_SMS_CHARACTERS:
        return f"the text has {len(envelope.text):,} characters, an SMS at most {MOST_SMS_CHARACTERS:,}"
    if len(draft.html) + len(draft.text) + _MOST_USES * len(words) > MOST_BYTES // 4:
        size = len(envelope.html.encode()) + len(envelope.text.encode())  # written out only where it may matter
        if size > MOST_BYTES:
            return f"the message has {size:,} bytes, more than {MOST_BYTES:,}"
    return None


def no_way(kind: str) -> str:
    """Why a message of this kind cannot be sent where nothing carries it."""
    return f"no way to send {kind} is set up"
