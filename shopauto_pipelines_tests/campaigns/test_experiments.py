"""Who is drawn for what: the shares are right, and no draw tells anything of another."""

from collections import Counter
from datetime import datetime
from itertools import pairwise

import ibis
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency, chisquare

from shopauto_pipelines.campaigns.audience import leaks
from shopauto_pipelines.campaigns.experiments import ends, experiment_key, variant_of
from shopauto_pipelines.campaigns.holdout import GLOBAL, held_out, holdout_key, is_held_out, placed
from shopauto_pipelines.campaigns.tables import audience
from shopauto_pipelines.platform.lake import Lake
from shopauto_pipelines.platform.settings import Settings
from shopauto_pipelines.profiles.tables import CONSENT
from shopauto_pipelines_tests.campaigns.conftest import TODAY, declared, lake_rows

KEY = b"k" * 32
PEOPLE = [f"customer-{n}" for n in range(10_000)]
WEIGHTS = {"control": 50, "early": 30, "late": 20}

#: With a fixed key nothing here is left to chance; a draw that is as even as it should be passes one key in a thousand wrongly.
_ALPHA = 0.001


def _drawn(name: str, weights=WEIGHTS) -> list[str]:
    return [variant_of(who, experiment_key(KEY, name), weights) for who in PEOPLE]


def _held(name: str, percent: float) -> list[bool]:
    return [is_held_out(who, holdout_key(KEY, name), percent) for who in PEOPLE]


@pytest.mark.parametrize("weights", [WEIGHTS, {"control": 1, "other": 1}, {"control": 999, "rare": 1, "none": 1}])
def test_variants_get_their_shares(weights):
    found = Counter(_drawn("subjects", weights))
    shares = [weight / sum(weights.values()) * len(PEOPLE) for weight in weights.values()]
    assert chisquare([found[name] for name in weights], shares).pvalue > _ALPHA


def test_draws_of_experiments_and_holdouts_are_independent_of_each_other():
    draws = {
        "subjects": _drawn("subjects"),
        "hours": _drawn("hours"),
        "all campaigns": _held(GLOBAL, 20),
        "one campaign": _held("welcome", 30),
        "another of the experiment's name": _held("subjects", 30),
    }
    names = list(draws)
    for position, one in enumerate(names):
        for other in names[position + 1 :]:
            pairs = Counter(zip(draws[one], draws[other], strict=True))
            table = [[pairs[a, b] for b in sorted(set(draws[other]))] for a in sorted(set(draws[one]))]
            assert chi2_contingency(table).pvalue > _ALPHA, f"{one} and {other}"


def test_ids_that_are_numbered_one_after_the_other_are_drawn_independently():
    drawn = [name == "control" for name in _drawn("subjects")]
    runs = 1 + sum(a != b for a, b in pairwise(drawn))
    ones, zeros = sum(drawn), len(drawn) - sum(drawn)
    mean = 1 + 2 * ones * zeros / len(drawn)
    variance = (mean - 1) * (mean - 2) / (len(drawn) - 1)
    assert (runs - mean) ** 2 / variance < chi2.ppf(1 - _ALPHA, 1)


@hypothesis_settings(max_examples=10, deadline=None)
@given(
    ids=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20, unique=True),
    weights=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 1000), min_size=2),
    name=st.sampled_from(["subjects", "hours"]),
)
def test_the_engine_draws_as_python_does_and_the_order_of_the_variants_does_not_count(ids, weights, name):
    ids = [who for who in ids if "\0" not in who and who.isprintable()]
    key = experiment_key(KEY, name)
    people = ibis.memtable({"who": ids}, schema={"who": "string"})
    reordered = dict(reversed(weights.items()))
    columns = {
        "place": placed(people.who + f":{key}"),
        "held": held_out(people.who, holdout_key(KEY, name), 37.5),
    }
    for row in _CON.to_pyarrow(people.mutate(**columns)).to_pylist():
        found = variant_of(row["who"], key, weights)
        assert found == next(name for name, end in ends(reordered) if row["place"] < end)
        assert row["held"] == is_held_out(row["who"], holdout_key(KEY, name), 37.5)


_CON = ibis.duckdb.connect(threads=1)


def test_everybody_keeps_the_variant_while_others_are_added_and_another_name_draws_anew():
    before = dict(zip(PEOPLE, _drawn("subjects"), strict=True))
    assert {
        who: variant_of(who, experiment_key(KEY, "subjects"), WEIGHTS) for who in PEOPLE[:50]
    }.items() <= before.items()
    again = _drawn("subjects_again")
    assert sum(one != other for one, other in zip(before.values(), again, strict=True)) > len(PEOPLE) / 2


def test_the_check_counts_who_is_planned_for_a_variant_that_they_were_not_drawn_for(tmp_path):
    campaign = declared(
        experiment={"name": "subjects", "step": "first", "sample_size": 10, "variants": {
            "control": {}, "early": {"hour": 9},
        }}
    )  # fmt: skip
    shop = Settings(home=tmp_path, secret_key="k", holdout_percent=0, _env_file=None)
    lake, key = Lake(tmp_path, threads=1), experiment_key(shop.hash_key, "subjects")
    drawn = {who: variant_of(who, key, {"control": 50, "early": 50}) for who in PEOPLE[:8]}
    rows = [{"customer_id": who, "step": "first", "decision": "planned", "channel": "email", "variant": variant}
            for who, variant in drawn.items()]  # fmt: skip
    rows.append({**rows[0], "step": "second", "variant": None})
    agreed = [
        {"customer_id": who, "channel": "email", "state": "opted_in", "at": datetime(2026, 1, 1)} for who in drawn
    ]
    lake.write(CONSENT, [TODAY], lake_rows(CONSENT, *agreed))

    def leaking() -> dict[str, int]:
        lake.write(audience("hello"), [TODAY], lake_rows(audience("hello"), *rows))
        return {kind: count for kind, count in leaks(campaign, lake.session(), shop, TODAY).items() if count}

    assert leaking() == {}
    rows[3]["variant"] = "control" if rows[3]["variant"] == "early" else "early"
    rows[8]["variant"] = "early"
    assert leaking() == {"another variant": 2}
