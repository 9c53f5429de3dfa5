import pytest

from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.sources.mapping import mappings

from .declared import ORDERS, declare


def _error(tmp_path, *tables, **options):
    with pytest.raises(PlaybookError) as caught:
        declare(tmp_path, *tables, **options)
    return str(caught.value)


def test_shipped_mappings_are_valid():
    assert {mapping.name for mapping in mappings()} >= {"sample", "online-retail"}


def test_an_unknown_table_is_named_with_file_line_and_the_nearest_name(tmp_path):
    text = _error(tmp_path, "oders:\n  columns: {order_id: a}")
    assert "defs.yaml:7:7: unknown table `oders`; did you mean `orders`?" in text


def test_an_unknown_column_is_named_with_line_and_the_nearest_name(tmp_path):
    text = _error(tmp_path, ORDERS + "        totl_cents: '1'\n")
    assert "defs.yaml:14:21: `orders` has no column `totl_cents`; did you mean `total_cents`?" in text


def test_a_required_column_that_is_not_mapped_is_named(tmp_path):
    assert "`orders` needs `ordered_at`, `total_cents`" in _error(tmp_path, "orders:\n  columns: {order_id: a}")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("cents(total", "is not valid SQL"),
        ("sents(total)", "unknown function `sents()`"),
        ("(select 1)", "not a query"),
        ("total from other", "not a query"),
        ("read_text('/etc/passwd')", "unknown function `read_text()`"),
        ("random()", "gives another answer each time"),
        ("current_date", "gives another answer each time"),
        ("localtimestamp", "gives another answer each time"),
        ("utc_timestamp()", "gives another answer each time"),
        ("sum(total)", "needs `group_by`"),
        ("1; drop table x", "one SQL expression"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused_with_its_line(tmp_path, expression, message):
    text = _error(tmp_path, ORDERS.replace("cents(total)", f'"{expression}"'))
    assert "defs.yaml:13:22: " in text
    assert message in text


def test_a_grouped_table_says_which_row_a_loose_column_comes_from(tmp_path):
    text = _error(tmp_path, ORDERS + "      group_by: [order_id]\n")
    assert "`ordered_at` in `ordered_at` is not in `group_by`" in text
    assert "arg_min(ordered_at, source_row)" in text


def test_an_unknown_setting_or_time_zone_is_refused(tmp_path):
    assert "unknown setting `file`; did you mean `files`?" in _error(tmp_path, ORDERS.replace("files:", "file:"))
    assert "'Mars/Base' is not an IANA time zone" in _error(tmp_path, ORDERS, head="timezone: Mars/Base")


def test_a_table_is_read_from_files_or_from_a_database_and_a_source_from_one_of_them(tmp_path):
    both = _error(tmp_path, ORDERS.replace("columns:", "table: public.orders\n      columns:"))
    assert "defs.yaml:8:14: `tables.orders.table`: a table is read from `files` or from a database `table`" in both
    mixed = _error(tmp_path, ORDERS, "products:\n  table: products\n  columns: {product_id: id, changed_at: at}")
    assert "defs.yaml:6:5: `tables`: `products` is read from a database, `orders` from files" in mixed
    assert "`tables.orders.table`" in _error(tmp_path, ORDERS.replace("files: orders*.csv", "table: a.b.c"))
