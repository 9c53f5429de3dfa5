"""Any shop's plain transaction file, CSV or Parquet, → one row per customer and day: what forecasts are made from.

Which column means what is guessed from usual names and from what stands in them, or told. DuckDB reads the files in one
pass and adds up; only the sums, one row per customer and day, come into memory. A row that cannot be used is never lost:
it is counted under its reason. What forecasts are, is not known here.
"""

from __future__ import annotations

import csv
import gzip
import re
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import date
from glob import glob
from io import BufferedReader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import duckdb
import pyarrow as pa

from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.progress import report
from shopauto_pipelines.sources.expressions import ExpressionError, nearest, parse, plain

#: Earlier times are placeholders (the epoch, 1900-01-01), not purchases.
EARLIEST = date(1971, 1, 1)

#: What :func:`read` returns: ``cents`` is the sum of the customer's purchases of the day in hundredths, above zero.
SCHEMA = pa.schema([("customer_id", pa.string()), ("day", pa.date32()), ("cents", pa.int64())])

LATER = "later than the day asked for"
#: Reasons for which a row is set aside, in the order in which they are asked.
REASONS = (
    "left out by --where",
    LATER,
    "no customer",
    "no time",
    "time cannot be read",
    f"time before {EARLIEST.year}: a placeholder",
    "no amount",
    "amount is not a number",
    "amount not above zero",
)
BROKEN = "broken line"

#: Usual names, in plain form (no case, spaces, underscores, dashes); an earlier group is preferred to a later one, and
#: two columns of one group are ambiguous.
_CUSTOMER = (
    "customerid customeruniqueid customerno customernumber customernr customerkey customercode customerref custid custno "
    "shopcustomerid",
    "customer cust",
    "userid clientid memberid buyerid shopperid consumerid householdid householdkey accountid contactid cardid",
    "user client member buyer shopper consumer household account",
    "customeremail useremail clientemail buyeremail emailaddress email",
)
_TIME = (
    "invoicedate orderdate purchasedate transactiondate transdate txndate trandate saledate salesdate orderedat orderedon "
    "purchasedat orderpurchasetimestamp ordertimestamp purchasetimestamp transactiontimestamp orderdatetime "
    "invoicedatetime transactiondatetime purchasedatetime ordertime purchasetime transactiontime invoicetime",
    "date datetime timestamp",
    "createdat created createdon creationdate datecreated placedat",
    "paidat processedat completedat time day ts eventtime",
)
_AMOUNT = (
    "amount totalamount orderamount ordertotal grandtotal ordervalue purchaseamount transactionamount salesamount "
    "saleamount salesvalue invoiceamount invoicetotal netamount grossamount amountpaid totalpaid linetotal lineamount "
    "linerevenue totalcents amountcents totalprice transactionvalue purchasevalue amountspent totalsales totalspent "
    "total revenue sales spend spent spending turnover netsales netrevenue grossrevenue",
    "value paymentvalue monetaryvalue monetary subtotal",
)
_QUANTITY = ("quantity qty quantityordered orderquantity itemquantity units numberofitems", "lineitemquantity")
_PRICE = ("unitprice price itemprice priceperunit priceeach salesprice saleprice", "lineitemprice")

_NO_VALUE = "('', 'nan', 'null', 'none', 'n/a', '<na>', 'nat', '\\n')"
_SAMPLE = 20_000
_DATA = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")

#: A number among at most a currency (sign, or up to three letters), thousand marks, a sign or brackets around it.
_CURRENCY = r"(?:\p{L}{1,3}\.?)?(?:\p{Sc}|\x{80})?"
_MONEY = rf"[(+\-−]?\s*{_CURRENCY}\s*[+\-−]?\s*\d[\d.,'’ \x{{a0}}\x{{202f}}]*{_CURRENCY}\s*[)\-−]?"
#: Two numbers and a year, with or without a time of day.
_PARTS = r"(\d{1,2})([/.\-])(\d{1,2})[/.\-](\d{2}|\d{4})(?:[ T,]+\d{1,2}:.*)?"


class TransactionsError(ShopAutoError):
    """A transaction file cannot be used; the text says why, and which option helps."""


