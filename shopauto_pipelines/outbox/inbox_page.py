"""The page of the local inbox: list, search, one message with why its reader was chosen.

The files under ``<home>/inbox/messages`` are the truth. ``index.sqlite`` beside them only makes ten thousand of them
quick to list and search; it is brought up to date on each look and can be deleted while nothing is served. Served by
``shopauto inbox``, with the pages behind the messages' links (``preference_page``) beside it.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from email.policy import default as DEFAULT_POLICY
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from shopauto_pipelines.outbox import preference_page, web
from shopauto_pipelines.outbox.channels.inbox import message_path
from shopauto_pipelines.platform.clock import Clock, SystemClock
from shopauto_pipelines.platform.settings import Settings

#: Messages on a page of the list.
PAGE_SIZE = 50

#: A message's HTML: also no frame around it but ours, no form, no picture from the network.
_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
_FOREIGN = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox {_SANDBOX}"

_HEADERS = ("From", "To", "Subject", "Date", "Message-ID", "Content-Language", "List-Unsubscribe")
_ABOUT = ("Channel", "Campaign", "Step", "Occasion", "Customer")


@dataclass(frozen=True)
class Listed:
    """A line of the list."""

    reference: str
    sent_on: str
    to: str
    subject: str
    channel: str
    campaign: str
    step: str
    occasion: str


def app(settings: Settings, clock: Clock | None = None) -> Starlette:
    """The web application: ``/``, ``/messages/<reference>`` (and ``/html``, ``/eml`` below it), ``/u`` and ``/p/<token>``."""
    page = _Page(settings, _Index(settings.inbox_path))
    return Starlette(
        routes=[
            Route("/", page.list),
            Route("/messages/{reference}", page.message),
            Route("/messages/{reference}/html", page.html),
            Route("/messages/{reference}/eml", page.eml),
            *preference_page.routes(settings, clock or SystemClock()),
        ]
    )


class _Page:
    """The routes."""

    def __init__(self, settings: Settings, index: _Index) -> None:
        self._settings, self._index = settings, index

    def list(self, request: Request) -> Response:
        asked = {name: request.query_params.get(name, "").strip()[:200] for name in ("q", "campaign")}
        wanted = request.query_params.get("page", "1")
        number = max(int(wanted), 1) if wanted.isdecimal() and len(wanted) < 10 else 1
        self._index.refresh()
        found, total = self._index.search(asked["q"], asked["campaign"], number)
        pages = max(-(-total // PAGE_SIZE), 1)
        if number > pages:
            number = pages
            found, total = self._index.search(asked["q"], asked["campaign"], number)

        def address(**changed: object) -> str:
            asks = {**asked, "page": number, **changed}
            query = urlencode({name: value for name, value in asks.items() if value not in ("", 1)})
            return f"/?{query}" if query else "/"

        return self._answer(
            "list.html",
            found=found,
            total=total,
            campaigns=self._index.campaigns(),
            number=number,
            pages=pages,
            first=(number - 1) * PAGE_SIZE + 1,
            address=address,
            q=asked["q"],
            campaign=asked["campaign"],
        )

    def message(self, request: Request) -> Response:
        email = self._email(request)
        if email is None:
            return self._missing()
        text = email.get_body(("plain",))
        return self._answer(
            "message.html",
            reference=request.path_params["reference"],
            subject=str(email["Subject"]),
            to=str(email["To"]),
            sender=str(email["From"]),
            date=email["Date"].datetime.strftime("%A, %d %B %Y"),
            about=_about(email),
            sandbox=_SANDBOX,
            why=readable(_explanation(email)),
            headers=[(name, str(email[name])) for name in _HEADERS if email[name]],
            has_html=email.get_body(("html",)) is not None,
            text=text.get_content() if text else "",
        )

    def html(self, request: Request) -> Response:
        email = self._email(request)
        body = email.get_body(("html",)) if email else None
        if body is None:
            return self._missing()
        content = body.get_content()
        head = re.search("<head[^>]*>", content, re.IGNORECASE)
        place = head.end() if head else 0
        # links open beside the page: the frame itself may show nothing but the message
        shown = f'{content[:place]}<base target="_blank">{content[place:]}'
        return HTMLResponse(shown, headers=web.headers(_FOREIGN))

    def eml(self, request: Request) -> Response:
        path = self._path(request)
        if path is None:
            return self._missing()
        return FileResponse(path, media_type="message/rfc822", filename=path.name, headers=web.headers(_FOREIGN))

    def _path(self, request: Request) -> Path | None:
        try:
            path = message_path(self._settings, request.path_params["reference"])
        except ValueError:
            return None
        return path if path.is_file() else None

    def _email(self, request: Request) -> EmailMessage | None:
        path = self._path(request)
        return message_from_bytes(path.read_bytes(), policy=DEFAULT_POLICY) if path else None  # type: ignore[return-value]

    def _answer(self, name: str, status: int = 200, **values: object) -> HTMLResponse:
        return web.page(name, status, shop=self._settings.shop_name, live=self._settings.live, **values)

    def _missing(self) -> HTMLResponse:
        return self._answer("missing.html", 404)


class _Index:
    """What the list shows of each message, in SQLite. Safe for the threads of one server and for several servers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "messages"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "index.sqlite"
        self._seen: int | None = None
        self._lock = threading.Lock()
        with self._open() as db:
            db.execute("pragma journal_mode = wal")
            db.execute(
                "create table if not exists messages (reference text primary key, sent_on text, recipient text,"
                " subject text, channel text, campaign text, step text, occasion text, customer text) without rowid"
            )
            db.execute("create index if not exists newest on messages (sent_on desc, campaign, customer, reference)")

    def refresh(self) -> None:
        """Take in files that are new, forget those that are gone. Costs nothing where the folder has not changed."""
        with self._lock:
            changed = self._folder.stat().st_mtime_ns
            if changed == self._seen:
                return
            there = {path.stem for path in self._folder.iterdir() if path.suffix == ".eml"}
            with self._open() as db:
                known = {row[0] for row in db.execute("select reference from messages")}
                db.executemany("delete from messages where reference = ?", ((name,) for name in known - there))
                db.executemany(
                    "insert or replace into messages values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (self._line(reference) for reference in sorted(there - known)),
                )
            self._seen = changed

    def search(self, text: str, campaign: str, page: int) -> tuple[list[Listed], int]:
        """A page of the messages whose recipient, subject or customer id holds ``text``, and how many there are."""
        like = "%" + text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        where = (
            "from messages where (:campaign = '' or campaign = :campaign) and (:text = '' or customer = :text"
            " or recipient like :like escape '\\' or subject like :like escape '\\')"
        )
        values = {"campaign": campaign, "text": text, "like": like, "size": PAGE_SIZE, "skip": (page - 1) * PAGE_SIZE}
        with self._open() as db:
            (total,) = db.execute(f"select count(*) {where}", values).fetchone()
            found = db.execute(
                f"select reference, sent_on, recipient, subject, channel, campaign, step, occasion {where}"
                " order by sent_on desc, campaign, customer, reference limit :size offset :skip",
                values,
            ).fetchall()
        return [Listed(*row) for row in found], total

    def campaigns(self) -> dict[str, int]:
        """Messages by campaign."""
        with self._open() as db:
            return dict(db.execute("select campaign, count(*) from messages group by campaign order by campaign"))

    def _line(self, reference: str) -> tuple[str, ...]:
        with (self._folder / f"{reference}.eml").open("rb") as file:
            head = BytesHeaderParser().parse(file)
        sent_on = parsedate_to_datetime(head["Date"]).date().isoformat()
        ours = (_decoded(head[f"X-ShopAuto-{name}"]) for name in _ABOUT)
        return (reference, sent_on, _decoded(head["To"]), _decoded(head["Subject"]), *ours)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self._file, timeout=30)
        try:
            with db:
                yield db
        finally:
            db.close()


def readable(value: object) -> object:
    """An explanation as the page shows it: keys in words, lists of plain values in one line, nothing left out."""
    if isinstance(value, Mapping):
        return {str(key).replace("_", " "): readable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        if any(isinstance(inner, Mapping | list) for inner in value):
            return {str(n): readable(inner) for n, inner in enumerate(value, start=1)}
        return ", ".join(str(readable(inner)) for inner in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not known" if value is None else str(value)


def _about(head: Message) -> dict[str, str]:
    return {name: str(head[f"X-ShopAuto-{name}"]) for name in _ABOUT}


def _decoded(value: str) -> str:
    """A header's text. The quick parser leaves it folded and encoded; the thorough one takes 1 ms a message."""
    line = value.replace("\r", "").replace("\n", "")
    return str(make_header(decode_header(line))) if "=?" in line else line


def _explanation(email: EmailMessage) -> dict[str, Any]:
    try:
        found = json.loads(str(email["X-ShopAuto-Explanation"]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
