import gzip
import hashlib
from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.sources import tables
from shopauto_pipelines.sources.landing import land_rows, landed_days, landing_root, refresh_landing, touched_days
from shopauto_pipelines.sources.reading import LandingError

from .declared import CUSTOMERS, LINES, ORDERS, ORDERS_HEADER, TODAY, declare, landed, load, put, refused


@pytest.fixture
def shop(tmp_path):
    return declare(tmp_path, ORDERS)


def _orders(*rows):
    return ORDERS_HEADER + "".join(f"{row}\n" for row in rows)


def _reasons(lake, table="orders"):
    return [(r["source_row"], r["column"], r["reason"], r["raw_value"]) for r in refused(lake, table)]


def test_rows_are_typed_and_carry_their_origin(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders=_orders("1,2026-01-05T10:00:00+02:00,c1,,4.575")))
    [row] = landed(lake)
    assert (row["total_cents"], row["ordered_at"], row["day"]) == (458, datetime(2026, 1, 5, 8), date(2026, 1, 5))
    assert (row["source"], row["source_file"], row["source_row"]) == ("shop", "orders.csv", 1)
    assert landed_days(lake) == (date(2026, 1, 5), date(2026, 1, 5))
    assert Lake.first_day(lake.root) == date(2026, 1, 5)


def test_a_file_with_missing_columns_is_refused_with_the_nearest_names(lake, settings, shop, tmp_path):
    path = put(tmp_path, orders="order_id,orderd_at,customer,email,sum\n1,2026-01-05,c1,,1\n")
    with pytest.raises(LandingError) as caught:
        load(lake, settings, shop, path)
    assert "missing columns `ordered_at` (needed by orders; did you mean `orderd_at`?)" in str(caught.value)
    assert "The file has `order_id`, `orderd_at`, `customer`, `email`, `sum`." in str(caught.value)
    assert landed(lake) == []


def test_column_names_match_without_case_spaces_and_underscores(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders="OrderID,Ordered At,CUSTOMER,E-Mail,Total\n1,2026-01-05,c1,,1\n"))
    assert len(landed(lake)) == 1


def test_values_of_a_wrong_type_are_quarantined_with_column_reason_and_value(lake, settings, shop, tmp_path):
    rows = (
        "1,2026-01-05,c1,,12 EUR",
        "2,yesterday,c1,,1.00",
        ",2026-01-06,c1,,1",
        "4,2026-01-07,c1,,1",
        "5,2026-01-04,c,,",
    )
    report = load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert _reasons(lake) == [
        (1, "total_cents", "not an amount of money", "12 EUR"),
        (2, "ordered_at", "not a time", "yesterday"),
        (3, "order_id", "is missing", None),
        (5, "total_cents", "is missing", None),
    ]
    days = {row["source_row"]: row["day"] for row in refused(lake)}
    assert days[1] == date(2026, 1, 5)
    assert days[2] == date(2026, 1, 5), "an undated row lies on the day of the row above it"
    assert report.reasons == {"is missing": 2, "not a time": 1, "not an amount of money": 1}


def test_a_row_without_a_day_stays_on_its_day_when_the_file_grows(lake, settings, shop, tmp_path):
    rows = ["0,yesterday,c1,,1", "1,2026-01-05,c1,,1", "2,yesterday,c1,,1", "3,yesterday,c1,,1", "4,2026-01-07,c1,,1"]
    first = {1: date(2026, 1, 5), 3: date(2026, 1, 5), 4: date(2026, 1, 5)}
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert {row["source_row"]: row["day"] for row in refused(lake)} == first
    report = load(lake, settings, shop, put(tmp_path, orders=_orders(*rows, "5,yesterday,c1,,1", "6,2026-01-08,c1,,1")))
    assert {row["source_row"]: row["day"] for row in refused(lake)} == first | {6: date(2026, 1, 7)}
    assert touched_days(report) == [date(2026, 1, 7), date(2026, 1, 8)]


def test_a_row_without_a_day_on_top_of_a_file_lies_on_the_first_day_below_it(lake, settings, shop, tmp_path):
    rows = ("0,yesterday,c1,,1", "1,2026-01-09,c1,,1", "2,2026-01-05,c1,,1")
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert [row["day"] for row in refused(lake)] == [date(2026, 1, 9)]