@dataclass(frozen=True)
class Columns:
    """Which column of the file means what; ``None``: to be guessed.

    The amount is in major units (12.5 for 12 euros 50), in one column or as ``quantity`` × ``price``.
    """

    customer: str | None = None
    time: str | None = None
    amount: str | None = None
    quantity: str | None = None
    price: str | None = None

    def __str__(self) -> str:
        amount = f"amount = `{self.amount}`" if self.amount else f"amount = `{self.quantity}` × `{self.price}`"
        return f"customer = `{self.customer}`, time = `{self.time}`, {amount}"


@dataclass(frozen=True)
class Read:
    """What was read.

    ``transactions`` is of :data:`SCHEMA`, one row per customer and day up to ``as_of``, in this order. ``rows`` of the
    file = ``kept`` + the sum of ``set_aside`` (reason → rows). ``examples`` has a time or an amount that could not be read,
    by reason. ``guessed`` are the roles whose columns nobody had named.
    """

    transactions: pa.Table
    columns: Columns
    guessed: tuple[str, ...]
    as_of: date
    first_day: date
    last_day: date
    customers: int
    rows: int
    kept: int
    set_aside: Mapping[str, int]
    examples: Mapping[str, str]
    notes: tuple[str, ...]


def read(
    path: str | Path,
    columns: Columns | None = None,
    as_of: date | None = None,
    *,
    today: date | None = None,
    time_format: str | None = None,
    where: str | None = None,
    threads: int | None = None,
    memory: str | None = None,
) -> Read:
    """Read a file, a folder or a glob of CSV (``.csv``, ``.tsv``, ``.txt``, also ``.gz``) or Parquet files.

    ``as_of``: nothing later is used; by default the last day in the file that is not after ``today``. Times with an offset
    are taken to UTC, others as they are; also read are YYYYMMDD, seconds and milliseconds since 1970, and ``time_format``
    (``strptime``'s). ``where``: an SQL condition on the file's columns; other rows are left out. ``threads`` and ``memory``
    bound the engine. Raises :class:`TransactionsError`.
    """
    with TemporaryDirectory(prefix="transactions-") as folder:
        config: dict[str, Any] = {"temp_directory": folder}
        config |= {"threads": str(threads)} if threads else {}
        config |= {"memory_limit": memory} if memory else {}
        with duckdb.connect(config=config) as con:
            con.execute("set TimeZone = 'UTC'")
            con.execute("set enable_progress_bar = false")
            try:
                return _Reading(con, _File.found(con, path), time_format, where).read(
                    columns or Columns(), as_of, today
                )
            except duckdb.Error as error:
                raise TransactionsError(f"{path}: cannot be read: {_first_line(error)}") from None


@dataclass(frozen=True)
class _Dialect:
    """How a CSV file is written, and the names of its columns."""

    delimiter: str
    quote: str
    escape: str
    comment: str
    skip: int
    header: bool
    names: tuple[str, ...]
    encoding: str

    def reader(self, files: Sequence[Path]) -> str:
        """SQL that reads such files as text, and keeps count of the lines that do not fit."""
        columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in self.names)
        return (
            f"read_csv({_listed(files)}, auto_detect = false, delim = {_text(self.delimiter)}, quote = {_text(self.quote)}, "
            f"escape = {_text(self.escape)}, comment = {_text(self.comment)}, skip = {self.skip}, "
            f"header = {str(self.header).lower()}, store_rejects = true, encoding = {_text(self.encoding)}, "
            f"columns = {{{columns}}})"
        )


