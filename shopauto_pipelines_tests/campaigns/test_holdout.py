"""The holdout: the same person always, the share that was asked for, and the same on both faces of the hash."""

import ibis
import pyarrow as pa
import pytest

from shopauto_pipelines.campaigns.holdout import GLOBAL, held_out, holdout_key, is_held_out

IDS = [f"c{n}" for n in range(5000)] + ["guest:1f", "Ž", ""]


@pytest.mark.parametrize("percent", [0, 0.01, 5, 50, 99.99, 100])
def test_the_column_and_the_plain_function_agree_and_give_the_share(percent):
    key = holdout_key(b"k" * 32, "welcome")
    people = ibis.memtable(pa.table({"customer_id": IDS}))
    marked = people.mutate(inside=held_out(people.customer_id, key, percent))
    rows = ibis.duckdb.connect().to_pyarrow(marked)["inside"].to_pylist()
    assert rows == [is_held_out(customer_id, key, percent) for customer_id in IDS]
    assert abs(sum(rows) / len(IDS) - percent / 100) < 0.02


def test_campaigns_hold_out_different_people_and_so_do_shops():
    def inside(key: bytes, name: str) -> set[str]:
        return {i for i in IDS if is_held_out(i, holdout_key(key, name), 20)}

    one, other, everywhere = inside(b"k" * 32, "welcome"), inside(b"k" * 32, "win_back"), inside(b"k" * 32, GLOBAL)
    assert one != other != everywhere
    assert abs(len(one & other) / len(IDS) - 0.04) < 0.02, "independent draws"
    assert inside(b"j" * 32, "welcome") != one


def test_a_larger_holdout_keeps_everyone_of_the_smaller_one():
    key = holdout_key(b"k" * 32, GLOBAL)
    assert {i for i in IDS if is_held_out(i, key, 5)} <= {i for i in IDS if is_held_out(i, key, 10)}


def test_the_shop_s_own_key_does_not_show():
    secret = b"k" * 32
    assert secret.hex() not in holdout_key(secret, GLOBAL)
    people = ibis.memtable(pa.table({"customer_id": ["a"]}))
    assert secret.hex() not in str(ibis.to_sql(held_out(people.customer_id, holdout_key(secret, GLOBAL), 5).name("x")))