def test_a_file_without_any_day_lies_on_the_day_of_its_load(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders=_orders("1,yesterday,c1,,1")))
    assert [row["day"] for row in refused(lake)] == [TODAY]


def test_the_first_day_is_noted_of_files_before_one_that_stops_a_load(lake, settings, tmp_path):
    both = declare(tmp_path, CUSTOMERS, ORDERS)
    files = put(tmp_path, customers="id,changed_at,created_at,email\nc1,2026-01-03,,\n", orders="wrong\n1\n")
    with pytest.raises(LandingError, match=r"orders\.csv"):
        load(lake, settings, both, files)
    load(lake, settings, both, put(tmp_path, orders=_orders("1,2026-01-05,c1,,1")))
    assert landed_days(lake) == (date(2026, 1, 3), date(2026, 1, 5))
    assert Lake.first_day(lake.root) == date(2026, 1, 3)


def test_a_lake_that_was_deleted_but_for_what_is_landed_learns_its_first_day_again(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders=_orders("1,2026-01-05,c1,,1")))
    (lake.root / "first_day").unlink()
    refresh_landing(lake, [shop], settings, TODAY)
    assert Lake.first_day(lake.root) == date(2026, 1, 5)


def test_of_rows_with_the_same_key_the_first_in_the_file_stays(lake, settings, shop, tmp_path):
    rows = ("1,2026-01-05,c1,,1", "2,2026-01-05,c1,,1", "1,2026-01-04,c1,,2", "1,2026-01-05,c1,,3")
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert [(row["order_id"], row["total_cents"]) for row in landed(lake)] == [("1", 100), ("2", 100)]
    assert _reasons(lake) == [(3, "order_id", "duplicate key", "1"), (4, "order_id", "duplicate key", "1")]


def test_dates_in_the_future_or_the_far_past_are_quarantined(lake, settings, shop, tmp_path):
    rows = ("1,2026-01-05,c1,,1", "2,2026-02-01,c1,,1", "3,0026-01-05,c1,,1", "4,2026-01-31 23:59,c1,,1")
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert [(r, why) for r, _, why, _ in _reasons(lake)] == [(2, "in the future"), (3, "before 1990-01-01")]
    assert [row["order_id"] for row in landed(lake)] == ["1", "4"]
    assert landed_days(lake) == (date(2026, 1, 5), TODAY)


def test_a_row_from_the_future_is_taken_once_its_day_has_come(lake, settings, shop, tmp_path):
    path = put(tmp_path, orders=_orders("1,2026-01-05,c1,,1", "2,2026-02-01,c1,,1"))
    load(lake, settings, shop, path)
    assert refresh_landing(lake, [shop], settings, TODAY) == []
    [report] = refresh_landing(lake, [shop], settings, date(2026, 2, 1))
    assert [row["order_id"] for row in landed(lake)] == ["1", "2"]
    assert touched_days(report) == [date(2026, 1, 5), date(2026, 2, 1)], "its quarantine entry leaves the 5th"


def test_an_empty_file_is_refused_and_a_header_alone_is_zero_rows(lake, settings, shop, tmp_path):
    with pytest.raises(LandingError, match=r"orders\.csv: the file is empty \(0 bytes\)"):
        load(lake, settings, shop, put(tmp_path, orders=""))
    for header in (ORDERS_HEADER, ORDERS_HEADER.strip()):
        report = load(lake, settings, shop, put(tmp_path, orders=header))
        assert (report.total("read"), report.total("landed"), landed(lake)) == (0, 0, [])


def test_an_endless_field_quarantines_its_row_and_is_cut(lake, settings, shop, tmp_path):
    rows = ("1,2026-01-05,c1,,1", f"2,2026-01-05,{'x' * 200_000},,1", "3,2026-01-05,c1,,1")
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    [(row, column, reason, value)] = _reasons(lake)
    assert (row, column, reason) == (2, "customer", "200,000 characters, the limit is 10,000")
    assert value == "x" * 199 + "…"
    assert [r["source_row"] for r in landed(lake)] == [1, 3]


