"""The ``Recommendations`` component: what a shop declares of its goods. What makes it valid is said in ``declaration``."""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.platform.dagster.assets import OWNERS
from shopauto_pipelines.recommendations.declaration import RecommendationsDeclaration, load_recommendations


class RecommendationsScaffolder(dg.Scaffolder):
    """Writes a first ``defs.yaml`` that loads."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """A category that lasts."""
        dg.scaffold_component(request, {"categories": {"mattresses": {"durable": True, "replacement_days": 2920}}})


@dg.scaffold_with(RecommendationsScaffolder)
class Recommendations(dg.Component):
    """Which goods are durable and for how long, how far back and ahead to look. The assets of the room read it at each run."""

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How the component presents itself in the UI."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=["recommendations"], owners=OWNERS)

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The attributes of the YAML file."""
        return RecommendationsDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The component of a YAML file; raises ``PlaybookError`` with file and line for a wrong declaration."""
        load_recommendations(context.path)
        return cls()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Nothing of its own: the room's assets read what is declared."""
        return dg.Definitions()
