"""Every setting, its default and what it does. Read from the environment (``SHOPAUTO_…``) and from ``.env``.

A wrong value stops the start with one line per mistake. ``docs/settings.md`` is made from these descriptions.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import uuid
from datetime import date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from email_validator import validate_email
from pydantic import EmailStr, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict
from pydantic_settings import BaseSettings, SettingsConfigDict

from shopauto_pipelines.platform.errors import ShopAutoError

#: The folder that holds ``workspace.yaml`` and ``dagster.yaml``.
PROJECT_ROOT = Path(__file__).resolve().parents[2]

#: What a channel needs to be set in live mode.
_NEEDED = {
    "sendgrid": ("sendgrid_api_key",),
    "smtp": ("smtp_host",),
    "twilio": ("twilio_account_sid", "twilio_auth_token", "twilio_from"),
    "webhook": ("webhook_url", "webhook_secret"),
}

#: Stands before every setting's name in the environment.
PREFIX = "SHOPAUTO_"

#: Marks a setting that is changed while everything runs (``live_settings``): who begins something asks for its value.
CHANGEABLE: JsonDict = {"changeable": True}

_OWN_CLASS = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"


class SettingsError(ShopAutoError):
    """A setting is missing or wrong; the text says which, why, and where it is set."""


class Settings(BaseSettings):
    """All settings. Construct through :func:`load_settings`, which words the errors."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=PROJECT_ROOT / ".env", extra="ignore", frozen=True, env_ignore_empty=True
    )

    home: Path = Field(
        PROJECT_ROOT / ".shopauto",
        description="Folder for everything that is stored: lake, embedded PostgreSQL, models, local inbox.",
    )
    lake: str | None = Field(
        None,
        description="Where the lake is: a folder, or `s3://bucket/prefix` (docs/object_storage.md). Unset: `lake` under `home`.",
    )
    lake_endpoint: str | None = Field(
        None,
        description="Address of the S3 server that has the lake's bucket. Unset: `AWS_ENDPOINT_URL`, or Amazon's own.",
    )
    postgres_url: SecretStr | None = Field(
        None,
        description="PostgreSQL to use, `postgresql://user:password@host:port/database`. Unset: an embedded server under `home`.",
    )
    shop_name: str = Field("Sample Shop", description="Name of the shop, as messages sign it.")
    shop_url: str = Field(
        "https://shop.example.com",
        pattern="^https?://",
        description="Address of the shop; messages link there. Must be set in live mode.",
    )
    cart_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Where a message about a cart leads. Unset: `/cart` under `shop_url`, as shops mostly have it.",
    )
    product_url: str | None = Field(
        None,
        pattern=r"^https?://.*\{product_id\}",
        description="Address of a product's page, with `{product_id}` in it; messages link their products there. Unset: they "
        "link to `shop_url`.",
    )
    timezone: str = Field(
        "UTC",
        description="IANA time zone whose midnight ends the shop's day: `UTC`, or one named by a place, as `Europe/Brussels`.",
    )
    currency: str = Field("EUR", pattern="^[A-Z]{3}$", description="ISO 4217 currency of amounts that do not name one.")
    country: str = Field(
        "GB",
        pattern="^[A-Z]{2}$",
        description="ISO 3166 country to read local phone numbers in, where the customer's own is not known.",
    )
    language: str = Field("en", description="Language of messages to people whose language is not known.")
    first_day: date | None = Field(
        None, description="First daily partition, where that is before the first day of the data loaded."
    )
    known: Literal["now", "then"] = Field(
        "now",
        description="What past days are computed from, and which lake commands look at. `now`: all that has been loaded by now. "
        "`then`: what had been loaded when the day was refreshed; in a lake of its own, which never sends (docs/backfill.md).",
    )
    retrain_days: int = Field(
        28, ge=1, le=365, description="New models are trained, and new behaviour clusters found, every so many days."
    )
    clusters: int = Field(6, ge=2, le=20, description="Behaviour clusters to look for; a small shop has fewer.")
    horizon_days: int = Field(90, ge=7, le=365, description="Horizon of churn and expected orders, days.")
    cart_abandoned_minutes: int = Field(
        60, ge=1, description="A cart without an event for so long, and without an order, is abandoned."
    )
    holdout_percent: float = Field(
        5.0,
        ge=0,
        le=50,
        description="Share of people who get no marketing at all, to measure what marketing does, percent.",
    )
    cap_messages: int = Field(
        3,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Most messages to a person in `cap_days`, over all campaigns, before marketing is held back. "
        "Transactional messages count, and are not held back.",
    )
    cap_days: int = Field(
        7,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Days that `cap_messages` counts, the day on which a message leaves included.",
    )
    cap_day_messages: int = Field(
        1,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Most messages to a person on one day, over all campaigns by the day and all channels: the campaign of "
        "the highest priority gets the place, others that are marketing try again while their step is valid.",
    )
    quiet_from: int = Field(
        21,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=23,
        description="Hour of the person's day from which nothing is sent, until `quiet_to`; the same as it: no quiet hours. "
        "Where the person's time zone is not known the shop's counts. With live mode off the inbox gets all at once.",
    )
    quiet_to: int = Field(
        8,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=23,
        description="Hour of the person's day from which messages may be sent again.",
    )
    default_hour: int = Field(
        10,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=23,
        description="Hour of the person's day at which messages leave while nobody has opened, clicked, visited or ordered "
        "anything yet; from then on everybody has a best hour of their own, or the shop's.",
    )
    less_often_days: int = Field(
        30,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Who asked for fewer messages gets at most one marketing message in so many days.",
    )
    breaker_complaint_percent: float = Field(
        0.3,
        json_schema_extra=CHANGEABLE,
        gt=0,
        le=100,
        description="A campaign is paused where more of its delivered messages than this are reported as spam, percent.",
    )
    breaker_bounce_percent: float = Field(
        5.0,
        json_schema_extra=CHANGEABLE,
        gt=0,
        le=100,
        description="A campaign is paused where more of its sent messages than this bounce, percent.",
    )
    breaker_messages: int = Field(
        200,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Fewest messages of a campaign, in 24 hours, whose complaint and bounce rates are judged. The first stage of "
        "a staged roll-out is, however few it has.",
    )
    gate_rows_percent: float = Field(
        20.0,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=100,
        description="The gate holds a day's messages where fewer orders or events have come in than this, percent of what such "
        "days usually have.",
    )
    gate_volume_factor: float = Field(
        5.0,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="The gate holds a campaign that plans more than so many times the usual number of people.",
    )
    gate_volume_people: int = Field(
        200,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Up to so many people a campaign may plan on a day without a question, whatever is usual.",
    )
    gate_suppressed_percent: float = Field(
        10.0,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=100,
        description="The gate holds a campaign of whose planned addresses more than this are suppressed, percent.",
    )
    gate_model_days: int = Field(
        100,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="The gate holds a campaign that rests on scores of a model older than so many days.",
    )
    gate_drift: float = Field(
        0.5,
        json_schema_extra=CHANGEABLE,
        gt=0,
        description="The gate holds a campaign that rests on scores which have drifted by more than this beyond chance (PSI).",
    )
    gate_order_percent: float = Field(
        2.0,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=100,
        description="Share of messages taken to lead to an order of one of the products they show, percent: what the gate holds "
        "against stock and warehouse.",
    )
    gate_overruled: str = Field(
        "",
        json_schema_extra=CHANGEABLE,
        pattern=r"^([a-z][a-z0-9_]*:\d{4}-\d{2}-\d{2}( |$))*$",
        description="Campaigns and days, `win_back:2026-06-30`, that leave whatever the gate says; `shopauto outbox overrule` "
        "sets it.",
    )
    warehouse_orders_per_day: int | None = Field(
        None,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="Orders that the warehouse fills in a day: the gate holds what would bring more. Unset: not asked.",
    )
    rollout_from: int = Field(
        10_000,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="In live mode a campaign of at least so many messages on a day is rolled out in two stages.",
    )
    rollout_percent: float = Field(
        1.0,
        json_schema_extra=CHANGEABLE,
        gt=0,
        le=100,
        description="Share that goes first in a staged roll-out, percent; 100: no stages.",
    )
    rollout_wait_minutes: int = Field(
        60,
        json_schema_extra=CHANGEABLE,
        ge=0,
        description="Minutes between the last message of a roll-out's first stage and the rest.",
    )
    onsite_rule: Literal["history", "basket"] = Field(
        "history",
        json_schema_extra=CHANGEABLE,
        description="Which lapsed visitor is offered a discount in the favourite category. `history`: who has spent more "
        "per order there than all customers do on average. `basket`: everybody, for a basket that is above that average.",
    )
    onsite_percent: int = Field(
        10, json_schema_extra=CHANGEABLE, ge=1, le=90, description="Discount of the on-site offer, percent."
    )
    onsite_valid_days: int = Field(
        7, json_schema_extra=CHANGEABLE, ge=1, le=365, description="Days that an on-site offer can be used."
    )
    onsite_holdout_percent: float = Field(
        0.0,
        ge=0,
        le=90,
        description="Share of people who get no on-site offer, to measure what it does, percent; besides `holdout_percent`.",
    )
    offer_cap: int = Field(
        1,
        json_schema_extra=CHANGEABLE,
        ge=0,
        description="Most offers to a person in `offer_cap_days`, of all campaigns.",
    )
    offer_cap_days: int = Field(90, json_schema_extra=CHANGEABLE, ge=1, description="Days that `offer_cap` counts.")
    offer_margin_percent: float = Field(
        20.0,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=100,
        description="An offer never takes the margin of a cart's goods below this, percent of what is paid for them.",
    )
    offer_cost_percent: float = Field(
        60.0,
        json_schema_extra=CHANGEABLE,
        ge=0,
        le=100,
        description="What a product whose cost is not known is taken to cost the shop, percent of its price.",
    )
    offer_shipping_cents: int = Field(
        500,
        json_schema_extra=CHANGEABLE,
        ge=0,
        description="What shipping costs the shop, minor units of `currency`: what free shipping takes of a cart's margin.",
    )
    realtime_profile_days: int = Field(
        3,
        json_schema_extra=CHANGEABLE,
        ge=1,
        description="In live mode nothing is decided in real time on profiles that are older than so many days.",
    )
    readout_days: int = Field(
        14,
        ge=1,
        le=90,
        description="Days after an assignment in which orders count for the effect of a campaign, against its holdout and that "
        "of all campaigns. Experiments say their own.",
    )
    readout_percent: float = Field(
        10.0,
        gt=0,
        le=1000,
        description="The rise that is worth seeing, percent of the holdout's figure: how many people that takes is shown.",
    )
    readout_history_days: int = Field(
        365, ge=30, description="Days back from which assignments count for the effects of campaigns."
    )
    message_price: float = Field(
        0.0, ge=0, description="What a message costs, in `currency`; the outbox's assets show the sum."
    )
    live: bool = Field(
        False, description="Live mode: messages really leave. Off: every message goes to the local inbox."
    )
    live_grace_hours: int = Field(
        36, ge=1, description="In live mode a day's sends close so many hours after the day's end."
    )
    email_via: str = Field(
        "sendgrid",
        pattern=rf"^(sendgrid|smtp|webhook|{_OWN_CLASS})$",
        description="What e-mail leaves by in live mode: `sendgrid`, `smtp`, `webhook`, or your own `package.module:Class`.",
    )
    sms_via: str | None = Field(
        None,
        pattern=rf"^(twilio|webhook|{_OWN_CLASS})$",
        description="What SMS leave by in live mode: `twilio`, `webhook`, or your own `package.module:Class`. Unset: none.",
    )
    sendgrid_api_key: SecretStr | None = Field(None, description="SendGrid API key.")
    sendgrid_url: str = Field("https://api.sendgrid.com", description="Base URL of the SendGrid API.")
    sendgrid_webhook_key: str | None = Field(
        None,
        description="Verification key of SendGrid's signed event webhook (Mail Settings, Event Webhook). Unset: none is taken.",
    )
    sendgrid_sandbox: bool = Field(
        False, description="SendGrid checks every message and delivers none (its sandbox mode)."
    )
    smtp_host: str | None = Field(None, description="SMTP relay; it signs with DKIM.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Port of the SMTP relay.")
    smtp_security: Literal["starttls", "ssl", "none"] = Field(
        "starttls",
        description="Encryption to the relay: `starttls`, `ssl` from the start, or `none`. Where it fails nothing leaves.",
    )
    smtp_user: str | None = Field(None, description="User at the SMTP relay. Unset: no login.")
    smtp_password: SecretStr | None = Field(None, description="Password of `smtp_user`.")
    twilio_account_sid: str | None = Field(None, pattern="^AC[0-9a-fA-F]{32}$", description="Twilio account.")
    twilio_auth_token: SecretStr | None = Field(None, description="Twilio auth token of the account.")
    twilio_from: str | None = Field(
        None,
        pattern=r"^(\+[1-9][0-9]{6,14}|MG[0-9a-fA-F]{32}|[A-Za-z0-9 ]{1,11})$",
        description="Sender of SMS: a number with its `+`, a messaging service `MG…`, or a name of up to 11 letters.",
    )
    twilio_url: str = Field("https://api.twilio.com", description="Base URL of the Twilio API.")
    webhook_url: str | None = Field(
        None, pattern="^https?://", description="Where the channel `webhook` posts its messages."
    )
    webhook_secret: SecretStr | None = Field(
        None, description="Key that the requests of the channel `webhook` are signed with."
    )
    webhook_idempotent: bool = Field(
        False,
        description="The receiver takes an `Idempotency-Key` once, it promises: where no answer came it is asked again.",
    )
    from_email: EmailStr = Field("shop@example.com", description="Sender address; must be set in live mode.")
    from_name: str | None = Field(None, description="Sender name. Unset: `shop_name`.")
    postal_address: str | None = Field(
        None, description="Postal address printed in every marketing message; must be set in live mode."
    )
    base_url: str = Field(
        "http://localhost:8025",
        pattern="^https?://[!-;=?-~]+$",
        description="Public address of links in messages, a host with other letters as `xn--…`. Must be set in live mode, and "
        "begin with `https://`: mail programs unsubscribe by no other (RFC 8058).",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Key for hashes and signed links; must be set in live mode. Unset: one is made and kept under `home`.",
    )
    collector_replay_hours: int = Field(
        25,
        ge=1,
        description="A signed request older than so many hours is refused; the provider tries again for 24 hours.",
    )
    collector_max_kib: int = Field(2048, ge=16, description="Largest request the collector takes, KiB.")
    collector_queue_mib: int = Field(
        64,
        ge=8,
        description="Memory of the requests that wait to be stored, MiB. Where it is used up the answer is 429.",
    )
    collector_events_per_second: int = Field(
        1000,
        ge=1,
        description="Most events a second of one address, with a reserve of ten seconds; servers with `collector_key` are free.",
    )
    collector_key: SecretStr | None = Field(
        None,
        description="Key of the shop's servers (`Authorization: Bearer …`). Unset: they are heard only while live is off.",
    )
    identity_secret: SecretStr | None = Field(
        None,
        description="Key the shop signs customer ids with for its pages. In live mode no browser is believed without.",
    )
    shopify_webhook_secret: SecretStr | None = Field(
        None, description="Client secret of the Shopify app whose webhooks are taken. Unset: none are."
    )
    woocommerce_webhook_secret: SecretStr | None = Field(
        None, description="Secret of WooCommerce's webhooks. Unset: none are taken."
    )
    form_double_opt_in: bool = Field(
        False,
        description="Consent given on a form is `pending` until one of the shop's servers says that it is confirmed.",
    )
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb",
        description="What computes the tables: DuckDB on the machine of the run, or Spark on a cluster (docs/spark.md).",
    )
    spark_master: str = Field(
        "local[*]",
        description="Master of the Spark cluster: `spark://host:7077`, `yarn`, `k8s://…`; `local[*]` is for trying it out only.",
    )
    spark_conf: str = Field(
        "",
        pattern=r"^(spark\.\S+=\S+( +spark\.\S+=\S+)*)?$",
        description="Settings of Spark's own: `spark.executor.memory=8g spark.executor.cores=4`. Those of times and errors are "
        "not open to choice.",
    )
    engine_threads: int | None = Field(None, ge=1, description="Threads of the query engine. Unset: all cores.")
    engine_memory: str | None = Field(
        None,
        pattern=r"^\d+ ?[KMG]i?B$",
        description="Memory limit of the query engine, e.g. `4GB`. Unset: 80 % of the machine.",
    )

    @field_validator("timezone")
    @classmethod
    def _known_time_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{value!r} is not an IANA time zone such as Europe/London") from error
        if "/" not in value and value != "UTC":  # PostgreSQL takes CET for an abbreviation: winter time all the year
            raise ValueError(f"{value!r} names no place; take the zone of a city, such as Europe/Brussels for CET")
        return value

    @field_validator("from_email")
    @classmethod
    def _fit_for_a_header(cls, value: str) -> str:
        fit = validate_email(value, check_deliverability=False).ascii_email
        if fit is None:
            raise ValueError(
                "the part before the @ has letters that mail headers do not carry: only ASCII ones are taken"
            )
        return fit

    @field_validator("lake")
    @classmethod
    def _lake_place(cls, value: str | None) -> str | None:
        if value and "://" in value and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/[^?#]*)?", value):
            raise ValueError(
                "must be a folder, or s3://bucket/prefix (the keys come from the environment, not from here)"
            )
        return value

    @field_validator("lake_endpoint")
    @classmethod
    def _endpoint_without_keys(cls, value: str | None) -> str | None:
        if value and not re.fullmatch(r"https?://[^@]+", value):
            raise ValueError(
                "must be http://host:port, or https://host (the keys come from the environment, not from here)"
            )
        return value

    @field_validator("postgres_url")
    @classmethod
    def _postgres_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql:// (the driver is chosen by the program)")
        return value

    @model_validator(mode="after")
    def _live_mode_is_complete(self) -> Settings:
        if not self.live:
            return self
        missing = [
            f"SHOPAUTO_{name.upper()} (SHOPAUTO_{choice} is {via})"
            for choice, via in (("EMAIL_VIA", self.email_via), ("SMS_VIA", self.sms_via))
            for name in _NEEDED.get(via or "", ())
            if not getattr(self, name)
        ]
        if self.email_via == "smtp" and self.smtp_user and not self.smtp_password:
            missing.append("SHOPAUTO_SMTP_PASSWORD (SHOPAUTO_SMTP_USER is set)")
        needed = {
            "SHOPAUTO_FROM_EMAIL": not self.from_email.endswith("@example.com"),
            "SHOPAUTO_POSTAL_ADDRESS": self.postal_address,
            "SHOPAUTO_SHOP_URL": "example.com" not in self.shop_url,
            "SHOPAUTO_BASE_URL": "localhost" not in self.base_url,
            "SHOPAUTO_SECRET_KEY": self.secret_key,
        }
        missing += [name for name, there in needed.items() if not there]
        if "SHOPAUTO_BASE_URL" not in missing and not self.base_url.startswith("https://"):
            missing.append("SHOPAUTO_BASE_URL with https://")
        if missing:
            raise ValueError(f"live mode needs {', '.join(missing)}; set them, or set SHOPAUTO_LIVE=false")
        return self

    @cached_property
    def zone(self) -> ZoneInfo:
        """The shop's time zone."""
        return ZoneInfo(self.timezone)

    def midnight(self, day: date) -> datetime:
        """When a day of the shop starts, in its time zone."""
        return datetime.combine(day, time(), self.zone)

    @property
    def computed_path(self) -> Path:
        """Where everything is that is computed from what was loaded: the home, or beside it where ``known`` is ``then``."""
        return self.home if self.known == "now" else self.home / "known_then"

    @property
    def lake_path(self) -> Path:
        """Folder of the lake's tables, or of this machine's copies where they are in a bucket."""
        if self.known == "then":
            return self.computed_path / "lake"
        if self.lake_bucket:
            named = re.sub(r"[^a-z0-9]+", "-", self.lake_bucket.removeprefix("s3://").lower())
            return self.home / "copies" / f"{named}-{hashlib.sha256(self.lake_bucket.encode()).hexdigest()[:8]}"
        return Path(self.lake).expanduser().resolve() if self.lake else self.home / "lake"

    @property
    def lake_bucket(self) -> str | None:
        """Address of the lake's tables where they are in a bucket. Those as known then never are."""
        in_bucket = self.known == "now" and self.lake and self.lake.startswith("s3://")
        return self.lake.rstrip("/") if self.lake and in_bucket else None

    @property
    def inbox_path(self) -> Path:
        """Where the local inbox keeps its messages."""
        return self.home / "inbox"

    @property
    def models_path(self) -> Path:
        """Where models are kept, with their back-tests."""
        return self.computed_path / "models"

    @cached_property
    def hash_key(self) -> bytes:
        """Key for keyed hashes: the secret key, or one made once and kept under ``home``, readable by its owner only."""
        if self.secret_key:
            return hashlib.sha256(self.secret_key.get_secret_value().encode()).digest()
        path = self.home / "secret.key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = path.with_suffix(f".{uuid.uuid4().hex}")
            staged.touch(mode=0o600)
            staged.write_text(secrets.token_hex(32))
            try:
                os.link(staged, path)  # fails where another process was faster: its key is then the one
            except FileExistsError:
                pass
            finally:
                staged.unlink()
        return bytes.fromhex(path.read_text())


def load_settings() -> Settings:
    """The settings of this process; raises :class:`SettingsError` with one line per wrong value."""
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [f"  {f'{PREFIX}{name.upper()}' if name else 'settings'}: {what}" for name, what in mistakes(error)]
        raise SettingsError(
            "Some settings are wrong (from the environment or .env; docs/settings.md explains each):\n"
            + "\n".join(lines)
        ) from None
    return settings.model_copy(update={"home": settings.home.expanduser().resolve()})


def mistakes(error: ValidationError) -> list[tuple[str, str]]:
    """What is wrong with the settings: the name (empty where it is about several) and what must be otherwise."""
    return [
        (str(mistake["loc"][0]) if mistake["loc"] else "", mistake["msg"].removeprefix("Value error, "))
        for mistake in error.errors()
    ]
