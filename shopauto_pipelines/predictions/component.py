"""The ``Predictions`` component: whose models forecast. What makes it valid is said in ``declaration``."""

from typing import Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.platform.dagster.assets import OWNERS
from shopauto_pipelines.predictions.declaration import PredictionsDeclaration, load_predictions


class PredictionsScaffolder(dg.Scaffolder):
    """Writes a first ``defs.yaml`` that loads."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """No model of one's own yet."""
        dg.scaffold_component(request, {"churn": None, "orders": None})


@dg.scaffold_with(PredictionsScaffolder)
class Predictions(dg.Component):
    """Models of the shop's own, a class path for each target. The assets of the room read it at each run."""

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How the component presents itself in the UI."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=["predictions"], owners=OWNERS)

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The attributes of the YAML file."""
        return PredictionsDeclaration

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The component of a YAML file; raises ``PlaybookError`` with file and line for a wrong declaration."""
        load_predictions(context.path)
        return cls()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Nothing of its own: the room's assets read what is declared."""
        return dg.Definitions()