@dataclass(frozen=True)
class _File:
    """The files as one table. ``types`` are those of the columns that all files have, for CSV as the sniffer sees them.

    ``parts``: CSV files by how they are written; none where the files are Parquet.
    """

    shown: str
    files: tuple[Path, ...]
    types: Mapping[str, str]
    parts: Mapping[_Dialect, tuple[Path, ...]]

    @classmethod
    def found(cls, con: duckdb.DuckDBPyConnection, path: str | Path) -> _File:
        """The files at a path; raises :class:`TransactionsError` where there are none, or not tables."""
        files = tuple(_files(path))
        kinds = {_kind(file) for file in files}
        if len(kinds) > 1:
            raise TransactionsError(f"{path}: holds CSV and Parquet files; say which, e.g. '{path}/*.csv'")
        if kinds == {"parquet"}:
            made = cls(str(path), files, {}, {})
            described = con.execute(f"describe select * from {made.relation}").fetchall()
            return replace(made, types={name: kind for name, kind, *_ in described})
        parts: dict[_Dialect, tuple[Path, ...]] = {}
        types: dict[str, str] = {}
        for file in files:
            dialect, found = _dialect(con, file)
            types = {name: kind for name, kind in types.items() if name in found} if parts else found
            parts[dialect] = (*parts.get(dialect, ()), file)
        if not types:
            raise TransactionsError(f"{path}: the files have no column in common; give one of them, or a pattern")
        return cls(str(path), files, types, parts)

    @property
    def relation(self) -> str:
        """SQL of all rows, to select from; the values of CSV files are text."""
        if not self.parts:
            return f"read_parquet({_listed(self.files)}, union_by_name = true, binary_as_string = true)"
        columns = ", ".join(map(_quoted, self.types))
        readers = (f"select {columns} from {dialect.reader(files)}" for dialect, files in self.parts.items())
        return f"({' union all '.join(readers)})"

    @property
    def values(self) -> str:
        """SQL of all rows: text is trimmed, and null where it says that there is none."""
        text = {name for name in self.types if self.type(name) == "VARCHAR"}
        trimmed, said = [], []
        for name in self.types:
            column = _quoted(name)
            trimmed.append(f"trim({column}) as {column}" if name in text else column)
            none = f"case when length({column}) > 4 or lower({column}) not in {_NO_VALUE} then {column} end as {column}"
            said.append(none if name in text else column)
        return f"(select {', '.join(said)} from (select {', '.join(trimmed)} from {self.relation}))"

    @property
    def encodings(self) -> set[str]:
        """What CSV files are read as."""
        return {dialect.encoding for dialect in self.parts}

    def as_latin_1(self) -> _File:
        """The same files, where what was taken for UTF-8 is not."""
        parts = {replace(d, encoding="latin-1") if d.encoding == "utf-8" else d: f for d, f in self.parts.items()}
        return replace(self, parts=parts)

    def type(self, column: str) -> str:
        """The type in which the engine sees a column."""
        return "VARCHAR" if self.parts else self.types[column]

    def listed(self) -> str:
        """The columns, for an error."""
        return "The file has " + ", ".join(f"`{name}`" for name in self.types) + "."


