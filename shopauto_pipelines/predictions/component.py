"""The ``Predictions`` component: whose models forecast. What makes it valid is said in ``declaration``."""

import dagster as dg

from shopauto_pipelines.platform.dagster.declared import Declared, scaffolds
from shopauto_pipelines.predictions.declaration import PredictionsDeclaration, load_predictions


@dg.scaffold_with(scaffolds({"churn": None, "orders": None}))
class Predictions(Declared):
    """Models of the shop's own, a class path for each target. The assets of the room read it at each run."""

    model, read, room = PredictionsDeclaration, load_predictions, "predictions"