def test_invalid_utf8_quarantines_only_its_rows(lake, settings, shop, tmp_path):
    content = ORDERS_HEADER.encode() + b"1,2026-01-05,c1,,1\n2,2026-01-05,caf\xe9,,1\n3,2026-01-05,caf\xc3\xa9,,1\n"
    load(lake, settings, shop, put(tmp_path, orders=content))
    assert _reasons(lake) == [(2, "customer", "not valid UTF-8", "caf�")]
    assert [row["shop_customer_id"] for row in landed(lake)] == ["c1", "café"]


def test_a_nul_character_quarantines_only_its_row(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders=_orders("1,2026-01-05,c1,,1", "2,2026-01-05,c\0002,,1")))
    assert _reasons(lake) == [(2, "customer", "a NUL character", "c�2")]
    assert [row["shop_customer_id"] for row in landed(lake)] == ["c1"]


def test_ragged_rows_are_quarantined_and_the_others_keep_their_numbers(lake, settings, shop, tmp_path):
    rows = (
        "1,2026-01-05,c1,,1",
        "2,2026-01-05",
        '3,2026-01-05,"a\nb",,1',
        "",
        "4,2026-01-05,c1,,1,9",
        "5,2026-01-05,c1,,1",
    )
    report = load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert _reasons(lake) == [
        (2, None, "2 fields instead of 5", "2,2026-01-05"),
        (4, None, "6 fields instead of 5", "4,2026-01-05,c1,,1,9"),
    ]
    assert [(row["source_row"], row["order_id"]) for row in landed(lake)] == [(1, "1"), (3, "3"), (5, "5")]
    assert report.total("read") == 5


def test_a_file_of_ragged_rows_only_loses_none(lake, settings, shop, tmp_path):
    report = load(lake, settings, shop, put(tmp_path, orders=_orders("1", "2")))
    assert (report.total("read"), report.total("quarantined")) == (2, 2)
    assert {row["day"] for row in refused(lake)} == {TODAY}


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_quote_that_is_never_closed_is_told(lake, settings, shop, tmp_path, end):
    rows = ("1,2026-01-05,c1,,1", '2,2026-01-05,c1,,"1', "3,2026-01-05,c1,,1")
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows).removesuffix("\n") + end))
    assert [(row, reason) for row, _, reason, _ in _reasons(lake)] == [
        (2, "a quote is never closed: the rest of the file was read as one value")
    ]


@pytest.mark.parametrize("after", ["", "2,ragged\n"])
def test_a_last_value_of_several_lines_is_read(lake, settings, tmp_path, after):
    source = declare(tmp_path, ORDERS.replace("total)", "total)\n        coupon_code: note"))
    text = 'order_id,ordered_at,customer,email,total,note\n1,2026-01-05,c1,,1,"two ""lines""\nand one"\n' + after
    load(lake, settings, source, put(tmp_path, orders=text))
    assert [row["coupon_code"] for row in landed(lake)] == ['two "lines"\nand one']
    assert len(refused(lake)) == bool(after)


def test_a_wrong_kind_of_file_a_missing_path_and_a_missing_file_are_told(lake, settings, shop, tmp_path):
    (tmp_path / "orders.xlsx").write_bytes(b"PK")
    excel = declare(tmp_path, ORDERS.replace("files: orders*.csv", "where: 'true'"))
    with pytest.raises(LandingError, match=r"only \.csv, \.csv\.gz, \.parquet files can be loaded"):
        load(lake, settings, excel, tmp_path / "orders.xlsx")
    with pytest.raises(LandingError, match="there is no such file or folder"):
        load(lake, settings, shop, tmp_path / "nowhere")
    with pytest.raises(
        LandingError, match=r"no file matches orders\*\.csv, which feeds `orders`. The folder has items\.csv"
    ):
        load(lake, settings, shop, put(tmp_path, items="a\n1\n"))