@dataclass
class _Reading:
    """One reading of one file."""

    con: duckdb.DuckDBPyConnection
    file: _File
    time_format: str | None
    where: str | None
    notes: list[str] = field(default_factory=list)
    scans: int = -1

    def read(self, asked: Columns, as_of: date | None, today: date | None) -> Read:
        self._sample()
        chosen, guessed = self._choose(asked)
        latest = as_of or today or date.max
        self._add_up(chosen, latest)
        broken, not_utf8 = self._broken()
        if not_utf8 and "utf-8" in self.file.encodings:
            self.file = self.file.as_latin_1()
            self._add_up(chosen, latest)
            broken, _ = self._broken()
        if other := self.file.encodings - {"utf-8"}:
            self.notes.append(f"the file is not UTF-8; it was read as {' and '.join(sorted(other))}")
        return self._result(chosen, guessed, as_of, latest, broken)

    def _sample(self) -> None:
        self.con.execute("set preserve_insertion_order = true")  # the first rows, whatever the number of threads
        self.con.execute(f"create or replace temp table sample as from {self.file.values} limit {_SAMPLE}")
        self.con.execute("set preserve_insertion_order = false")
        if not self._one("select count(*) from sample"):
            lost = self._swallowed(0) or f"there are no rows. {self.file.listed()}"
            raise TransactionsError(f"{self.file.shown}: {lost}")

    # --- which column means what

    def _choose(self, asked: Columns) -> tuple[Columns, tuple[str, ...]]:
        given = Columns(**{f.name: self._named(f.name, getattr(asked, f.name)) for f in fields(Columns)})
        if given.amount and (given.quantity or given.price):
            raise TransactionsError("give --amount, or --quantity and --price, not both")
        if bool(given.quantity) != bool(given.price):
            raise TransactionsError("--quantity and --price go together: the amount is one times the other")
        guessed = []
        customer, time = given.customer, given.time
        if not customer:
            guessed.append("customer")
            customer = self._guess("customer", _CUSTOMER, lambda name: True)
        if not time:
            guessed.append("time")
            time = self._guess("time", _TIME, self._is_time, fallback=self._only_dates())
        chosen = replace(given, customer=customer, time=time)
        if not (given.amount or given.price):
            guessed.append("amount")
            chosen = self._guess_amount(chosen)
        return chosen, tuple(guessed)

    def _named(self, role: str, name: str | None) -> str | None:
        if name is None:
            return None
        exact = [column for column in self.file.types if column == name]
        alike = exact or [column for column in self.file.types if plain(column) == plain(name)]
        if len(alike) != 1:
            hint = nearest(name, list(self.file.types))
            more = f" {self.file.listed()}" if hint.endswith("?") else ""  # else it lists them all
            raise TransactionsError(f"--{role}: there is no column `{name}`; {hint}{more}")
        return alike[0]

    def _guess(
        self, role: str, groups: Sequence[str], fits: Callable[[str], bool], fallback: Sequence[str] = ()
    ) -> str:
        found = self._candidates(groups, fits) or list(fallback)
        if len(found) == 1:
            return found[0]
        which = (
            "no column's name says" if not found else "either " + " or ".join(f"`{n}`" for n in found) + " could say"
        )
        what = {"customer": "who bought", "time": "when", "amount": "for how much"}[role]
        more = "; or --quantity and --price" if role == "amount" else ""
        raise TransactionsError(f"{self.file.shown}: {which} {what}: give --{role} COLUMN{more}. {self.file.listed()}")

    def _candidates(self, groups: Sequence[str], fits: Callable[[str], bool]) -> list[str]:
        """The columns of the first group with one whose values fit."""
        for group in groups:
            if found := [name for name in self.file.types if plain(name) in group.split() and fits(name)]:
                return found
        return []

    def _guess_amount(self, chosen: Columns) -> Columns:
        quantity, price = (self._candidates(names, self._is_number) for names in (_QUANTITY, _PRICE))
        found = self._candidates(_AMOUNT, self._is_number)
        if [plain(name) for name in found] == ["amount"] and price and not quantity:
            found += price  # beside a price, an `amount` may be a count
        if found:
            return replace(chosen, amount=self._guess("amount", (" ".join(map(plain, found)),), self._is_number))
        if len(quantity) == 1 and len(price) == 1:
            return replace(chosen, quantity=quantity[0], price=price[0])
        if len(price) == 1 and not quantity:
            return replace(chosen, amount=price[0])
        return replace(chosen, amount=self._guess("amount", (), self._is_number))

    def _only_dates(self) -> list[str]:
        return [name for name, kind in self.file.types.items() if kind.startswith(("DATE", "TIMESTAMP"))]

    def _is_time(self, name: str) -> bool:
        if self.time_format is None and self.file.type(name) == "VARCHAR" and self._order_of_parts(name) == "unclear":
            return True  # a date it is; which one is asked later
        return self._share(f"{self._time(name)} >= timestamp '{EARLIEST}'", name) >= 0.5

    def _is_number(self, name: str) -> bool:
        return self._share(f"({self._number(name)}) is not null", name) >= 0.5

    def _share(self, condition: str, name: str) -> float:
        """Share of the sample's values for which a condition holds."""
        value = _quoted(name)
        counted = f"select count(*) filter (where {value} is not null), count(*) filter (where {condition}) from sample"
        try:
            there, right = self.con.execute(counted).fetchall()[0]
        except duckdb.Error:
            return 0.0  # not a type that could be cast
        return right / there if there else 0.0

    # --- what stands in the columns

    def _customer(self, name: str) -> str:
        """SQL of the id as text; whole numbers lose the `.0` that spreadsheets and pandas add."""
        value, kind = _quoted(name), self.file.type(name)
        if kind in _WHOLE:
            return f"cast({value} as varchar)"
        text = f"cast({value} as varchar)"
        if kind in ("DOUBLE", "FLOAT"):
            whole = (
                f"when abs({value}) < 9e15 and {value} = floor({value}) then cast(cast({value} as bigint) as varchar)"
            )
            return f"case {whole} when not isnan({value}) then {text} end"
        whole = (
            f"when suffix({text}, '0') and contains({text}, '.') then regexp_replace({text}, '^(-?\\d+)\\.0+$', '\\1')"
        )
        return f"case {whole} else {text} end"

    def _number(self, name: str) -> str:
        """SQL of a number (double); null where there is none or it is something else."""
        value = _quoted(name)
        if self.file.type(name) != "VARCHAR":
            return f"try_cast({value} as double)"
        digits = f"regexp_extract({value}, '\\d[\\d.,''’ \\x{{a0}}\\x{{202f}}]*')"
        fast = f"try_cast({value} as double), "
        if self._decimal_comma(name):
            cleaned, fast = f"replace(regexp_replace({digits}, '[^\\d,]', '', 'g'), ',', '.')", ""
        else:
            cleaned = f"regexp_replace({digits}, '[^\\d.]', '', 'g')"
        sign = f"case when regexp_matches({value}, '[(\\-−]') then -1 else 1 end"
        money = f"case when regexp_full_match({value}, {_text(_MONEY)}) then {sign} * try_cast({cleaned} as double) end"
        return f"coalesce({fast}{money})"

    def _decimal_comma(self, name: str) -> bool:
        """Whether a comma separates the decimals, by what stands in the sample."""
        value = _quoted(name)
        ends = [
            self._one(f"select count(*) from sample where regexp_matches({value}, '{mark}\\d{{1,2}}\\D*$')")
            for mark in (",", "\\.")
        ]
        return ends[0] > ends[1]

    def _amount(self, chosen: Columns) -> str:
        """SQL of the amount in major units (double)."""
        if chosen.amount:
            return self._number(chosen.amount)
        return f"{self._number(str(chosen.quantity))} * {self._number(str(chosen.price))}"

    def _time(self, name: str) -> str:
        """SQL of the time, a timestamp in UTC; null where it cannot be read."""
        value, kind = _quoted(name), self.file.type(name)
        if kind == "TIMESTAMP WITH TIME ZONE":
            return f"timezone('UTC', {value})"
        if kind.startswith(("DATE", "TIMESTAMP")):
            return f"cast({value} as timestamp)"
        if self.time_format:
            return f"timezone('UTC', cast(try_strptime(cast({value} as varchar), {_text(self.time_format)}) as timestamptz))"
        number = _time_of_number(f"try_cast({value} as double)")
        if kind != "VARCHAR":
            return number
        if self._share(f"try_cast({value} as double) is not null", name) >= 0.5:
            return number
        order = self._order_of_parts(name)
        if order == "unclear":
            raise TransactionsError(
                f"{self.file.shown}: `{name}` can be day/month or month/day, no value tells which: "
                "give --time-format '%d/%m/%Y' or '%m/%d/%Y' (with %H:%M where there is a time)"
            )
        # a cast that heeds offsets costs eight times as much: most values are too short for one
        short = f"length({value}) <= 16 or (length({value}) = 19 and {value}[17] = ':')"
        tidy = f"regexp_replace({value}, ' ?([+-]\\d\\d):?(\\d\\d)( UTC)?$', '\\1:\\2')"
        long = f"timezone('UTC', coalesce(try_cast({value} as timestamptz), try_cast({tidy} as timestamptz)))"
        iso = f"case when {short} then try_cast({value} as timestamp) else {long} end"
        if order or self._share(f"{iso} is not null", name) < 0.5:
            if order:
                tidy = f"trim(regexp_replace({value}, '^(\\d+)[/.\\-](\\d+)[/.\\-](\\d+)[ T,]*', '\\1-\\2-\\3 '))"
            else:
                tidy = f"regexp_replace(translate({value}, ',-', '  '), ' +', ' ', 'g')"
            formats = ", ".join(map(_text, _formats(order) if order else _NAMED))
            return f"try_strptime({tidy}, [{formats}])"
        return iso

    def _order_of_parts(self, name: str) -> str | None:
        """``dmy`` or ``mdy`` where times are two numbers and a year, ``unclear`` where nothing tells; else ``None``."""
        value = _quoted(name)
        if self._share(f"regexp_full_match({value}, {_text(_PARTS)})", name) < 0.5:
            return None
        largest = ", ".join(f"max(try_cast(regexp_extract({value}, {_text(_PARTS)}, {n}) as integer))" for n in (1, 3))
        dots = self._one(
            f"select count(*) filter (where contains(split_part({value}, ' ', 1), '.')) * 2 > count({value}) from sample"
        )
        for rows in ("sample", self.file.values):
            first, second = self.con.execute(f"select {largest} from {rows}").fetchall()[0]
            if (first or 0) > 12 or (second or 0) > 12:
                return "dmy" if (first or 0) > 12 else "mdy"
            if dots:
                return "dmy"  # nobody writes 12.31.2020
        return "unclear"

    # --- rows → customers' days

    def _add_up(self, chosen: Columns, latest: date) -> None:
        """Fill the table ``sums``: one row per customer and day that is kept, and one per reason of those that are not."""
        customer, time = str(chosen.customer), str(chosen.time)
        paid = [str(name) for name in (chosen.amount, chosen.quantity, chosen.price) if name]
        no_amount = " or ".join(f"{_quoted(name)} is null" for name in paid)
        shown = " || ' × ' || ".join(f"cast({_quoted(name)} as varchar)" for name in paid)
        condition = self._condition()
        left_out, later, none, no_time, time_bad, too_early, missing, no_number, not_above = map(_text, REASONS)
        if self.file.parts:
            self.scans = self._one("select coalesce(max(scan_id), -1) from reject_scans")
        self._run(f"""create or replace temp table sums as
            with typed as (
                select {self._customer(customer)} as customer, {self._time(time)} as moment, {self._amount(chosen)} as amount,
                    {_quoted(time)} is null as no_time, {no_amount} as no_amount, {condition} as wanted,
                    cast({_quoted(time)} as varchar) as time_shown, {shown} as amount_shown
                from {self.file.values}
            ), measured as (
                select * exclude (moment), cast(case when isfinite(moment) then moment end as date) as day,
                    try_cast(case when abs(amount) < 1e15 then round(amount * 100) end as bigint) as cents
                from typed
            ), judged as (
                select *, case
                    when not wanted then {left_out}
                    when day > date '{latest}' then {later}
                    when customer is null then {none}
                    when no_time then {no_time}
                    when day is null then {time_bad}
                    when day < date '{EARLIEST}' then {too_early}
                    when no_amount then {missing}
                    when cents is null then {no_number}
                    when cents <= 0 then {not_above} end as reason
                from measured
            )
            select reason, case when reason is null then customer end as customer_id,
                case when reason is null then day end as day, count(*) as n,
                sum(case when reason is null then cents end) as cents,
                min(case when reason = {time_bad} then time_shown when reason = {no_number} then amount_shown
                    when reason = {later} then cast(day as varchar) end) as example
            from judged group by 1, 2, 3""")

    def _condition(self) -> str:
        """SQL of what ``where`` says, over the file's columns; numbers of CSV files compare as numbers."""
        if self.where is None:
            return "true"
        try:
            expression = parse(self.where)
        except ExpressionError as error:
            raise TransactionsError(f"--where: {error}") from None
        sql = expression.sql
        for name in expression.columns:
            column = str(self._named("where", name))
            number = self.file.type(column) == "VARCHAR" and self.file.types[column] in ("BIGINT", "DOUBLE")
            value = f"try_cast({_quoted(column)} as double)" if number else _quoted(column)
            sql = sql.replace(_quoted(plain(name)), value)
        try:
            self.con.execute(f"select count(*) filter (where ({sql})) from sample")
        except duckdb.Error as error:
            text = "; the columns of a CSV file are text where not all values are numbers" if self.file.parts else ""
            raise TransactionsError(f"--where: {_first_line(error)}{text}") from None
        return f"coalesce(({sql}), false)"

    def _run(self, sql: str) -> None:
        """Run a statement and report how far it is."""
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.con.execute(sql)
            except BaseException as error:
                failed.append(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while worker.is_alive():
                worker.join(0.2)
                report("%", max(0, min(100, int(self.con.query_progress()))), 100)
            report("%", 100, 100)
        except KeyboardInterrupt:
            self.con.interrupt()
            worker.join()
            raise
        if failed:
            raise failed[0]

    def _broken(self) -> tuple[int, bool]:
        """How many lines of the last adding up were broken, and whether one was not UTF-8."""
        if not self.file.parts:
            return 0, False
        return self.con.execute(
            "select count(distinct (scan_id, file_id, line)), "
            "coalesce(bool_or(regexp_matches(cast(error_type as varchar), '(?i)unicode|encod')), false) "
            f"from reject_errors where scan_id > {self.scans}"
        ).fetchall()[0]

    def _swallowed(self, rows: int) -> str | None:
        """What an open quote has made of the lines after it; ``None`` where none is missing."""
        if not self.file.parts:
            return None
        line = self._one(
            f"select min(line) from reject_errors where scan_id > {self.scans} and cast(error_type as varchar) = 'UNQUOTED VALUE'"
        )
        lost = sum(map(_lines, self.file.files)) - rows if line else 0
        return (
            f"a quote in line {line:,} is never closed: up to {lost:,} lines after it are lost; mend it"
            if lost > 0
            else None
        )

    def _result(self, chosen: Columns, guessed: tuple[str, ...], as_of: date | None, latest: date, broken: int) -> Read:
        found = self.con.execute(
            "select reason, sum(n)::bigint, min(example) from sums where reason is not null group by 1"
        ).fetchall()
        counts = {reason: n for reason, n, _ in found}
        set_aside = {reason: counts[reason] for reason in REASONS if reason in counts}
        if broken:
            set_aside[BROKEN] = broken
        examples = {reason: example for reason, _, example in found if example}
        first, last, kept, customers, most = self.con.execute("""
            select min(first), max(last), coalesce(sum(n), 0)::bigint, count(*), max(n)::bigint from (
                select customer_id, min(day) as first, max(day) as last, sum(n) as n
                from sums where reason is null group by 1)""").fetchall()[0]
        later = examples.pop(LATER, None)
        if not kept:
            if later:
                raise TransactionsError(
                    f"{self.file.shown}: the first purchase in the file is of {later}, after {latest}: nothing is known by then"
                )
            swallowed = f" {lost[0].upper()}{lost[1:]}." if (lost := self._swallowed(sum(set_aside.values()))) else ""
            why = "; ".join(
                f"{n:,} × {reason}" + (f" (e.g. `{examples[reason]}`)" if reason in examples else "")
                for reason, n in set_aside.items()
            )
            raise TransactionsError(f"{self.file.shown}: no row can be used: {why}. Read as {chosen}.{swallowed}")
        if lost := self._swallowed(kept + sum(set_aside.values())):
            self.notes.append(lost)
        if customers > 100 and most > max(0.05 * kept, 20 * kept / customers):
            self.notes.append(
                f"one customer has {most / kept:.0%} of all rows: if that is a placeholder such as `guest`, leave it out "
                "with --where"
            )
        rows = self.con.execute(
            "select customer_id, day, cast(cents as bigint) as cents from sums where reason is null order by customer_id, day"
        )
        return Read(
            transactions=rows.fetch_arrow_table().cast(SCHEMA),
            columns=chosen,
            guessed=guessed,
            as_of=as_of or last,
            first_day=first,
            last_day=last,
            customers=customers,
            rows=kept + sum(set_aside.values()),
            kept=kept,
            set_aside=set_aside,
            examples=examples,
            notes=tuple(self.notes),
        )

    def _one(self, sql: str) -> Any:
        return self.con.execute(sql).fetchall()[0][0]


def _time_of_number(value: str) -> str:
    """SQL of the UTC time that a number stands for: YYYYMMDD (also with HHMM, HHMMSS) or a time since 1970."""
    digits = f"cast(cast({value} as bigint) as varchar)"
    since = {1: (31_536_000, 4_102_444_800), 1e3: (3e11, 4.2e12), 1e6: (1e14, 4.2e15), 1e9: (1e17, 4.2e18)}
    written = {"%Y%m%d": 1, "%Y%m%d%H%M": 10**4, "%Y%m%d%H%M%S": 10**6}
    cases = [
        f"when {value} between {19_710_101 * unit} and {21_010_101 * unit} then try_strptime({digits}, '{form}')"
        for form, unit in written.items()
    ]
    cases += [
        f"when {value} between {low:.0f} and {high:.0f} then timezone('UTC', to_timestamp({value} / {unit:.0f}))"
        for unit, (low, high) in since.items()
    ]
    return f"case {' '.join(cases)} end"


_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
#: With a month's name; commas and dashes are blanks by then.
_NAMED = tuple(day + clock for day in ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d %b %y") for clock in _CLOCKS)


def _formats(order: str) -> tuple[str, ...]:
    """Formats of a date in parts, divided by dashes; two digits of a year are tried first, four do not fit there."""
    day = "%d-%m-" if order == "dmy" else "%m-%d-"
    return tuple(day + year + clock for year in ("%y", "%Y") for clock in _CLOCKS)


def _files(path: str | Path) -> list[Path]:
    """The data files at a path or that a glob stands for, in order of their names."""
    shown, place = str(path), Path(path).expanduser()
    if place.is_dir():
        inside = (file for file in sorted(place.rglob("*")) if file.is_file())
        files = [f for f in inside if f.name.lower().endswith(_DATA) and not f.name.startswith((".", "_"))]
        if not files:
            raise TransactionsError(f"{shown}: the folder holds no CSV and no Parquet file")
        return files
    if place.exists():
        return [place]
    if any(mark in shown for mark in "*?["):
        if files := sorted(Path(found) for found in glob(str(place), recursive=True) if Path(found).is_file()):
            return files
        raise TransactionsError(f"{shown}: no file is called like that")
    raise TransactionsError(f"{shown}: there is no such file")


def _kind(file: Path) -> Literal["csv", "parquet"]:
    """What a file is, by how it begins; raises :class:`TransactionsError` for what is not read."""
    try:
        head = _head(file)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the file is damaged"
        raise TransactionsError(f"{file}: cannot be read: {reason}") from None
    if not head.strip():
        raise TransactionsError(f"{file}: the file is empty")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise TransactionsError(f"{file}: this is an Excel file or an archive; save the table as CSV, or unpack it")
    if head.startswith((b"{", b"[{", b"[\n")):
        raise TransactionsError(f"{file}: this is JSON; CSV and Parquet are read")
    compressed = head.startswith(b"\x28\xb5\x2f\xfd")  # Zstandard
    if b"\0" in head and not compressed and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise TransactionsError(f"{file}: this is neither text nor Parquet; CSV and Parquet are read")
    return "csv"


def _head(file: Path, size: int = 1 << 16) -> bytes:
    """How a file begins."""
    with _opened(file) as stream:
        return stream.read(size)


def _opened(file: Path) -> gzip.GzipFile | BufferedReader:
    """The bytes of a file, decompressed where it is gzip."""
    with file.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(file) if zipped else file.open("rb")


def _dialect(con: duckdb.DuckDBPyConnection, file: Path) -> tuple[_Dialect, dict[str, str]]:
    """How a CSV file is written, and its columns with the types that the sniffer sees."""
    encoding = "utf-16" if _head(file)[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        found = _sniffed(con, file, encoding)
    except duckdb.Error as error:
        found = None
        if "utf-8" in str(error).lower():
            encoding = "latin-1"
            with suppress(duckdb.Error):
                found = _sniffed(con, file, encoding)
    types = {column["name"]: column["type"] for column in found["Columns"]} if found else {}
    # broken lines, or columns of text alone, mislead the sniffer
    unsure = not found or len(types) < 2 or found["SkipRows"] or not found["HasHeader"]
    if unsure and (seen := _seen(file, encoding)):
        return seen, dict.fromkeys(seen.names, "VARCHAR")
    if not found:
        raise TransactionsError(f"{file}: no table can be made out; CSV with a header line and Parquet are read")
    if len(types) < 2:
        raise TransactionsError(
            f"{file}: only one column was found, `{next(iter(types))}`; a customer, a time and an amount are needed, "
            "with `,`, `;`, `|` or tabs between them"
        )
    delimiter, quote, escape, comment = (
        "" if found[name] == "(empty)" else found[name] for name in ("Delimiter", "Quote", "Escape", "Comment")
    )
    quote = quote or '"'  # none in the sample does not mean none further down
    return (
        _Dialect(
            delimiter, quote, escape or quote, comment, found["SkipRows"], found["HasHeader"], tuple(types), encoding
        ),
        types,
    )


def _lines(file: Path) -> int:
    """Lines after the first that are not empty."""
    with _opened(file) as stream:
        return sum(bool(line.strip()) for line in stream) - 1


def _sniffed(con: duckdb.DuckDBPyConnection, file: Path, encoding: str) -> dict[str, Any]:
    cursor = con.execute(f"from sniff_csv({_text(_literally(file))}, encoding = {_text(encoding)})")
    names = [column[0] for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchall()[0], strict=True))


def _seen(file: Path, encoding: str) -> _Dialect | None:
    """The dialect by a first line with at least two usual names, as many as most lines have fields."""
    lines = _head(file).decode(encoding, "replace").removeprefix("\ufeff").splitlines()[:200]
    usual = " ".join((*_CUSTOMER, *_TIME, *_AMOUNT, *_QUANTITY, *_PRICE)).split()
    for delimiter in ",;\t|":
        names, *rows = csv.reader(lines, delimiter=delimiter)
        fit = sum(len(row) == len(names) for row in rows) * 2 > len(rows)
        if fit and len(set(names)) == len(names) and sum(plain(name) in usual for name in names) >= 2:
            return _Dialect(delimiter, '"', '"', "", 0, True, tuple(name.strip() for name in names), encoding)
    return None


def _listed(files: Sequence[Path]) -> str:
    """SQL of a list of files."""
    return "[" + ", ".join(_text(_literally(file)) for file in files) + "]"


def _literally(file: Path) -> str:
    """A file's name as a pattern that means this file alone."""
    return re.sub(r"([*?\[])", r"[\1]", str(file))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
