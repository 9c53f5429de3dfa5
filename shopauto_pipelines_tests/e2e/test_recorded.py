"""What a refresh records on every asset: read off the instance of a shop that was refreshed through the command line."""

import json

import pytest

from shopauto_pipelines.definitions import defs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("recorded")]

#: No column of these is computed from columns of others: they tell of models, of rows that could not be read, of what the
#: outside world said (forms, to the collector alone; stock levels, which the sample shop does not tell), and of messages whose
#: outcome is not known.
WITHOUT_COLUMN_LINEAGE = {
    "predictions/models",
    "raw/quarantine",
    "raw/form_submissions",
    "raw/stock_levels",
    "collector/provider_events",
    "outbox/unknown",
}


@pytest.fixture(scope="module")
def recorded(new_shop, refreshed):
    """Metadata of each asset's latest materialisation."""
    shop = new_shop(like=refreshed)
    printed = shop.python(
        """
        import json
        from shopauto_pipelines.cli import runs
        from shopauto_pipelines.definitions import defs

        found = {}
        with runs.instance() as instance:
            for key in defs().get_repository_def().get_job("daily_refresh").asset_layer.executable_asset_keys:
                event = instance.get_latest_materialization_event(key)
                metadata = event.asset_materialization.metadata if event else {}
                lineage = metadata.get("dagster/column_lineage")
                rows = metadata.get("dagster/row_count")
                found[key.to_user_string()] = {
                    "partition": event.asset_materialization.partition if event else None,
                    "rows": rows.value if rows else None,
                    "lineage": {
                        column: [[dep.asset_key.to_user_string(), dep.column_name] for dep in deps]
                        for column, deps in lineage.value.deps_by_column.items()
                    } if lineage else {},
                }
        print(json.dumps(found))
        """
    )
    return json.loads(printed.splitlines()[-1])


def test_a_refresh_records_the_row_count_of_every_asset(recorded):
    assert {name for name, said in recorded.items() if said["partition"] != "2026-06-30"} == set()
    assert {name for name, said in recorded.items() if said["rows"] is None} == set()


def test_a_refresh_records_the_column_lineage_of_every_asset_and_it_names_columns_that_exist(recorded):
    lineages = {name: said["lineage"] for name, said in recorded.items()}
    assert {name for name, lineage in lineages.items() if not lineage} == WITHOUT_COLUMN_LINEAGE
    graph = defs().get_repository_def().asset_graph
    columns = {
        asset.key.to_user_string(): {column.name for column in asset.metadata["dagster/column_schema"].columns}
        for asset in map(graph.get, graph.get_all_asset_keys())
    }
    for name, lineage in lineages.items():
        assert lineage.keys() <= columns[name]
        for origins in lineage.values():
            assert [origin for origin in origins if origin[1] not in columns[origin[0]]] == []
    assert ["files/sample", "total"] in lineages["raw/orders"]["total_cents"]
    assert lineages["segments/vip"]["customer_id"] == [["segments/membership", "customer_id"]]
    assert ["campaigns/welcome/audience", "explanation"] in lineages["outbox/welcome"]["explanation"]
