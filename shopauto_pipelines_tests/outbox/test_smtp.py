"""SMTP: encryption, login, and every place in a transaction where it can end."""

from __future__ import annotations

import random
import socket
import subprocess
import threading
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from shopauto_pipelines.outbox.channels.smtp import Smtp
from shopauto_pipelines.outbox.dispatch import dispatch
from shopauto_pipelines.outbox.schema import messages
from shopauto_pipelines.platform.clock import FixedClock
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import DAY, envelope
from shopauto_pipelines_tests.outbox.far_sides import Relay, login, tls
from shopauto_pipelines_tests.outbox.shop import campaign, write_shop

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


@pytest.fixture
def relay():
    made = []

    def make(**options) -> Relay:
        made.append(Relay(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def channel(tmp_path):
    def make(relay: Relay | int, **more) -> Smtp:
        port = relay if isinstance(relay, int) else relay.port
        usual = {"home": tmp_path, "smtp_host": "localhost", "smtp_port": port, "smtp_security": "none"}
        return Smtp(Settings(_env_file=None, **(usual | more)), timeout=2.0, sleep=lambda _: None)

    return make


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself, with its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    file = folder / "both.pem"
    file.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return file


def states(outcomes) -> list[str]:
    return [outcome.state for outcome in outcomes]


def test_a_batch_is_one_connection(relay, channel):
    far = relay()
    smtp = channel(far)
    assert states(smtp.send([envelope(n) for n in range(1, 51)])) == ["sent"] * 50
    assert (far.greeted, len(far.accepted)) == (1, 50)
    smtp.send([envelope(51)])
    assert far.greeted == 2


def test_a_sent_message_is_known_by_its_message_id(relay, channel):
    far = relay()
    (outcome,) = channel(far, from_email="hello@shop.example.org").send([envelope(1)])
    assert far.accepted[0].headers["Message-ID"] == f"<{outcome.provider_id}@shop.example.org>"


@pytest.mark.parametrize(("live", "date"), [(True, datetime(2026, 1, 4, 19, 10)), (False, datetime(2026, 1, 4))])
def test_a_mail_is_dated_when_it_leaves_and_without_live_mode_by_its_day(
    engine, lake, tmp_path, channel, relay, live, date
):
    write_shop(lake, 1)
    settings, far = Settings(home=tmp_path, _env_file=None).model_copy(update={"live": live}), relay()
    evening = FixedClock(datetime(2026, 1, 4, 20, 10, tzinfo=ZoneInfo("Europe/Berlin")))
    dispatch(engine, lake, settings, campaign(), DAY, clock=evening, channel=channel(far))
    assert parsedate_to_datetime(far.accepted[0].headers["Date"]) == date.replace(tzinfo=UTC)


@pytest.mark.parametrize("user", [None, "shop"])
def test_the_connection_is_encrypted_before_anything_is_said(relay, channel, certificate, monkeypatch, user):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure = {"tls_context": tls(certificate), "require_starttls": True}
    far = relay(**secure, **(login("shop", "secret") if user else {}))
    more = {"smtp_user": user, "smtp_password": "secret"} if user else {}
    assert states(channel(far, smtp_security="starttls", **more).send([envelope(1)])) == ["sent"]


def test_a_connection_can_be_encrypted_from_the_start(channel, relay, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    far = relay(implicit_tls=tls(certificate))
    assert states(channel(far, smtp_security="ssl").send([envelope(1)])) == ["sent"]


def test_nothing_leaves_over_a_connection_that_is_not_safe(relay, channel, certificate):
    plain, unknown = relay(), relay(tls_context=tls(certificate))
    for far, why in ((plain, "offers no STARTTLS"), (unknown, "no safe connection")):
        (outcome,) = channel(far, smtp_security="starttls").send([envelope(1)])
        assert outcome.state == "deferred"
        assert why in outcome.reason
        assert far.calls == 0


def test_a_wrong_password_puts_everything_back_and_is_not_shown(relay, channel):
    far = relay(**login("shop", "secret"))
    outcomes = channel(far, smtp_user="shop", smtp_password="wrong-one").send([envelope(1), envelope(2)])
    assert states(outcomes) == ["deferred", "deferred"]
    assert "535" in outcomes[0].reason
    assert "wrong-one" not in outcomes[0].reason


def test_a_password_that_cannot_be_told_to_a_relay_puts_everything_back(relay, channel):
    far = relay(**login("shop", "secret"))
    outcomes = channel(far, smtp_user="shop", smtp_password="geheimnisträger").send([envelope(1), envelope(2)])
    assert states(outcomes) == ["deferred", "deferred"]
    assert "ASCII" in outcomes[0].reason


def test_a_relay_that_wants_a_login_puts_everything_back(relay, channel):
    (outcome,) = channel(relay(**login("shop", "secret"))).send([envelope(1)])
    assert outcome.state == "deferred"
    assert "530" in outcome.reason


def test_a_recipient_who_is_refused_for_now_is_put_back_alone(relay, channel):
    far = relay()
    outcomes = channel(far).send([envelope(1), envelope(2, to="full@example.com"), envelope(3)])
    assert states(outcomes) == ["sent", "deferred", "sent"]
    assert outcomes[1].reason == "the relay answered 452 4.2.2"


def test_a_refusal_says_its_code_and_no_address(relay, channel):
    (outcome,) = channel(relay()).send([envelope(1, to="nobody@example.com")])
    assert (outcome.state, outcome.reason) == ("failed", "the relay answered 550 5.1.1")


def test_content_that_is_refused_fails_alone_and_content_that_is_refused_for_now_is_put_back(relay, channel):
    far = relay()
    outcomes = channel(far).send([envelope(1), envelope(2, text="spam"), envelope(3)])
    assert states(outcomes) == ["sent", "failed", "sent"]
    far.behave(None, "error after")
    assert states(channel(far).send([envelope(4), envelope(5), envelope(6)])) == ["sent", "deferred", "sent"]


def test_a_message_larger_than_the_relay_takes_fails_alone(relay, channel):
    far = relay(data_size_limit=20_000)
    outcomes = channel(far).send([envelope(1), envelope(2, text="word " * 10_000), envelope(3)])
    assert states(outcomes) == ["sent", "failed", "sent"]
    assert "552" in outcomes[1].reason


def test_a_connection_lost_before_the_message_is_opened_again_and_the_message_sent_once(relay, channel):
    far = relay()
    far.behave(None, "drop before", None)
    assert states(channel(far).send([envelope(1), envelope(2), envelope(3)])) == ["sent"] * 3
    assert [seen.to for seen in far.accepted] == [envelope(n).to for n in (1, 2, 3)]
    assert far.greeted == 2


def test_after_an_unclear_message_the_others_go_over_a_new_connection(relay, channel):
    far = relay()
    far.behave(None, "drop after", None)
    assert states(channel(far).send([envelope(1), envelope(2), envelope(3)])) == ["sent", "unknown", "sent"]
    assert len(far.accepted) == 3


def test_a_relay_that_keeps_hanging_up_puts_back_what_it_did_not_take(relay, channel):
    far = relay()
    far.behave(None, *["drop before"] * 9)
    assert states(channel(far).send([envelope(n) for n in range(1, 5)])) == ["sent", "deferred", "deferred", "deferred"]
    assert far.calls == 4, "one message, then three tries of the next: the others are not tried"


def _talk(script) -> int:
    """A relay of bare sockets, for what no library lets one do; ``script(connection, number)`` serves one connection."""
    server = socket.create_server(("127.0.0.1", 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)

    def serve() -> None:
        for number in range(1, 6):
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                script(connection, lines, number)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


def _dialogue(connection, lines) -> None:
    """The dialogue up to the content."""
    connection.sendall(b"220 relay\r\n")
    for line in lines:
        if line.upper().startswith(b"DATA"):
            connection.sendall(b"354 go on\r\n")
            return
        connection.sendall(b"250 ok\r\n")


def test_a_connection_lost_in_the_middle_of_the_content_is_opened_again_and_the_message_sent_once(channel):
    taken = []

    def script(connection, lines, number) -> None:
        _dialogue(connection, lines)
        if number == 1:  # read a little, then reset: the final dot has not left
            lines.read(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            return
        taken.append(sum(1 for _ in iter(lines.readline, b".\r\n")))
        connection.sendall(b"250 taken\r\n")
        lines.readline()
        connection.sendall(b"221 bye\r\n")

    (outcome,) = channel(_talk(script)).send([envelope(1, text="word " * 1_500_000)])
    assert outcome.state == "sent"
    assert len(taken) == 1


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 200 OK\r\n", b"\xff\xfe\r\n", b"999 what\r\n"])
def test_a_relay_that_talks_nonsense_is_one_that_is_not_there(channel, nonsense):
    def script(connection, lines, number) -> None:
        connection.sendall(b"220 relay\r\n")
        lines.readline()
        connection.sendall(nonsense)
        lines.read(1)

    (outcome,) = channel(_talk(script)).send([envelope(1)])
    assert outcome.state == "deferred"


@pytest.mark.parametrize("seed", range(2))
def test_dispatches_over_a_failing_relay_reach_everybody_once_and_leave_only_what_is_unclear(
    engine, lake, tmp_path, clock, channel, relay, seed
):
    write_shop(lake, 40)
    far, chance = relay(), random.Random(seed)
    happenings = [None, None, "rate limit", "drop before", "drop after", "garbage after", "error after", "refuse all"]
    smtp = channel(far)
    smtp.batch_size = 7
    for _ in range(30):
        far.behave(*chance.choices(happenings, k=20))
        dispatch(engine, lake, Settings(home=tmp_path, _env_file=None), campaign(), DAY, clock=clock, channel=smtp)
        with engine.connect() as connection:
            rows = connection.execute(sa.select(messages.c.customer_id, messages.c.state)).all()
        if all(row.state in ("sent", "unknown") for row in rows):
            break
    accepted = Counter(seen.to.partition("@")[0] for seen in far.accepted)
    assert len(rows) == 40
    assert set(accepted.values()) == {1}, "nobody gets it twice"
    assert {row.state for row in rows} <= {"sent", "unknown"}, "nobody is lost"
    assert all(accepted[row.customer_id] for row in rows if row.state == "sent")
