"""What an SMS may be: its length as the networks count it, and how its reader ends it."""

from __future__ import annotations

import re

#: Segments that networks and providers put together; more is refused.
MOST_SEGMENTS = 10

#: GSM 03.38: the alphabet of seven bits, and what takes two places in it.
_GSM = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_TWICE = frozenset("^{}\\[~]|€\f")

#: Words that Twilio takes as an opt-out by default, in any language: https://help.twilio.com/articles/223134027.
OPT_OUT_WORDS = ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT")


def segments(text: str) -> int:
    """How many SMS the text is paid as.

    160 characters of the GSM alphabet fit into one, 153 into each of several; a single other character (ă, š, ç, an emoji)
    makes it 70 and 67, counted in UTF-16.
    """
    if all(character in _GSM or character in _GSM_TWICE for character in text):
        length, alone, each = len(text) + sum(character in _GSM_TWICE for character in text), 160, 153
    else:
        length, alone, each = len(text.encode("utf-16-le")) // 2, 70, 67
    return 1 if length <= alone else -(-length // each)


def says_how_to_stop(text: str) -> bool:
    """Whether the text names a word that ends the messages, e.g. STOP."""
    return re.search(rf"\b({'|'.join(OPT_OUT_WORDS)})\b", text) is not None
