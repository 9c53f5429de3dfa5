"""What people chose, and addresses that get nothing: kept as hashes, in any order, for ever."""

from __future__ import annotations

import csv
import io
import itertools
import re
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from shopauto_pipelines.outbox import consents, ledger, links, schema, suppression_lists
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import AT, DAY, reserve, rows

SETTINGS = Settings(secret_key="a key", country="GB", _env_file=None)


def _hash(address: str, channel: str = "email") -> bytes:
    return links.address_hash(SETTINGS.hash_key, channel, address)


def _suppressed(engine: sa.Engine) -> dict[tuple[bytes, str], str]:
    with engine.connect() as connection:
        return {(one.address_hash, one.channel): one.reason for one in consents.suppressed(connection)}


def _import(engine: sa.Engine, text: str, **more) -> suppression_lists.Imported:
    with engine.begin() as connection:
        return suppression_lists.read(connection, io.StringIO(text, newline=""), SETTINGS, at=AT, **more)


def test_choices_are_kept_and_the_latest_of_a_topic_counts(engine):
    hashed = _hash("a@example.com")
    with engine.begin() as connection:
        consents.choose(connection, hashed, "email", "opted_out", source="test", at=AT, topic="offers")
        consents.choose(connection, hashed, "email", "less_often", source="test", at=AT, wording="Fewer e-mails")
        consents.choose(connection, hashed, "email", "opted_in", source="test", at=AT, topic="offers")
        consents.choose(connection, hashed, "sms", "opted_out", source="test", at=AT)
        assert consents.choices(connection, hashed, "email") == {"*": "less_often", "offers": "opted_in"}
        assert connection.execute(sa.select(sa.func.count()).select_from(schema.consents)).scalar_one() == 4


@pytest.mark.parametrize(
    ("suppressed", "choice", "source", "topic", "lifted"),
    [
        ("unsubscribe", "opted_in", "preference_page", "*", True),
        ("unsubscribe", "less_often", "preference_page", "*", True),
        ("unsubscribe", "opted_out", "preference_page", "*", False),
        ("unsubscribe", "opted_in", "preference_page", "offers", False),
        ("unsubscribe", "opted_in", "import", "*", False),
        ("bounce", "opted_in", "preference_page", "*", False),
        ("spam_report", "opted_in", "preference_page", "*", False),
        ("import", "opted_in", "preference_page", "*", False),
    ],
)
def test_only_the_person_lifts_a_suppression_and_only_their_own_unsubscribe(
    engine, suppressed, choice, source, topic, lifted
):
    hashed = _hash("a@example.com")
    with engine.begin() as connection:
        for address in ("a@example.com", "b@example.com"):
            consents.suppress(connection, _hash(address), "email", suppressed, at=AT)
        consents.choose(connection, hashed, "email", choice, source=source, at=AT, topic=topic)
        assert consents.suppression(connection, hashed, "email") == (None if lifted else suppressed)
        assert consents.suppression(connection, _hash("b@example.com"), "email") == suppressed


@pytest.mark.parametrize(
    ("reason", "since", "kept"),
    [
        ("unsubscribe", "opted_out", "unsubscribe"),
        ("unsubscribe", "opted_in", None),
        ("unsubscribe", "less_often", None),
        ("spam_report", "opted_in", "spam_report"),
    ],
)
def test_a_withdrawal_suppresses_unless_the_person_has_come_back_since_but_a_complaint_always_does(
    engine, reason, since, kept
):
    address = (_hash("a@example.com"), "email")
    with engine.begin() as connection:
        consents.choose(connection, *address, "opted_in", source="test", at=AT)  # not since: at the same instant
        consents.choose(connection, *address, since, source="test", at=AT + timedelta(hours=1))
        consents.withdraw(connection, *address, source="test", at=AT, customer_id="c1", reason=reason)
        assert consents.suppression(connection, *address) == kept
        assert consents.choices(connection, *address) == {"*": since}
        assert connection.execute(sa.select(schema.exits.c["customer_id", "event", "at"])).all() == [
            ("c1", "unsubscribed", AT)
        ]


def test_a_withdrawal_by_nobody_known_suppresses_its_address_and_channel_alone(engine):
    hashed = _hash("a@example.com")
    with engine.begin() as connection:
        consents.choose(connection, hashed, "email", "opted_in", source="test", at=AT)
        consents.withdraw(connection, hashed, "email", source="test", at=AT, wording="Stop")
        assert connection.execute(sa.select(schema.exits)).all() == []
        assert connection.execute(sa.select(schema.consents.c["wording", "topic"])).all()[-1] == ("Stop", "*")
    assert _suppressed(engine) == {(hashed, "email"): "unsubscribe"}


_SUPPRESSION = st.builds(
    consents.Suppression,
    st.sampled_from([b"one", b"two"]),
    st.sampled_from(["email", "sms"]),
    st.sampled_from(["unsubscribe", "import", "bounce", "spam_report"]),
    st.integers(0, 3).map(lambda hours: AT + timedelta(hours=hours)),
)


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(_SUPPRESSION, max_size=8), cut=st.integers(0, 8), order=st.randoms())
def test_suppressions_come_to_the_same_in_any_order_and_any_parts(engine, wanted, cut, order):
    found = []
    for parts in ([[one] for one in wanted], [wanted[:cut], wanted[cut:]], [order.sample(wanted, len(wanted))]):
        with engine.connect() as connection:  # rolled back
            new = [consents.suppress_all(connection, part) for part in parts]
            found.append(list(consents.suppressed(connection)))
            connection.rollback()
        assert sum(new) == len(found[-1])
    assert found[0] == found[1] == found[2]
    assert {one[:2] for one in found[0]} == {one[:2] for one in wanted}


