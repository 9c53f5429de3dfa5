"""The ``Recommendations`` component: what a shop declares of its goods. What makes it valid is said in ``declaration``."""

import dagster as dg

from shopauto_pipelines.platform.dagster.declared import Declared, scaffolds
from shopauto_pipelines.recommendations.declaration import RecommendationsDeclaration, load_recommendations


@dg.scaffold_with(scaffolds({"categories": {"mattresses": {"durable": True, "replacement_days": 2920}}}))
class Recommendations(Declared):
    """Which goods are durable and for how long, how far back and ahead to look. The assets of the room read it at each run."""

    model, read, room = RecommendationsDeclaration, load_recommendations, "recommendations"
