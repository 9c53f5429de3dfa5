"""The local inbox, the default channel: every message is an ``.eml`` file under ``<home>/inbox/messages``.

The file's name is the message's reference, and a file appears whole or not at all, so the inbox itself says whether a
message was delivered. Nothing leaves the machine. The page that shows the files is ``outbox.inbox_page``.
"""

from __future__ import annotations

import binascii
import json
import os
import re
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from email.utils import format_datetime, formataddr
from pathlib import Path

from shopauto_pipelines.outbox.channels import Envelope, Outcome
from shopauto_pipelines.platform.settings import Settings

#: What can stand in a header without quoting, on both sides of the @.
_ADDRESS = re.compile(r"""[^\s()<>\[\]:;,@\\"\x00-\x20\x7f-\U0010ffff]+@[\w.-]+""", re.ASCII)

_LONGEST_NAME = 100
_LONGEST_WORD = 300


class LocalInbox:
    """Delivers into a folder."""

    name = "inbox"
    batch_size = 1000

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = settings.inbox_path / "messages"
        self._staging = settings.inbox_path / "staging"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._staging.mkdir(parents=True, exist_ok=True)

    def send(self, batch: Sequence[Envelope]) -> list[Outcome]:
        """Write one file per message; a message that is there already stays as it is."""
        return [self._deliver(envelope) for envelope in batch]

    def recall(self, reference: str) -> Outcome:
        """Delivered where the file is there; surely not where it is not."""
        if message_path(self._settings, reference).exists():
            return Outcome("sent", provider_id=reference)
        return Outcome("deferred", "the dispatcher died before it delivered")

    def close(self) -> None:
        """Nothing to let go of."""

    def _deliver(self, envelope: Envelope) -> Outcome:
        try:
            content = compose(envelope, self._settings)
        except ValueError:
            return Outcome("failed", "the address or a header is not valid")
        staged = self._staging / uuid.uuid4().hex
        try:
            staged.write_bytes(content)
            os.link(staged, message_path(self._settings, envelope.reference))
        except FileExistsError:
            pass  # delivered before, by this process or another one
        finally:
            staged.unlink(missing_ok=True)
        return Outcome("sent", provider_id=envelope.reference)


def message_path(settings: Settings, reference: str) -> Path:
    """File of a message, whether or not it exists; raises ``ValueError`` for what is no reference."""
    if not re.fullmatch("[0-9a-f]{32}", reference):
        raise ValueError("not a message reference")
    return settings.inbox_path / "messages" / f"{reference}.eml"


def compose(envelope: Envelope, settings: Settings) -> bytes:
    """The message as RFC 5322 text: the same envelope gives the same bytes. Raises ``ValueError`` for a bad address.

    An SMS is text only; its number stands as ``<number>@sms.invalid``. Written by hand because the standard library's
    ``EmailMessage`` takes 5 ms a message, this 0.1 ms; the tests read it back with the standard library.
    """
    address = envelope.to if envelope.channel == "email" else f"{envelope.to}@sms.invalid"
    if not _ADDRESS.fullmatch(address):
        raise ValueError("not an address")
    sender = str(settings.from_email)
    headers = {
        "From": _mailbox(settings.from_name or settings.shop_name, sender),
        "To": _mailbox(envelope.to_name, address),
        "Subject": _unstructured(envelope.subject),
        "Date": format_datetime(envelope.date),
        "Message-ID": f"<{envelope.reference}@{sender.rpartition('@')[2]}>",
        **list_headers(envelope),
        "X-ShopAuto-Channel": envelope.channel,
        **{
            f"X-ShopAuto-{name}": _unstructured(value)
            for name, value in zip(("Campaign", "Step", "Customer", "Occasion"), envelope.key, strict=True)
        },
        "X-ShopAuto-Explanation": _explanation(envelope),
        "Content-Language": envelope.language,
        "MIME-Version": "1.0",
    }
    text = _part("plain", envelope.text)
    if envelope.channel != "email":
        return _lines(headers) + text
    mark = f"=_{envelope.reference}"
    headers["Content-Type"] = f'multipart/alternative; boundary="{mark}"'
    parts = (f"--{mark}\r\n".encode() + part + b"\r\n" for part in (text, _part("html", envelope.html)))
    return _lines(headers) + b"\r\n" + b"".join(parts) + f"--{mark}--\r\n".encode()


def _lines(headers: Mapping[str, str]) -> bytes:
    """Header lines, folded before a space where they are long: taking the line ends out gives the text back."""
    done = []
    for name, value in headers.items():
        line = f"{name}:"
        for word in value.split(" "):
            if len(line) + len(word) > 77 and word and line.strip():
                done.append(line)
                line = ""
            line += f" {word}"
        done.append(line)
    return "\r\n".join([*done, ""]).encode("ascii")


def _part(kind: str, content: str) -> bytes:
    lines = content.replace("\r\n", "\n").replace("\r", "\n").encode()
    encoded = binascii.b2a_qp(lines, istext=True).replace(b"\n", b"\r\n")
    return (
        f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n".encode()
        + encoded
    )


def _mailbox(name: str, address: str) -> str:
    plain = one_line(name)[:_LONGEST_NAME]
    if not plain:
        return address
    if _needs_encoding(plain):
        return f"{_encoded(plain)} <{address}>"
    return formataddr((plain, address))


def _unstructured(text: str) -> str:
    plain = one_line(text)
    return _encoded(plain) if _needs_encoding(plain) else plain


def _needs_encoding(text: str) -> bool:
    """Not ASCII, looks encoded already, or holds a word longer than a header's line may be."""
    return not text.isascii() or "=?" in text or any(len(word) > _LONGEST_WORD for word in text.split(" "))


def _encoded(text: str) -> str:
    """RFC 2047 words, each of whole characters and at most 75 long."""
    words, held = [], b""
    for character in text:
        more = character.encode(errors="replace")
        if len(held) + len(more) > 42:
            words.append(held)
            held = b""
        held += more
    return " ".join(f"=?utf-8?b?{b64encode(word).decode()}?=" for word in [*words, held])


def _explanation(envelope: Envelope) -> str:
    """ASCII JSON; ``=?`` would be read as an encoded word."""
    return json.dumps(dict(envelope.explanation), sort_keys=True).replace("=?", "\\u003d?")


def list_headers(envelope: Envelope) -> dict[str, str]:
    """RFC 8058: the headers that give a mail program its unsubscribe button."""
    return {
        "List-Unsubscribe": f"<{envelope.unsubscribe_url}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }


def one_line(text: str) -> str:
    """Text fit for a header: control characters and runs of space become one space."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text).split())