def test_a_list_of_another_tool_is_taken_in_any_usual_form(engine):
    emails = (
        'status;Email ;reason;created\n5.1.1; Anna@Example.COM;550 no such user anna@example.com;x\n;"bo@ex.org";;\n'
    )
    assert _import(engine, emails, reason="bounce") == suppression_lists.Imported(new=2)
    assert _import(engine, "phone\n020 7946 0018\n+442079460018\n") == suppression_lists.Imported(new=1, known=1)
    assert _suppressed(engine) == {
        (_hash("anna@example.com"), "email"): "bounce",
        (_hash("bo@ex.org"), "email"): "bounce",
        (_hash("+442079460018", "sms"), "sms"): "import",
    }


def test_of_a_list_of_e_mail_addresses_and_phone_numbers_both_are_suppressed(engine):
    people = ("a@example.com,020 7946 0018", "b@example.com,", ",+442079460019", ",", "c@example.com,7")
    assert _import(engine, "\n".join(["Email,Phone Number", *people])) == suppression_lists.Imported(
        new=5, refused_count=2, refused=[(5, "not an e-mail address"), (6, "not a phone number")]
    )
    assert _suppressed(engine).keys() == {
        *((_hash(f"{name}@example.com"), "email") for name in "abc"),
        *((_hash(f"+44207946001{n}", "sms"), "sms") for n in (8, 9)),
    }


def test_lines_that_are_no_address_are_counted_with_their_number_and_the_others_are_taken(engine):
    done = _import(engine, "email,note\na@example.com,x\nnobody,x\n\n,x\nb@example.com\n")
    assert done == suppression_lists.Imported(
        new=2, refused_count=2, refused=[(3, "not an e-mail address"), (5, "not an e-mail address")]
    )


def test_an_exported_list_is_the_same_after_everything_else_was_erased(engine):
    with engine.begin() as connection:
        for n, reason in enumerate(("unsubscribe", "bounce", "spam_report", "asked by phone")):
            consents.suppress(connection, _hash(f"p{n}@example.com"), "email", reason, at=AT - timedelta(days=n))
    exported = io.StringIO(newline="")
    with engine.begin() as connection:
        assert suppression_lists.write(consents.suppressed(connection), exported) == 4
        connection.execute(sa.text("truncate shopauto.suppressions"))
    assert "example.com" not in exported.getvalue()
    assert _import(engine, exported.getvalue()).new == 4
    again = io.StringIO(newline="")
    with engine.begin() as connection:
        suppression_lists.write(consents.suppressed(connection), again)
    differing = [pair for pair in zip(_rows(exported), _rows(again), strict=True) if pair[0] != pair[1]]
    assert [(a["reason"], b["reason"]) for a, b in differing] == [("asked by phone", "import")]


def _rows(file: io.StringIO) -> list[dict[str, str]]:
    file.seek(0)
    return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("abc,email,,", "not a hash of 64 hexadecimal digits"),
        ("ab" * 32 + ",fax,,", "the channel is not `email` or `sms`"),
        ("ab" * 32 + ",email,,yesterday", "the time is not written like 2026-06-30T08:00:00+00:00"),
    ],
)
def test_a_line_of_hashes_that_is_wrong_is_left_out(engine, line, why):
    done = _import(engine, f"hash,channel,reason,at\n{line}\n")
    assert (done.new, done.refused) == (0, [(2, why)])


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("a.person@example.com,+442079460018\n", 2), ("name,age,shoes\nx,1,y\n", 3)]
)
def test_a_file_without_a_column_of_addresses_is_refused_with_what_it_needs_and_shows_nothing_of_it(
    engine, text, columns
):
    needs = rf"one of them `email`, `phone` or `hash`; columns found: {columns}, none of these"
    with pytest.raises(suppression_lists.SuppressionListError, match=needs) as refused:
        _import(engine, text)
    assert not {"person", "4420", "shoes"} & {*re.findall(r"[a-z]+|4420", str(refused.value))}


def test_a_person_imported_again_under_the_same_address_stays_suppressed(engine):
    key = SETTINGS.hash_key
    _import(engine, "email\nC000000@example.com\n")
    with engine.begin() as connection:
        ledger.plan(connection, rows(2, key=key), run_id=None, at=AT)
        assert [m.key.customer_id for m in reserve(connection).messages] == ["c000001"]
        connection.execute(sa.text("truncate shopauto.messages, shopauto.consents, shopauto.provider_events"))
        again = [row | {"customer_id": f"new{row['customer_id']}", "as_of": DAY} for row in rows(1, key=key)]
        ledger.plan(connection, again, run_id=None, at=AT)
        assert reserve(connection) == ([], 1, None)


def test_no_table_keeps_an_address(engine):
    _import(engine, "email\nsecret.person@example.com\n")
    with engine.begin() as connection:
        ledger.plan(connection, rows(1, key=SETTINGS.hash_key), run_id=None, at=AT)
        reserve(connection)
        kept = itertools.chain.from_iterable(
            connection.execute(table.select()) for table in schema.metadata.sorted_tables
        )
        shown = repr([tuple(row) for row in kept])
    assert "secret.person" not in shown
    assert "@example" not in shown
