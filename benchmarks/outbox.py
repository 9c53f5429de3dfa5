"""A campaign to a million people through the outbox, beside the loop people write with the ``sendgrid`` package.

    python benchmarks/outbox.py [--recipients N] [--dispatchers N] [--plain N] [--quick]

Both send to the same stand-in for SendGrid, in the same run on the same machine: a process of its own on loopback that
checks every call against the published contract and keeps a list of what it accepted.

*The outbox.* The shipped newsletter, in four languages, with and without a name, with the best sellers of twelve
categories. Measured, by the clock, from the first reservation to the last message settled in the ledger: reserving (with
suppression, consent, cap and exit rules), reading names and addresses from the lake, writing every message, the calls, and
settling, all committed durably, by ``--dispatchers`` processes that share the work. Not in it: making the shop, planning the
messages into the ledger (reported apart), starting the processes, and handing what was sent to the lake afterwards. Memory
is the peak of the largest dispatcher process; ``peak_mib_first_tenth`` is what it was when a tenth had been sent, so that
growth with the audience would show.

*The plain loop.* The same bodies from a template that Jinja has compiled beforehand, one ``Mail`` and one
``SendGridAPIClient.send`` a message, on a new connection each, as the package does. No ledger: it forgets what it has sent
when it dies. It sends ``--plain`` messages; its time is the calls and the rendering, nothing else.

Ends with one line of JSON. ``duplicates`` and ``lost`` are counted from the stand-in's own list.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from measuring import peak_mib, say

from shopauto_pipelines.platform.settings import PROJECT_ROOT, Settings

sys.path.insert(0, str(PROJECT_ROOT))
from shopauto_pipelines_tests.outbox.sendgrid_stand_in import API_KEY, start

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from shopauto_pipelines.platform.lake import Lake

CAMPAIGN, DAY = "newsletter", date(2026, 1, 31)
NOW = datetime(2026, 2, 1, 5, tzinfo=UTC)
CONTRACTS = PROJECT_ROOT.parent / "shared" / "contracts"


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipients", type=int, default=1_000_000)
    parser.add_argument("--dispatchers", type=int, default=3, help="processes that share the work")
    parser.add_argument("--plain", type=int, default=2_000, help="messages of the plain loop")
    parser.add_argument("--quick", action="store_true", help="50,000 recipients")
    options = parser.parse_args()
    recipients = 50_000 if options.quick else options.recipients

    with (
        tempfile.TemporaryDirectory(prefix="shopauto-benchmark-", ignore_cleanup_errors=True) as folder,
        start(CONTRACTS if CONTRACTS.is_dir() else None, bodies=False) as stand_in,
    ):
        values = _settings(folder, stand_in.url)
        say(f"a shop of {recipients:,} customers")
        _make_shop(Settings(_env_file=None, **values), recipients)

        say(f"plain loop: {options.plain:,} messages")
        plain = options.plain / _plain_loop(values, options.plain)
        stand_in.reset()

        say(f"planning {recipients:,} messages into the ledger")
        plan_seconds = _plan(values)
        say(f"sending, {options.dispatchers} dispatchers")
        seconds, workers = _send(values, options.dispatchers, recipients)

        counts, accepted = stand_in.counts(), set(stand_in.message_ids)
        sent = _sent_by_the_ledger(values)

    rate = recipients / seconds
    figures = {
        "recipients": recipients,
        "dispatchers": options.dispatchers,
        "calls": counts["calls"],
        "connections": counts["connections"],
        "plan_seconds": round(plan_seconds, 1),
        "seconds": round(seconds, 2),
        "messages_per_s": round(rate),
        "plain_loop_messages_per_s": round(plain),
        "speedup": round(rate / plain, 1),
        "peak_mib_first_tenth": round(max(worker["first_tenth"] for worker in workers)),
        "peak_mib": round(max(worker["peak"] for worker in workers)),
        "duplicates": counts["duplicates"],
        "lost": recipients - len(accepted & sent),
    }
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value:,}")
    print(json.dumps(figures))


def _settings(folder: str, url: str) -> dict[str, Any]:
    """Live mode, all of it at once: no staged roll-out."""
    return {
        "home": f"{folder}/home",
        "live": True,
        "sendgrid_url": url,
        "sendgrid_api_key": API_KEY,
        "from_email": "news@shop.example.org",
        "postal_address": "1 Example Road, Exampletown",
        "base_url": "https://mail.shop.example.org",
        "shop_url": "https://shop.example.org",
        "secret_key": "a-key-for-the-benchmark",
        "rollout_percent": 100,
    }


def _lake(settings: Settings) -> Lake:
    from shopauto_pipelines.platform.lake import Lake

    return Lake(settings.lake_path, threads=1)


def _make_shop(settings: Settings, recipients: int) -> None:
    """The tables a dispatcher reads."""
    from synthetic_shop import catalogue, write

    from shopauto_pipelines.campaigns.tables import audience
    from shopauto_pipelines.features import tables as features
    from shopauto_pipelines.profiles import tables as profiles

    lake = _lake(settings)
    people = f"from range({recipients}) t(n)"
    known = {
        profiles.CUSTOMERS: f"""
            select format('c{{:08d}}', n) as customer_id, format('reader{{:08d}}@example.org', n) as email,
                   if(n % 10 = 0, null, format('Name{{}}', hash(n) % 20000)) as first_name,
                   format('Family{{}}', hash(n) % 50000) as last_name, 'GB' as country, 1 as shop_ids
            {people}""",
        features.CUSTOMER_FEATURES: f"""
            select format('c{{:08d}}', n) as customer_id, format('Category {{}}', hash(n) % 12) as favourite_category
            {people}""",
        audience(CAMPAIGN): f"""
            select 'issue' as step, format('c{{:08d}}', n) as customer_id, '2026-01' as occasion,
                   date '{DAY}' as triggered_on, date '{DAY}' as due_on, 'planned' as decision, 'due' as reason,
                   'email' as channel, 'newsletter' as template,
                   ['en', 'pt-BR', 'sr-Latn', 'ro'][1 + (hash(n) % 4)::bigint] as "language",
                   null as variant, null as send_from, null as offer, null as details,
                   '{{"trigger": "broadcast", "rule": "monthly: last", "segments": ["active"]}}' as explanation
            {people}""",
        **catalogue(),
    }
    for table, sql in known.items():
        write(lake, table, DAY, sql)


def _plain_loop(values: dict[str, Any], count: int) -> float:
    """The loop that people write; seconds."""
    import re

    import jinja2
    from sendgrid import SendGridAPIClient
    from sendgrid.helpers.mail import CustomArg, Mail

    from shopauto_pipelines.campaigns.content import Renderer
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.campaigns.drafts import Drafts
    from shopauto_pipelines.campaigns.products import Showcase

    settings = Settings(_env_file=None, **values)
    renderer = Renderer(load_campaigns()[CAMPAIGN], settings)
    goods = list(renderer.goods(Showcase.read(_lake(settings), DAY).of("Category 1"), "en"))
    drafts = Drafts(renderer.render)
    links = {"unsubscribe": "https://x.example.org/u/t", "preferences": "https://x.example.org/p/t"}
    draft, _ = drafts.draft("issue", "en", {"first_name": "Ana"}, links, goods)
    subject, html, text = (
        re.sub(r"%sa:\w+\.(\w+);?%", r"{{ \1 }}", part) for part in (draft.subject, draft.html, draft.text)
    )
    page = jinja2.Environment(autoescape=True).from_string(html)
    plain = jinja2.Environment().from_string(text)

    client = SendGridAPIClient(API_KEY, host=settings.sendgrid_url)
    began = time.perf_counter()
    for n in range(count):
        reader = {"first_name": f"Name{n}", **{name: f"{url}{n:032}" for name, url in links.items()}}
        message = Mail(
            from_email=str(settings.from_email),
            to_emails=f"reader{n}@example.org",
            subject=subject,
            html_content=page.render(reader),
            plain_text_content=plain.render(reader),
        )
        message.custom_arg = CustomArg("shopauto_message", str(n + 1), p=0)
        assert client.send(message).status_code == 202
    return time.perf_counter() - began


def _plan(values: dict[str, Any]) -> float:
    """Put the audience into the ledger; seconds."""
    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.outbox.dispatch import plan
    from shopauto_pipelines.platform.clock import FixedClock
    from shopauto_pipelines.platform.postgres import engine
    from shopauto_pipelines.platform.progress import listening

    settings = Settings(_env_file=None, **values)
    target = engine(settings)
    began = time.perf_counter()
    with listening(_shown):
        plan(target, _lake(settings), settings, load_campaigns()[CAMPAIGN], DAY, run_id=None, clock=FixedClock(NOW))
    return time.perf_counter() - began


def _send(values: dict[str, Any], dispatchers: int, recipients: int) -> tuple[float, list[dict[str, float]]]:
    """Send by so many processes at once; seconds from the moment all are ready, and the memory of each."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(dispatchers + 1), context.SimpleQueue()
    workers = [
        context.Process(target=_dispatcher, args=(values, ready, told, recipients / dispatchers, n == 0))
        for n in range(dispatchers)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if any(worker.exitcode for worker in workers):
        sys.exit("a dispatcher failed")
    return seconds, [told.get() for _ in workers]


def _dispatcher(values: dict[str, Any], ready: Barrier, told: Any, share: float, shows: bool) -> None:
    """One dispatcher process. Libraries are imported before the clock starts, as in a process that has worked before."""
    import mjml.mjml2html  # noqa: F401
    import sendgrid.helpers.mail  # noqa: F401

    from shopauto_pipelines.campaigns.declaration import load_campaigns
    from shopauto_pipelines.outbox.channels.sendgrid import SendGrid
    from shopauto_pipelines.outbox.sending import send_planned
    from shopauto_pipelines.platform.clock import FixedClock
    from shopauto_pipelines.platform.postgres import engine
    from shopauto_pipelines.platform.progress import listening

    settings = Settings(_env_file=None, **values)
    target, campaign, lake, channel = engine(settings), load_campaigns()[CAMPAIGN], _lake(settings), SendGrid(settings)
    memory: dict[str, float] = {}

    def on_report(what: str, done: int, total: int) -> None:
        if done >= share / 10:
            memory.setdefault("first_tenth", peak_mib())
        if shows:
            _shown(what, done, total)

    ready.wait()
    with listening(on_report):
        result = send_planned(target, lake, settings, campaign, DAY, channel, FixedClock(NOW))
    if result.stopped:
        sys.exit(result.stopped)
    told.put(memory | {"peak": peak_mib(), "messages": result.messages})


def _sent_by_the_ledger(values: dict[str, Any]) -> set[int]:
    import sqlalchemy as sa

    from shopauto_pipelines.outbox.schema import messages
    from shopauto_pipelines.platform.postgres import engine

    with engine(Settings(_env_file=None, **values)).connect() as connection:
        return set(connection.execute(sa.select(messages.c.id).where(messages.c.state == "sent")).scalars())


def _shown(what: str, done: int, total: int) -> None:
    end = "\n" if done >= total else "\r"
    if end == "\n" or done % 10_000 < 1000:
        print(f"  {what}: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
