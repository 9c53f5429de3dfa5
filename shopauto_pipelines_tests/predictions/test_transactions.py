"""A stranger's transaction file: whatever its dialect, names, times and amounts, the same purchases come out of it."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from shopauto_pipelines.predictions.transactions.columns import Columns
from shopauto_pipelines.predictions.transactions.files import TransactionsError
from shopauto_pipelines.predictions.transactions.reading import TRANSACTIONS, read

TODAY = date(2026, 6, 30)
#: What every well-written file of three purchases says.
PURCHASES = [("7", date(2026, 1, 31), 1_250), ("8", date(2026, 2, 3), 123_456), ("8", date(2026, 3, 4), 99)]


@pytest.fixture
def written(tmp_path):
    """Writes a file and returns its path."""

    def write(content: str | bytes | pa.Table, name: str = "orders.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def purchases(path, columns=None, as_of=None, **more):
    found = read(path, columns, as_of, today=TODAY, **more)
    assert found.transactions.schema == TRANSACTIONS
    assert found.rows == found.kept + sum(found.set_aside.values())
    return [tuple(row.values()) for row in found.transactions.to_pylist()]


COMMA = "customer_id,order_date,amount\n7,2026-01-31,12.50\n8,2026-02-03,1234.56\n8,2026-03-04,0.99\n"


@pytest.mark.parametrize(
    "content",
    [
        COMMA.replace(",", "\t"),
        COMMA.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + COMMA.encode(),
        COMMA.encode("utf-16"),
        '"Customer ID","Invoice Date","Total"\n"7","2026-01-31","12.50"\n"8","2026-02-03","1,234.56"\n"8","2026-03-04","$0.99"\n',
        "Kunde;client_id;Timestamp;Revenue\nÄnne;7;2026-01-31 23:59;12,50 €\nBö;8;2026-02-03 00:00;1.234,56 €\n"
        "Bö;8;2026-03-04 1:02;0,99 €\n",
        "user_id,created_at,total_price\n7,2026-01-31 19:00:00 -0500,12.5\n8.0,2026-02-03T00:00:00Z,1234.56\n"
        "8,2026-03-04T23:00:00+09:00,.99\n".replace("2026-01-31 19", "2026-01-31 18"),
        "email,date,spend\n7,31/01/2026,12.50\n8,03/02/2026 10:00,1234.56\n8,4/3/2026 23:59:59,0.99\n",
        "email,date,spend\n7,1/31/26 8:26 PM,12.50\n8,2/3/26 8:26 AM,1234.56\n8,03/04/26,0.99\n",
        "cust,date,sales\n7,31.01.2026,12.50\n8,03.02.2026,1234.56\n8,04.03.2026,.99\n",
        "cust,date,sales\n7,20260131,12.50\n8,20260203,1234.56\n8,20260304,0.99\n",
        "cust,timestamp,sales\n7,1769846400,12.50\n8,1770076800,1234.56\n8,1772582400,0.99\n",
        "cust,timestamp,sales\n7,1769846400000,12.50\n8,1770076800000,1234.56\n8,1772582400000,0.99\n",
        'cust,day,sales\n7,31-Jan-2026,12.50\n8,"February 3, 2026",1234.56\n8,4 Mar 2026 08:26,0.99\n',
        "member,date,qty,unit price\n7,2026-01-31,2,6.25\n8,2026-02-03,1,1234.56\n8,2026-03-04,3,0.33\n",
    ],
)
def test_the_same_purchases_are_read_from_any_way_of_writing_them(written, content):
    assert purchases(written(content)) == PURCHASES


def test_parquet_with_numbers_zones_and_floats_for_ids_is_read(written):
    table = pa.table(
        {
            "CustomerID": [7.0, 8.0, 8.0, None],
            "InvoiceDate": pa.array([datetime(2026, m, d, tzinfo=UTC) for m, d in ((1, 31), (2, 3), (3, 4), (3, 5))]),
            "amount": [12.5, 1234.56, 0.99, 5.0],
        }
    )
    assert purchases(written(table, "a.parquet")) == PURCHASES
    found = read(written(table, "a.data"), today=TODAY)  # what a file is, is not said by its name
    assert found.set_aside == {"no customer": 1}
    assert found.guessed == ("customer", "time", "amount")


def test_compressed_files_folders_and_patterns_are_read_as_one(written, tmp_path):
    header, *lines = COMMA.splitlines(keepends=True)
    written(gzip.compress((header + lines[0]).encode()), "parts/a.csv.gz")
    written("order_date;amount;customer_id\n2026-02-03;1234,56;8\n".replace(",", "."), "parts/b.csv")
    written(header + lines[2], "parts/[c].csv")
    written("not, a table", "parts/.hidden.csv")
    assert purchases(tmp_path / "parts") == PURCHASES
    assert purchases(str(tmp_path / "parts" / "*.csv")) == PURCHASES[1:]
    assert purchases(tmp_path / "parts" / "[c].csv") == PURCHASES[2:]


def test_a_file_that_is_not_utf_8_is_read_whole_and_it_is_said(written):
    lines = [f"c{n},2026-01-{n % 28 + 1:02},1,ok\n" for n in range(30_000)]
    path = written(b"customer,date,amount,note\n" + "".join([*lines, "é,2026-01-01,1,5 £\n"]).encode("latin-1"))
    found = read(path, today=TODAY)
    assert (found.rows, found.kept, found.customers) == (30_001, 30_001, 30_001)
    assert any("latin-1" in note for note in found.notes)
    assert "é" in found.transactions["customer_id"].to_pylist()


def test_several_rows_of_a_customer_on_a_day_are_one_purchase(written):
    path = written(COMMA + "8,2026-02-03,1\n08,2026-02-03,1\n 8 ,2026-02-03 ,2\n")
    assert purchases(path) == [
        ("08", date(2026, 2, 3), 100),
        PURCHASES[0],
        ("8", date(2026, 2, 3), 123_756),
        PURCHASES[2],
    ]


def test_each_row_that_cannot_be_used_is_counted_under_its_reason(written):
    bad = [
        ",2026-01-01,5", "nan,2026-01-01,5", "9,,5", "9,soon,5", "9,1900-01-01,5", "9,2026-01-01,", "9,2026-01-01,twelve",
        "9,2026-01-01,0", "9,2026-01-01,-5", "9,2026-01-01,(5.00)", "9,2026-05-05,5", "9,2026-01-01,5,6,7", "9,2026-01-01,inf",
    ]  # fmt: skip
    found = read(written(COMMA + "\n".join(bad) + "\n"), as_of=date(2026, 3, 31), today=TODAY)
    assert found.set_aside == {
        "later than the day asked for": 1,
        "no customer": 2,
        "no time": 1,
        "time cannot be read": 1,
        "time before 1971: a placeholder": 1,
        "no amount": 1,
        "amount is not a number": 2,
        "amount not above zero": 3,
        "broken line": 1,
    }
    assert found.rows == 3 + len(bad)
    assert found.examples["time cannot be read"] == "soon"
    assert (found.as_of, found.last_day) == (date(2026, 3, 31), date(2026, 3, 4))


def test_lines_that_an_open_quote_swallows_are_pointed_out(written):
    found = read(written(COMMA + '7,"2026-03-05,1\n' + "7,2026-03-05,1\n" * 9), today=TODAY)
    assert (found.kept, found.set_aside) == (3, {"broken line": 1})
    assert found.notes == ("a quote in line 5 is never closed: up to 9 lines after it are lost; mend it",)
    found = read(
        written('customer,date,amount,text\n7,2026-01-31,5,"12" plate"\n8,2026-01-31,5,6" plate\n'), today=TODAY
    )
    assert (found.rows, found.notes) == (2, ())


def test_the_day_is_by_default_the_last_one_there_but_never_one_that_has_not_come(written):
    found = read(written(COMMA + "7,2062-01-31,5\n"), today=TODAY)
    assert found.as_of == date(2026, 3, 4)
    assert found.set_aside == {"later than the day asked for": 1}


def test_rows_can_be_chosen_by_a_condition_on_any_column(written):
    path = written(
        "Customer,Date,Order Total,Financial Status\n7,2026-01-31,12.5,paid\n7,2026-02-01,5,voided\n7,2026-02-02,5,\n"
    )
    assert purchases(path, where="\"Financial Status\" = 'paid'") == PURCHASES[:1]
    assert purchases(path, where="order_total > 9 and customer in (7, 8)") == PURCHASES[:1]
    assert read(path, where="financial_status = 'paid'", today=TODAY).set_aside == {"left out by --where": 2}
    for wrong, said in (
        ("state = 'paid'", "no column `state`"),
        ("a; drop table x", "--where"),
        ("Date > 5 +", "not valid SQL"),
    ):
        with pytest.raises(TransactionsError, match=said):
            read(path, where=wrong, today=TODAY)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("id,order_date,amount", "who bought: give --customer COLUMN. The file has `id`, `order_date`, `amount`"),
        (
            "customer_id,customer_unique_id,date,amount",
            "either `customer_id` or `customer_unique_id` could say who bought",
        ),
        ("customer_id,when,amount", "says when: give --time"),
        ("customer_id,date,items", "for how much: give --amount COLUMN; or --quantity and --price"),
        ("customer_id,date,total_amount,net_amount", "either `total_amount` or `net_amount`"),
        ("customer_id,date,amount,sales_price", "either `amount` or `sales_price`"),
    ],
)
def test_what_cannot_be_guessed_is_asked_with_the_columns_and_the_option(written, header, said):
    values = {"date": "2026-01-01", "order_date": "2026-01-01", "when": "noon"}
    row = ",".join(values.get(name, "1") for name in header.split(","))
    with pytest.raises(TransactionsError, match=r"orders\.csv") as error:
        read(written(f"{header}\n{row}\n{row}\n"), today=TODAY)
    assert said in str(error.value)


def test_columns_are_named_as_they_are_or_nearly(written):
    path = written("id,When,Sum Paid\n7,2026-01-31,12.50\n")
    assert purchases(path, Columns("id", "when", "sum_paid")) == PURCHASES[:1]
    with pytest.raises(TransactionsError, match="--amount: there is no column `sum payed`; did you mean `Sum Paid`"):
        read(path, Columns("id", "when", "sum payed"), today=TODAY)
    with pytest.raises(TransactionsError, match="not both"):
        read(path, Columns("id", "when", "sum paid", "id", "id"), today=TODAY)
    with pytest.raises(TransactionsError, match="go together"):
        read(path, Columns("id", "when", price="sum paid"), today=TODAY)


def test_a_date_that_can_be_read_two_ways_is_asked_about_and_never_guessed(written):
    path = written("customer,date,amount\n7,01/02/2026,5\n8,03/04/2026,5\n")
    with pytest.raises(TransactionsError, match=r"day/month or month/day.*--time-format"):
        read(path, today=TODAY)
    assert purchases(path, time_format="%m/%d/%Y")[0] == ("7", date(2026, 1, 2), 500)
    assert purchases(path, time_format="%d/%m/%Y")[0] == ("7", date(2026, 2, 1), 500)


def test_one_late_row_tells_how_all_dates_are_written(written):
    rows = "7,01/02/2026,5\n" * 25_000
    assert purchases(written(f"customer,date,amount\n{rows}8,31/03/2026,5\n"))[0][1] == date(2026, 2, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"customer,date,amount\n", "no rows"),
        (b"customer\n1\n2\n", "only one column"),
        (bytes(range(256)) * 50, "neither text nor Parquet"),
        (b"PK\x03\x04" + b"\0" * 99, "Excel"),
        (b'[{"customer": 1}]', "JSON"),
        (b"PAR1" + b"x" * 99, "cannot be read"),
        (gzip.compress(COMMA.encode() * 9, mtime=0)[:-30], "orders.csv"),
        (b"customer,date,amount\n1,yesterday,5\n1,today,5\n", "time"),
    ],
)
def test_a_file_without_purchases_is_refused_with_a_reason(written, content, said):
    with pytest.raises(TransactionsError, match=said):
        read(written(content), Columns("customer", "date", "amount"), today=TODAY)


def test_a_file_that_is_not_there_and_a_day_before_all_rows_are_told(written, tmp_path):
    with pytest.raises(TransactionsError, match="no such file"):
        read(tmp_path / "none.csv", today=TODAY)
    with pytest.raises(TransactionsError, match="no CSV"):
        read(tmp_path, today=TODAY)
    with pytest.raises(TransactionsError, match="first purchase in the file is of 2026-01-31, after 2026-01-30"):
        read(written(COMMA), as_of=date(2026, 1, 30), today=TODAY)


def test_nothing_that_stands_after_the_day_changes_what_is_read(written):
    before = purchases(written(COMMA), as_of=date(2026, 3, 4))
    assert before == purchases(written(COMMA + "8,2026-03-05,77\n9,2026-04-01,1\n"), as_of=date(2026, 3, 4))


def test_a_customer_with_far_too_many_rows_is_pointed_out(written):
    rows = [f"c{n},2026-01-{n % 28 + 1:02},1" for n in range(500)] + [
        f"guest,2026-01-{n % 28 + 1:02},1" for n in range(100)
    ]
    found = read(written("customer,date,amount\n" + "\n".join(rows)), today=TODAY)
    assert "one customer has 17% of all rows" in found.notes[0]


def test_any_number_of_threads_reads_the_same_bytes(written, tmp_path):
    rows = {
        "customer": [n % 977 for n in range(50_000)],
        "date": ["2026-01-01"] * 50_000,
        "amount": [n / 7 for n in range(50_000)],
    }
    pa_csv.write_csv(pa.table(rows), tmp_path / "many.csv")
    one, four = (read(tmp_path / "many.csv", today=TODAY, threads=n).transactions for n in (1, 4))
    assert one.equals(four)