@pytest.mark.parametrize("suffix", [".csv.gz", ".parquet"])
def test_broken_files_are_told_without_a_traceback(lake, settings, tmp_path, suffix):
    single = declare(tmp_path, ORDERS.replace("files: orders*.csv", "where: 'true'"))
    file = tmp_path / f"orders{suffix}"
    file.write_bytes(b"this is neither gzip nor parquet, but long enough to look at")
    with pytest.raises(LandingError, match="cannot be read"):
        load(lake, settings, single, file)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        (
            "cast(email as bigint)",
            "an expression stops at a value of `email`; helpers such as whole(x) set its row aside",
        ),
        ("strptime(email, '%Y')", "an expression stops at a value; helpers such as whole(x) set its row aside"),
        ("email + 1", "No function matches"),
    ],
)
def test_a_value_at_which_an_expression_stops_is_not_told(lake, settings, tmp_path, expression, told):
    source = declare(tmp_path, ORDERS.replace("cents(total)", f'"{expression}"'))
    with pytest.raises(LandingError) as caught:
        load(lake, settings, source, put(tmp_path, orders=_orders("1,2026-01-05,c1,ann@example.com,1")))
    assert "orders.csv: raw/orders: the mapping does not fit the data: " in str(caught.value)
    assert told in str(caught.value)
    assert "ann" not in str(caught.value)


def test_gzip_and_parquet_give_the_same_rows_as_csv(lake, settings, tmp_path):
    single = declare(tmp_path, ORDERS.replace("files: orders*.csv", "where: 'true'"))
    text = _orders("1,2026-01-05 10:00:00,c1,,4.575", "2,2026-01-06 10:00:00,,a@b.example,1")
    plain = tmp_path / "orders.csv"
    plain.write_text(text)
    packed = tmp_path / "orders.csv.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    typed = tmp_path / "orders.parquet"
    columns = {
        "order_id": pa.array(["1", "2"]).dictionary_encode(),
        "ordered_at": pa.array([datetime(2026, 1, 5, 10), datetime(2026, 1, 6, 10)], pa.timestamp("ns")),
        "customer": pa.array(["c1", None], pa.large_string()),
        "email": ["", "a@b.example"],
        "total": [4.575, 1.0],
    }
    pq.write_table(pa.table(columns), typed)
    seen = []
    for file in (plain, packed, typed):
        home = Lake(tmp_path / file.suffix)
        load(home, settings, single, file)
        seen.append([{k: v for k, v in row.items() if k != "source_file"} for row in landed(home)])
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 2


def test_parquet_with_invalid_utf8_quarantines_only_its_rows(lake, settings, tmp_path):
    single = declare(tmp_path, ORDERS.replace("files: orders*.csv", "where: 'true'"))
    broken = pa.array([b"c1", b"caf\xe9"], pa.binary()).view(pa.string())
    columns = {
        "order_id": ["1", "2"],
        "ordered_at": ["2026-01-05"] * 2,
        "customer": broken,
        "email": ["", ""],
        "total": ["1", "1"],
    }
    pq.write_table(pa.table(columns), tmp_path / "orders.parquet")
    load(lake, settings, single, tmp_path / "orders.parquet")
    assert _reasons(lake) == [(2, "customer", "not valid UTF-8", "caf�")]


def test_a_guest_gets_an_id_that_follows_from_the_address(lake, settings, shop, tmp_path):
    rows = (
        "1,2026-01-05,, Ann@Example.com ,1",
        "2,2026-01-06,,ann@example.com,1",
        "3,2026-01-06,,,1",
        "4,2026-01-06,,n/a,1",
    )
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    first, second, anonymous, nobody = (row["shop_customer_id"] for row in landed(lake))
    assert first == second == "guest:" + hashlib.sha256(b"ann@example.com").hexdigest()[:16]
    assert anonymous is nobody is None


def test_local_times_are_read_in_the_zone_of_the_source_and_lie_on_the_day_of_the_shop(lake, settings, tmp_path):
    source = declare(tmp_path, ORDERS, head="timezone: America/New_York")
    path = put(tmp_path, orders=_orders("1,2026-01-05 23:30:00,c1,,1", "2,2026-07-05 23:30:00,c1,,1"))
    berlin = settings.model_copy(update={"timezone": "Europe/Berlin"})
    load(lake, berlin, source, path, date(2026, 12, 31))
    assert [(row["ordered_at"], row["day"]) for row in landed(lake)] == [
        (datetime(2026, 1, 6, 4, 30), date(2026, 1, 6)),
        (datetime(2026, 7, 6, 3, 30), date(2026, 7, 6)),
    ]


