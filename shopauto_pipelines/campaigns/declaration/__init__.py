"""What a campaign declares, and the loader that refuses a wrong one with its place in the file.

A campaign that does not say which message, to whom and when does not load. Deciding who gets it is the planner's work.

- :mod:`.trigger`, :mod:`.step`, :mod:`.experiment`: the parts; :mod:`.campaign` puts them together;
- :mod:`.playbook` reads them from their files.
"""

from shopauto_pipelines.campaigns.declaration.campaign import EVERYONE, Audience, Campaign
from shopauto_pipelines.campaigns.declaration.experiment import CONTROL, Experiment, Variant
from shopauto_pipelines.campaigns.declaration.playbook import load_campaigns, planned_before
from shopauto_pipelines.campaigns.declaration.step import Incentive, Products, Step, Wait
from shopauto_pipelines.campaigns.declaration.trigger import Broadcast, Ordered, Trigger

__all__ = [
    "CONTROL",
    "EVERYONE",
    "Audience",
    "Broadcast",
    "Campaign",
    "Experiment",
    "Incentive",
    "Ordered",
    "Products",
    "Step",
    "Trigger",
    "Variant",
    "Wait",
    "load_campaigns",
    "planned_before",
]
