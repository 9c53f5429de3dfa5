"""A wrong setting is one clear line; secrets never show; live mode is complete or refused."""

from datetime import UTC, date, datetime

import pytest

from shopauto_pipelines.platform.settings import Settings, SettingsError, load_settings


def test_every_setting_says_what_it_does():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SHOPAUTO_TIMEZONE", "Mars/Olympus", "SHOPAUTO_TIMEZONE: 'Mars/Olympus' is not an IANA time zone"),
        ("SHOPAUTO_TIMEZONE", "EET", "SHOPAUTO_TIMEZONE: 'EET' names no place; take the zone of a city, such as"),
        ("SHOPAUTO_RETRAIN_DAYS", "often", "SHOPAUTO_RETRAIN_DAYS: Input should be a valid integer"),
        ("SHOPAUTO_POSTGRES_URL", "mysql://x", "SHOPAUTO_POSTGRES_URL: must start with postgresql://"),
        ("SHOPAUTO_CURRENCY", "euro", "SHOPAUTO_CURRENCY"),
        (
            "SHOPAUTO_LIVE",
            "true",
            "live mode needs SHOPAUTO_SENDGRID_API_KEY (SHOPAUTO_EMAIL_VIA is sendgrid), SHOPAUTO_FROM_EMAIL",
        ),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="Some settings are wrong") as raised:
        load_settings()
    assert expected in str(raised.value)


def test_a_password_is_not_shown_in_errors_or_representations(monkeypatch):
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", "mysql://user:hunter2@host/db")
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)
    monkeypatch.setenv("SHOPAUTO_POSTGRES_URL", "postgresql://user:hunter2@host/db")
    assert "hunter2" not in repr(load_settings())


def test_the_hash_key_is_made_once_kept_private_and_replaced_by_the_secret(tmp_path):
    first, again = (Settings(home=tmp_path, _env_file=None) for _ in range(2))
    assert first.hash_key == again.hash_key
    assert (tmp_path / "secret.key").stat().st_mode & 0o077 == 0
    assert Settings(home=tmp_path, secret_key="x" * 8, _env_file=None).hash_key != first.hash_key


@pytest.mark.parametrize(
    ("zone", "day", "starts"),
    [
        ("UTC", date(2026, 1, 3), datetime(2026, 1, 3, tzinfo=UTC)),
        ("Pacific/Auckland", date(2026, 1, 3), datetime(2026, 1, 2, 11, tzinfo=UTC)),
        ("Africa/Cairo", date(2026, 4, 24), datetime(2026, 4, 23, 22, tzinfo=UTC)),  # its clocks jump from 0:00 to 1:00
        ("America/Havana", date(2026, 11, 1), datetime(2026, 11, 1, 4, tzinfo=UTC)),  # its 0:00 comes twice
    ],
)
def test_a_day_of_the_shop_starts_at_its_midnight_also_where_the_clocks_change(tmp_path, zone, day, starts):
    midnight = Settings(home=tmp_path, timezone=zone, _env_file=None).midnight(day)
    assert midnight.tzinfo is not None
    assert midnight.astimezone(UTC) == starts
