"""Carts that are left, from the moment their step is due to the provider's mail-send call, with everything real in between.

    python benchmarks/realtime.py [--quick] [--carts N …] [--standard]

A shop of synthetic customers in the lake; the embedded PostgreSQL; Dagster's daemon and its code server as processes of their
own, with the ``dagster.yaml`` of the project; a stand-in for SendGrid on loopback that notes when each message came. Then, for
each number of carts: the events of so many carts are stored as the collector stores them, back-dated so that they are due
evenly over one minute that lies just ahead. Seconds are counted from the moment a cart's first step is due (its last event
and the shop's ``cart_abandoned_minutes``) to the moment the stand-in had read the request with its message. Not in it:
starting the processes and a first cart, which warms them up.

``--standard`` measures the same with Dagster's own launcher, queue and loop. Then the collector and the on-site offer are
measured (``collector_load.py``, ``offer_load.py``). Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import say

from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings

sys.path.insert(0, str(PROJECT_ROOT))
sys.path.insert(0, str(PROJECT_ROOT / "benchmarks"))
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, StandIn, start

if TYPE_CHECKING:
    import sqlalchemy as sa


#: Seconds over which the carts of a round are due.
ROUND = 60.0

#: Customers of the shop; one in ten of them is held out of the campaign.
_CUSTOMERS = 30_000

CONTRACTS = PROJECT_ROOT.parent / "shared" / "contracts"


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--carts", type=int, nargs="+", default=[10, 1_000, 10_000], help="carts of each round")
    parser.add_argument("--standard", action="store_true", help="Dagster's own launcher and queue")
    parser.add_argument("--quick", action="store_true", help="10 and 100 carts, in 20 seconds each")
    parser.add_argument("--only-carts", action="store_true", help="neither the collector nor the offer")
    options = parser.parse_args()
    rounds, seconds = ([10, 100], 20.0) if options.quick else (options.carts, ROUND)

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="shopauto-benchmark-", ignore_cleanup_errors=True) as folder:
        for count, measured in _carts(Path(folder), rounds, seconds, standard=options.standard):
            figures |= {f"{name}_at_{count}": value for name, value in measured.items()}
    if not options.only_carts:
        import collector_load
        import offer_load

        say("the collector")
        figures |= collector_load.measure(options.quick)
        say("the on-site offer")
        figures |= offer_load.measure(options.quick)
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value:,}")
    print(json.dumps(figures))


def _carts(
    folder: Path, rounds: Sequence[int], seconds: float, *, standard: bool
) -> Iterator[tuple[int, dict[str, float]]]:
    """Figures of each round."""
    folder.chmod(0o755)  # as root the embedded server runs as another user
    with start(CONTRACTS if CONTRACTS.is_dir() else None, bodies=False) as stand_in:
        values = _settings(folder, stand_in.url)
        os.environ |= {f"SHOPAUTO_{name.upper()}": str(value) for name, value in values.items()}
        settings = Settings(_env_file=None)
        say(f"a shop of {_CUSTOMERS:,} customers")
        target = _make_shop(settings, _CUSTOMERS)
        with _dagster(folder, standard=standard):
            say("a first cart")
            _leave_carts(target, settings, 0, 1, 0.0)
            _await(stand_in, 1, 120)
            first = 1
            for count in rounds:
                say(f"{count:,} carts in {seconds:.0f} s")
                yield count, _round(target, settings, stand_in, first, count, seconds)
                first += count


def _round(
    target: sa.Engine, settings: Settings, stand_in: StandIn, first: int, count: int, seconds: float
) -> dict[str, float]:
    """Seconds from due to the provider, of so many carts."""
    import sqlalchemy as sa

    from shopauto_pipelines.outbox.schema import messages

    before = len(stand_in.message_ids)
    due = _leave_carts(target, settings, first, count, seconds)
    _await(stand_in, before + count, seconds + 120)
    times = dict(zip(stand_in.message_ids, stand_in.message_times, strict=True))
    wanted = sa.select(messages.c.occasion, messages.c.id).where(messages.c.occasion.in_(list(due)))
    with target.connect() as connection:
        numbers = {row.occasion: row.id for row in connection.execute(wanted)}
    waited = sorted(times[numbers[cart]] - at.timestamp() for cart, at in due.items())
    if min(waited) < 0:
        sys.exit("a message left before its step was due")
    places = {"p50_s": 0.50, "p95_s": 0.95, "p99_s": 0.99}
    return {name: round(waited[min(int(count * share), count - 1)], 2) for name, share in places.items()} | {
        "most_s": round(waited[-1], 2)
    }


def _leave_carts(target: sa.Engine, settings: Settings, first: int, count: int, seconds: float) -> dict[str, datetime]:
    """Store the events of so many carts, each of another customer; returns when each is due."""
    from shopauto_pipelines.realtime.collected import Batch, Row, store

    threshold = timedelta(minutes=settings.cart_abandoned_minutes)
    owners = _owners(settings)
    now = datetime.now(UTC)
    begin = now + timedelta(seconds=2 + count / 2_000)  # when all are stored
    due, rows = {}, []
    for n in range(first, first + count):
        cart_id = f"cart-{n}"
        due[cart_id] = begin + timedelta(seconds=seconds * (n - first) / max(count, 1))
        at = due[cart_id] - threshold
        row = {
            "event_id": f"event-{n}",
            "type": "add_to_cart",
            "happened_at": at.replace(tzinfo=None).isoformat(timespec="microseconds"),
            "shop_customer_id": owners[n],
            "product_id": f"p{n % 48}",
            "quantity": 1,
            "cart_id": cart_id,
        }
        rows.append(Row("raw/events", row["event_id"], at, cart_id, row))
    for start_at in range(0, count, 1_000):
        with target.begin() as connection:
            store(connection, Batch(rows=rows[start_at : start_at + 1_000]), at=now, soonest=threshold)
    return due


@cache
def _owners(settings: Settings) -> list[str]:
    """Customers who are in no holdout of the campaign."""
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.campaigns.holdout import holdout_key, is_held_out

    campaign = load_campaigns()["abandoned_cart"]
    key = holdout_key(settings.hash_key, campaign.name)
    everybody = (f"c{n:08d}" for n in range(_CUSTOMERS))
    return [name for name in everybody if not is_held_out(name, key, campaign.holdout_percent)]


def _await(stand_in: StandIn, messages: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while len(stand_in.message_ids) < messages:
        if time.monotonic() > deadline:
            sys.exit(f"only {len(stand_in.message_ids):,} of {messages:,} messages after {seconds:.0f} s")
        time.sleep(0.2)


def _settings(folder: Path, url: str) -> dict[str, Any]:
    """Live mode; nobody is held out."""
    return {
        "home": folder / "home",
        "live": "true",
        "sendgrid_url": url,
        "sendgrid_api_key": API_KEY,
        "from_email": "news@shop.example.org",
        "postal_address": "1 Example Road, Exampletown",
        "base_url": "https://mail.shop.example.org",
        "shop_url": "https://shop.example.org",
        "secret_key": "a-key-for-the-benchmark",
        "holdout_percent": 0,
    }


@contextmanager
def _dagster(folder: Path, *, standard: bool) -> Iterator[None]:
    """The daemon, which starts the code server, with the sensor switched on."""
    home = folder / "dagster"
    home.mkdir()
    text = (PROJECT_ROOT / "dagster.yaml").read_text()
    if standard:
        kept = (
            block for block in text.split("\n\n") if "run_coordinator:" not in block and "run_launcher:" not in block
        )
        text = "\n\n".join(kept)
    (home / "dagster.yaml").write_text(text)
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(PROJECT_ROOT)}
    here = Path(sys.executable).parent
    workspace = ["-w", str(PROJECT_ROOT / "workspace.yaml")]
    subprocess.run(
        [here / "dagster", "sensor", "start", "abandoned_carts", *workspace],
        env=environment,
        cwd=PROJECT_ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with (folder / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(
            [here / "dagster-daemon", "run", *workspace], env=environment, cwd=PROJECT_ROOT, stdout=log, stderr=log
        )
    try:
        yield
    except BaseException:
        print((folder / "daemon.log").read_text()[-5_000:], file=sys.stderr)
        raise
    finally:
        daemon.send_signal(signal.SIGINT)
        daemon.wait(60)


def _make_shop(settings: Settings, customers: int) -> sa.Engine:
    """The tables that the job reads, as of yesterday, and the database."""
    from synthetic_shop import catalogue, write

    from shopauto_pipelines.features import tables as features
    from shopauto_pipelines.platform.lake import Lake
    from shopauto_pipelines.platform.postgres import engine
    from shopauto_pipelines.predictions import tables as predictions
    from shopauto_pipelines.profiles import tables as profiles
    from shopauto_pipelines.realtime import serving
    from shopauto_pipelines.segments import tables as segments

    lake, day = Lake(settings.lake_path, threads=2), datetime.now(UTC).date() - timedelta(days=1)
    people = f"from range({customers}) t(n)"
    person = """format('c{:08d}', n) as customer_id, format('reader{:08d}@example.org', n) as email,
        if(n % 10 = 0, null, format('Name{}', hash(n) % 20000)) as first_name,
        format('Family{}', hash(n) % 50000) as last_name,
        ['en', 'pt-BR', 'sr-Latn', 'ro'][1 + (hash(n) % 4)::bigint] as "language", 'GB' as country"""
    facts = """format('Category {}', hash(n) % 12) as favourite_category, (hash(n) % 40) / 10 as churn_factor,
        false as discount_seeker"""
    known = {
        profiles.CUSTOMERS: f"select {person}, 1 as shop_ids {people}",
        profiles.IDENTITIES: f"""
            select format('c{{:08d}}', n) as shop_customer_id, format('c{{:08d}}', n) as customer_id {people}""",
        features.CUSTOMER_FEATURES: f"select format('c{{:08d}}', n) as customer_id, {facts} {people}",
        features.CUSTOMER_360: f"""
            select {person}, {facts}, 'opted_in' as email_consent, date '{day}' - 40 as last_order_on {people}""",
        predictions.SCORES: f"select format('c{{:08d}}', n) as customer_id, 0.5 as churn_probability {people}",
        segments.MEMBERSHIP: f"""
            select 'active' as segment, format('c{{:08d}}', n) as customer_id, date '{day}' as entered_on {people}""",
        **catalogue(),
    }
    for table, sql in known.items():
        write(lake, table, day, sql)
    target = engine(settings)
    serving.publish(target, lake, settings, day, at=datetime.now(UTC))
    return target


if __name__ == "__main__":
    main()
