"""The Dagster face, by real runs."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg
import pytest

from shopauto_pipelines.outbox import ledger
from shopauto_pipelines.outbox.assets import outbox_assets, unknown_asset
from shopauto_pipelines.outbox.channels import Outcome
from shopauto_pipelines.outbox.channels.inbox import LocalInbox
from shopauto_pipelines.platform import postgres
from shopauto_pipelines.platform.dagster.resources import LakeResource, SettingsResource
from shopauto_pipelines.platform.dagster.runs import range_tags
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines_tests.outbox.conftest import DAY
from shopauto_pipelines_tests.outbox.shop import campaign, fill, write_shop

EARLIER = DAY - timedelta(days=1)


@pytest.fixture
def home(tmp_path, monkeypatch, engine):
    """A home of its own, with the session's database."""
    monkeypatch.setenv("SHOPAUTO_HOME", str(tmp_path))
    monkeypatch.setattr("shopauto_pipelines.outbox.assets.engine", lambda _: engine)
    assert postgres.SCHEMA == "shopauto"
    return tmp_path


def _materialise(instance: dg.DagsterInstance, **how) -> dict[str, dict]:
    """Run the asset; the metadata of each partition."""
    settings = SettingsResource()
    result = dg.materialize(
        outbox_assets([campaign()]),
        instance=instance,
        resources={"settings": settings, "lake": LakeResource(settings=settings)},
        **how,
    )
    assert result.success
    found = result.asset_materializations_for_node("outbox__welcome")
    return {event.partition: {name: value.value for name, value in event.metadata.items()} for event in found}


def _records(table) -> list[dict]:
    """Rows of a table in the metadata."""
    return [dict(record.data) for record in table.records]


def test_the_newest_day_is_sent_and_the_metadata_says_what_happened(home, monkeypatch):
    monkeypatch.setenv("SHOPAUTO_MESSAGE_PRICE", "0.1")
    write_shop(Lake(home / "lake", 1), people=4, refused=2)
    with dg.DagsterInstance.ephemeral() as instance:
        metadata = _materialise(instance, partition_key=str(DAY))[str(DAY)]
    assert (metadata["sent"], metadata["sent_by_this_run"], metadata["dagster/row_count"]) == (4, 4, 4)
    assert metadata["window"].startswith("open")
    assert _records(metadata["not_sent_by_reason"]) == [{"state": "refused", "reason": "no_consent", "people": 2}]
    assert metadata["messages_per_second"] > 0
    assert metadata["cost_eur"] == 0.4
    assert len(list((home / "inbox" / "messages").iterdir())) == 4


def test_the_metadata_says_that_everybody_was_sent_theirs_only_where_they_were(home):
    lake = Lake(home / "lake", 1)
    write_shop(lake, people=2)
    with dg.DagsterInstance.ephemeral() as instance:
        closed = _materialise(instance, partition_key=str(DAY), tags={"dagster/backfill": "b1"})[str(DAY)]
        sent = _materialise(instance, partition_key=str(DAY))[str(DAY)]
    assert closed["not_sent_by_reason"].startswith("Nobody was refused, and not everybody")
    assert sent["not_sent_by_reason"] == "Everybody was sent theirs."


def test_a_range_in_one_run_sends_only_the_newest_day(home, engine):
    lake = Lake(home / "lake", 1)
    write_shop(lake, people=2, day=EARLIER)
    write_shop(lake, people=2)
    with dg.DagsterInstance.ephemeral() as instance:
        metadata = _materialise(instance, tags=range_tags(EARLIER, DAY))
    assert metadata[str(EARLIER)]["window"].startswith("closed")
    assert [metadata[str(day)]["sent"] for day in (EARLIER, DAY)] == [0, 2]
    with engine.connect() as connection:
        assert ledger.counts(connection, "welcome", EARLIER) == {}


def test_a_backfill_sends_nothing_even_for_the_newest_day(home):
    write_shop(Lake(home / "lake", 1), people=2)
    with dg.DagsterInstance.ephemeral() as instance:
        metadata = _materialise(instance, partition_key=str(DAY), tags={"dagster/backfill": "b1"})[str(DAY)]
    assert metadata["window"] == "closed: a backfill never sends"
    assert metadata["sent"] == 0


def test_a_day_that_has_passed_sends_nothing_when_it_is_run_again(home):
    lake = Lake(home / "lake", 1)
    write_shop(lake, people=2)
    from shopauto_pipelines.sources import tables as raw

    fill(lake, raw.ORDERS, DAY + timedelta(days=1), [])
    with dg.DagsterInstance.ephemeral() as instance:
        assert _materialise(instance, partition_key=str(DAY))[str(DAY)]["sent"] == 0


def test_the_asset_says_that_it_sends_and_nothing_starts_it_by_itself():
    (asset,) = outbox_assets([campaign()])
    (spec,) = asset.specs
    assert spec.automation_condition is None
    assert spec.tags["shopauto/side_effect"] == "sends_messages"
    assert spec.description.startswith("Sends the messages")
    assert {dep.asset_key.to_user_string() for dep in spec.deps} >= {"campaigns/welcome/audience", "profiles/customers"}
    assert Settings(_env_file=None).live is False


def _failing(monkeypatch, outcome: Outcome) -> None:
    """A channel that gives every message this outcome."""

    class Failing(LocalInbox):
        def send(self, batch):
            return [outcome for _ in batch]

    monkeypatch.setattr("shopauto_pipelines.outbox.dispatch.channel_for", Failing)


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (
            Outcome("deferred", "SendGrid answered 401: check the API key"),
            ("check the API key", "12 not yet", "run this again"),
        ),
        (Outcome("unknown", "no answer: ReadTimeout"), ("12 messages: unknown, no answer", "shopauto outbox resolve")),
        (
            Outcome("failed", "SendGrid answered 400: from.email"),
            ("12 messages: failed", "from.email", "shopauto outbox retry"),
        ),
    ],
)
def test_a_batch_that_was_not_accepted_is_a_failed_run_that_says_what_to_do(home, monkeypatch, outcome, says):
    write_shop(Lake(home / "lake", 1), people=12)
    _failing(monkeypatch, outcome)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(dg.Failure) as failed:
        _materialise(instance, partition_key=str(DAY))
    for words in says:
        assert words in failed.value.description


def test_what_is_unknown_is_listed_for_an_operator(home, monkeypatch):
    write_shop(Lake(home / "lake", 1), people=12)
    _failing(monkeypatch, Outcome("unknown", "no answer: ReadTimeout"))
    settings = SettingsResource()
    resources = {"settings": settings, "lake": LakeResource(settings=settings)}
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            dg.materialize(
                outbox_assets([campaign()]),
                instance=instance,
                resources=resources,
                partition_key=str(DAY),
                raise_on_error=False,
            )
        asset = unknown_asset([campaign()])
        result = dg.materialize([asset], instance=instance, resources=resources, partition_key=str(DAY))
    (event,) = result.asset_materializations_for_node("outbox__unknown")
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert metadata["unknown"] == 12
    assert _records(metadata["by_campaign"]) == [{"campaign": "welcome", "as_of": str(DAY), "messages": 12}]
    listed = _records(metadata["the_oldest"])
    assert [row["id"] for row in listed] == list(range(1, 13))
    assert {row["reason"] for row in listed} == {"no answer: ReadTimeout"}
    assert "example.com" not in str(metadata)
