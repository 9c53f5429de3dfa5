"""What a shop may say about its predictions: a model of its own for a target."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shopauto_pipelines.platform.playbook import PLAYBOOK, declared_once, once_per_change
from shopauto_pipelines.predictions.own import Own, imported


class PredictionsDeclaration(BaseModel):
    """Whose models forecast; once in a playbook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    churn: str | None = Field(None, description="Path of a class that tells P(no order), e.g. `my_shop.models.Churn`.")
    orders: str | None = Field(None, description="Path of a class that tells expected orders, `my_shop.models.Orders`.")

    @field_validator("churn", "orders")
    @classmethod
    def _can_be_a_model(cls, path: str | None) -> str | None:
        if path is not None:
            imported(path)
        return path

    @property
    def own(self) -> Own:
        """The classes declared."""
        return Own(
            imported(self.churn) if self.churn is not None else None,
            imported(self.orders) if self.orders is not None else None,
        )


@once_per_change
def load_predictions(folder: Path = PLAYBOOK) -> PredictionsDeclaration:
    """The declaration under ``folder``; models of ours where there is none.

    Raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError` for a mistake, or a second one.
    """
    return declared_once(folder, PredictionsDeclaration, "predictions")