def test_times_of_utc_are_mapped_as_such_with_and_without_a_format(lake, settings, tmp_path):
    for column, time in (
        ("utc_time(at)", "2026-01-05 23:30"),
        ("min(utc_time(at, '%d.%m.%Y %H:%M'))", "05.01.2026 23:30"),
    ):
        orders = f"""
        orders:
          files: orders.csv
          group_by: [order_id, at]
          columns: {{order_id: order_id, ordered_at: "{column}", total_cents: sum(cents(total))}}
        """
        files = put(tmp_path, orders=f"order_id,at,total\n1,{time},1\n2,soon,1\n")
        load(lake, settings, declare(tmp_path, orders, head="timezone: Europe/Berlin"), files)
        assert [row["ordered_at"] for row in landed(lake)] == [datetime(2026, 1, 5, 23, 30)]
        assert _reasons(lake) == [(2, "ordered_at", "not a time", "soon")]


@pytest.mark.parametrize(
    "column",
    [
        "at",
        "local_time(at)",
        "utc_time(at)",
        "local_time(at, '%Y-%m-%d %H:%M:%S %z')",
        "utc_time(at, '%Y-%m-%d %H:%M:%S %z')",
    ],
)
def test_a_time_with_an_offset_is_that_instant_however_it_is_mapped(lake, settings, tmp_path, column):
    orders = f"""
    orders:
      files: orders.csv
      columns: {{order_id: order_id, ordered_at: "{column}", total_cents: cents(total)}}
    """
    times = ["2026-01-05 23:30:00 -0500"]
    if "%z" not in column:
        times = [
            "2026-01-05T23:30:00-05:00",
            "2026-01-06 04:30:00+00",
            "2026-01-06T04:30:00Z",
            "2026-01-06 04:30:00 UTC",
        ]
    text = "order_id,at,total\n" + "".join(f"{n},{time},1\n" for n, time in enumerate(times))
    load(lake, settings, declare(tmp_path, orders, head="timezone: Europe/Berlin"), put(tmp_path, orders=text))
    assert [row["ordered_at"] for row in landed(lake)] == [datetime(2026, 1, 6, 4, 30)] * len(times)


def test_an_amount_of_any_size_stops_no_load(lake, settings, shop, tmp_path):
    amounts = ["4006381333931", "40063813339", "-0.005", "1e300", "999999999999.995"]
    rows = (f"{n},2026-01-05,c1,,{amount}" for n, amount in enumerate(amounts, start=1))
    load(lake, settings, shop, put(tmp_path, orders=_orders(*rows)))
    assert [row["total_cents"] for row in landed(lake)] == [4_006_381_333_900, 100_000_000_000_000]
    assert _reasons(lake) == [
        (1, "total_cents", "not an amount of money", "4006381333931"),
        (3, "total_cents", "is negative", "-1"),
        (4, "total_cents", "not an amount of money", "1e300"),
    ]


def test_words_that_a_column_does_not_know_and_negative_totals_are_quarantined(lake, settings, tmp_path):
    consents = "consents:\n  files: c.csv\n  columns: {shop_customer_id: id, channel: ch, state: \"'opted_in'\", changed_at: at}"
    source = declare(tmp_path, ORDERS, LINES, consents)
    lines = (
        "order_id,line,ordered_at,kind,quantity,amount\n1,1,2026-01-05,product,-2,-4\n1,2,2026-01-05,discount,1,-1\n"
    )
    files = put(tmp_path, orders=_orders("1,2026-01-05,c,,-1"), lines=lines, c="id,ch,at\n1,fax,2026-01-05\n")
    load(lake, settings, source, files)
    assert _reasons(lake) == [(1, "total_cents", "is negative", "-100")]
    assert _reasons(lake, "order_lines") == [(1, "quantity", "is negative", "-2")]
    assert _reasons(lake, "consents") == [(1, "channel", "not one of email, sms, push", "fax")]


