"""Folding: few bodies for many people, and everybody's own message comes out of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sendgrid.helpers import mail

from shopauto_pipelines.campaigns.drafts import MARK, Draft, cut
from shopauto_pipelines.outbox.channels.mime import list_headers
from shopauto_pipelines.outbox.channels.sendgrid import CORRELATION, payload
from shopauto_pipelines.outbox.channels.shared_content import MOST_BYTES, Folder, fold
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import envelope

LINK = "%sa:links.unsubscribe%"


def _draft(html: str, text: str = "Hello\n") -> Draft:
    return Draft("Hi", html, text, frozenset(name for part in (html, text) for name in cut(part)[1::2]))


def _seen(folded) -> dict[int, tuple[str, str]]:
    """What each person reads, by message."""
    seen = {}
    for part in folded:
        for sent, pieces in zip(part.envelopes, part.pieces, strict=True):
            assert sum(len(k) + len(v.encode()) for k, v in pieces.items()) <= MOST_BYTES
            html, text = part.html, part.text
            for tag, value in pieces.items():
                html, text = html.replace(tag, value), text.replace(tag, value)
            assert sent.message_id not in seen
            seen[sent.message_id] = (html, text)
    return seen


_PIECE = st.sampled_from(
    [
        "<p>",
        "</p>",
        "<b>x</b>",
        "<a href='y'>",
        "same",
        "other",
        "ž" * 3_000,
        LINK,
        "%sa:person.first_name;%",
        "\n",
        MARK,
    ]
)
_DRAFTS = st.lists(st.lists(_PIECE, max_size=12).map("".join), min_size=1, max_size=6)


@hypothesis_settings(max_examples=300, deadline=None)
@given(htmls=_DRAFTS, texts=_DRAFTS, names=st.lists(st.text("aé<&", min_size=1, max_size=9), min_size=8, max_size=8))
def test_drafts_of_any_shape_fold_and_unfold(htmls, texts, names):
    drafts = [_draft(f"<html>{html}</html>", f"{text}\n{LINK}") for html in htmls for text in texts]
    batch = [
        envelope(n, draft=draft, values={"person.first_name": names[n % 8], "links.unsubscribe": f"https://x.test/{n}"})
        for n, draft in enumerate(drafts)
    ]
    folder = Folder()
    for part in (batch[: len(batch) // 2], batch, batch[::-1]):
        assert _seen(folder.fold(part)) == {e.message_id: (e.html, e.text) for e in part}


def test_drafts_that_differ_in_whole_paragraphs_are_one_body():
    with_one = _draft(f"<div><h1>Hello</h1><p>For you</p><p>{LINK}</p></div>")
    without = _draft(f"<div><h1>Hello</h1><p>{LINK}</p></div>")
    batch = [envelope(n, draft=(with_one, without)[n % 2], values={"links.unsubscribe": f"u{n}"}) for n in range(10)]
    (folded,) = fold(batch)
    assert LINK in folded.html
    assert _seen([folded]) == {e.message_id: (e.html, e.text) for e in batch}


def test_drafts_that_differ_too_much_for_one_body_share_as_few_as_they_can():
    large = "".join(f"<p>{n} {'x' * 80}</p>" for n in range(150))
    drafts = [
        _draft(f"<h1>Hello</h1>{large}{LINK}"),
        _draft(f"<h1>Bye</h1>{large}{LINK}"),
        _draft(f"<h1>Short</h1>{LINK}"),
    ]
    batch = [envelope(n, draft=drafts[n % 3], values={"links.unsubscribe": f"u{n}"}) for n in range(30)]
    folded = fold(batch)
    assert len(folded) == 2
    assert _seen(folded) == {e.message_id: (e.html, e.text) for e in batch}


def test_a_person_whose_values_are_too_large_has_a_call_of_their_own():
    draft = _draft("<p>%sa:person.note;%</p>")
    batch = [envelope(n, draft=draft, values={"person.note": "ž" * (6_000 if n == 2 else 5)}) for n in range(4)]
    assert [len(part.envelopes) for part in fold(batch)] == [3, 1]
    assert _seen(fold(batch)) == {e.message_id: (e.html, e.text) for e in batch}


def test_people_are_written_into_a_call_as_the_package_writes_them():
    batch = [envelope(n, to_name=name) for n, name in enumerate(["Ana Ž", "", "  Ana\r\nBcc: x  ", 'O"Neill, A'])]
    (folded,) = fold(batch)
    settings = Settings(_env_file=None)
    message = mail.Mail(from_email=mail.From(str(settings.from_email), settings.shop_name), subject=batch[0].subject)
    message.content = [mail.Content("text/plain", folded.text), mail.Content("text/html", folded.html)]
    message.category = mail.Category("welcome")
    names = ["Ana Ž", None, "Ana Bcc: x", 'O"Neill, A']
    for place, (sent, pieces, name) in enumerate(zip(batch, folded.pieces, names, strict=True)):
        person = mail.Personalization()
        person.add_to(mail.To(sent.to, name))
        person.subject = sent.subject
        for header, value in list_headers(sent).items():
            person.add_header(mail.Header(header, value))
        for tag, value in pieces.items():
            person.add_substitution(mail.Substitution(tag, value))
        person.add_custom_arg(mail.CustomArg(CORRELATION, str(sent.message_id)))
        message.add_personalization(person, index=place)
    assert payload(folded, settings) == message.get()
