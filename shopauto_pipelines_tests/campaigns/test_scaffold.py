"""A campaign to start from: it loads as it stands, says what may be changed, and reaches nobody yet."""

from pathlib import Path

import dagster as dg
import pytest

from shopauto_pipelines.campaigns.component import CampaignScaffolder, audience_asset
from shopauto_pipelines.campaigns.declaration import Trigger, load_campaigns
from shopauto_pipelines.campaigns.scaffold import Wanted
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.playbook import PlaybookError

TYPE = "shopauto_pipelines.campaigns.component.Campaign"


def _scaffold(target: Path, **params: str) -> None:
    target.mkdir(parents=True)
    CampaignScaffolder().scaffold(
        dg.ScaffoldRequest(
            type_name=TYPE, target_path=target, scaffold_format="yaml", project_root=None, params=Wanted(**params)
        )
    )


@pytest.fixture
def empty(playbook) -> Path:
    """The playbook without campaigns, with what they share."""
    for file in (playbook / "campaigns").glob("*/defs.yaml"):
        file.unlink()
    return playbook


@pytest.mark.parametrize(
    "trigger", [*Trigger.model_fields, "segment_entered:vip", "ordered:tents", "submitted:webinar"]
)
def test_a_scaffolded_campaign_of_any_trigger_loads_as_it_stands_and_reaches_nobody(empty, trigger):
    _scaffold(empty / "campaigns" / "spring-sale", trigger=trigger)
    (campaign,) = load_campaigns(empty).values()
    assert (campaign.name, campaign.trigger.kind, campaign.enabled) == ("spring_sale", trigger.partition(":")[0], False)
    assert str(campaign.trigger).endswith(trigger) or ":" not in trigger
    assert audience_asset(campaign, ()).key.path == ["campaigns", "spring_sale", "audience"]


def test_it_is_a_declaration_and_words_in_the_shared_shape(empty):
    folder = empty / "campaigns" / "mine"
    _scaffold(folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["defs.yaml", "texts/en.yaml"]


def test_a_campaign_elsewhere_would_lack_the_shared_templates(empty):
    with pytest.raises(ShopAutoError, match="name it campaigns/mine"):
        _scaffold(empty / "mine")


def test_nothing_is_overwritten(empty):
    _scaffold(empty / "campaigns" / "mine")
    with pytest.raises(ShopAutoError, match="mine is already there"):
        CampaignScaffolder().scaffold(
            dg.ScaffoldRequest(TYPE, empty / "campaigns" / "mine", "yaml", project_root=None, params=Wanted())
        )


def test_words_that_are_taken_away_are_named_with_their_file(empty):
    _scaffold(empty / "campaigns" / "mine")
    texts = empty / "campaigns" / "mine" / "texts" / "en.yaml"
    texts.write_text(texts.read_text().replace("  headline:", "  heading:"))
    with pytest.raises(PlaybookError, match=r"en\.yaml:2, step message: there is no text 'headline'"):
        load_campaigns(empty)


def test_a_trigger_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean `ordered`"):
        Wanted(trigger="order")
    with pytest.raises(ValueError, match="about nothing more"):
        Wanted(trigger="birthday:today")