def test_rows_left_out_and_folded_are_counted_and_bad_ones_are_not_summed(lake, settings, tmp_path):
    grouped = """
    orders:
      files: orders.csv
      where: kind <> 'draft'
      group_by: [order_id]
      columns: {order_id: order_id, ordered_at: min(local_time(at)), total_cents: sum(cents(amount))}
    """
    text = "order_id,at,amount,kind\na,2026-01-05,1.10,x\na,2026-01-05,2.20,x\na,2026-01-05,?,x\n"
    text += "b,2026-01-05,5,draft\nc,2026-01-06,7,x\n"
    report = load(lake, settings, declare(tmp_path, grouped), put(tmp_path, orders=text))
    assert [(row["order_id"], row["total_cents"], row["source_row"]) for row in landed(lake)] == [
        ("a", 330, 1),
        ("c", 700, 5),
    ]
    assert _reasons(lake) == [(3, "total_cents", "not an amount of money", "?")]
    [file] = report.files
    assert (file.read, file.landed, file.quarantined, file.excluded, file.folded) == (5, 2, 1, 1, 1)


def test_loading_an_unchanged_file_again_changes_nothing(lake, settings, shop, tmp_path):
    path = put(tmp_path, orders=_orders("1,2026-01-05,c1,,1"))
    load(lake, settings, shop, path)
    before = {file: file.stat().st_mtime_ns for file in landing_root(lake).rglob("*.*")}
    again = load(lake, settings, shop, path)
    assert {file: file.stat().st_mtime_ns for file in landing_root(lake).rglob("*.*")} == before
    assert (again.days, again.files[0].unchanged, again.total("landed")) == ([], True, 1)


def test_a_changed_file_of_the_same_name_replaces_what_it_landed(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders=_orders("1,2026-01-05,c1,,1", "2,2026-01-06,c1,,1")))
    report = load(
        lake,
        settings,
        shop,
        put(tmp_path, orders=_orders("1,2026-01-05,c1,,1", "2,2026-01-06,c1,,2", "3,2026-01-04,c1,,1")),
    )
    assert [(row["order_id"], row["total_cents"]) for row in landed(lake)] == [("1", 100), ("2", 200), ("3", 100)]
    assert touched_days(report) == [date(2026, 1, 4), date(2026, 1, 6)]


def test_a_refresh_picks_up_new_and_changed_files_and_survives_a_missing_folder(lake, settings, shop, tmp_path):
    path = put(tmp_path, orders_1=_orders("1,2026-01-05,c1,,1"))
    load(lake, settings, shop, path)
    assert refresh_landing(lake, [shop], settings, TODAY) == []
    put(tmp_path, orders_2=_orders("2,2026-01-06,c1,,1"))
    [report] = refresh_landing(lake, [shop], settings, TODAY)
    assert touched_days(report) == [date(2026, 1, 6)]
    path.rename(tmp_path / "moved")
    assert refresh_landing(lake, [shop], settings, TODAY) == []
    assert len(landed(lake)) == 2


def test_a_changed_mapping_lands_the_file_again(lake, settings, shop, tmp_path):
    load(lake, settings, shop, put(tmp_path, orders=_orders("1,2026-01-05,c1,,1")))
    whole_euros = declare(tmp_path, ORDERS.replace("cents(total)", "whole(total)"))
    assert len(refresh_landing(lake, [whole_euros], settings, TODAY)) == 1
    assert landed(lake)[0]["total_cents"] == 1


def test_rows_of_the_program_are_landed_once_per_name(lake, settings):
    row = {"event_id": ["a"], "happened_at": [datetime(2026, 1, 5, 9)], "type": ["sent"], "channel": ["email"]}
    for _ in range(2):
        land_rows(lake, "outbox", tables.MESSAGE_EVENTS, "welcome-2026-01-04", pa.table(row), settings)
    [landed_row] = landed(lake, "message_events")
    assert (landed_row["source"], landed_row["source_row"], landed_row["day"]) == ("outbox", 1, date(2026, 1, 5))
    assert landed_days(lake) is None, "what we sent ourselves is no data of the shop"
