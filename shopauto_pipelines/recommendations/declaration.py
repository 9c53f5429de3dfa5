"""What a shop may say about its recommendations: which goods last, how long, and how long to look back and ahead.

Everything has a default and most is found out from the data: a declaration overrides it.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shopauto_pipelines.platform.playbook import PLAYBOOK, declared_once, once_per_change


class Goods(BaseModel):
    """What is declared of a category or of a product."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    durable: bool | None = Field(None, description="Bought once and kept. Unset: found out from what owners buy again.")
    replacement_days: int | None = Field(None, ge=1, description="Age at which an owned one may be recommended again.")
    substitutes: bool | None = Field(
        None,
        description="Of a category: its products replace each other, so that none is a complement of another. Unset: evidence.",
    )

    @model_validator(mode="after")
    def _an_age_makes_it_durable(self) -> Goods:
        if self.durable is False and self.replacement_days is not None:
            raise ValueError("`replacement_days` is the age of a durable, but `durable` is false: drop one of them")
        return self


class RecommendationsDeclaration(BaseModel):
    """How recommendations are made; once in a playbook."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    durable_below_per_year: float = Field(
        0.2,
        gt=0,
        le=10,
        description="A good is durable where its owners surely buy it again less often than this, a year.",
    )
    replacement_days: int = Field(
        1825, ge=1, description="Age at which an owned durable may be recommended again, where the data cannot tell."
    )
    complement_days: int = Field(
        30, ge=0, le=365, description="Days after a purchase in which what is bought counts as bought with it."
    )
    complement_people: int = Field(3, ge=1, description="Fewest people who must have bought a pair.")
    off_sale_days: int = Field(
        180, ge=1, description="A product that nobody has bought, seen or changed for so long is taken to be off sale."
    )
    refusal_days: int = Field(
        365,
        ge=1,
        description="A product whose latest purchase was all sent back is not recommended to the person for so long.",
    )
    remind_days: int = Field(
        3,
        ge=0,
        le=60,
        description="A pack's reminder is due so many days before it is used up, at most a quarter of its time.",
    )
    gap_people: int = Field(5, ge=2, description="Fewest people behind a gap in the catalogue.")
    categories: dict[str, Goods] = Field(default_factory=dict, description="By category, as the shop writes it.")
    products: dict[str, Goods] = Field(default_factory=dict, description="By product id; wins over the category.")

    @model_validator(mode="after")
    def _substitutes_are_of_categories(self) -> RecommendationsDeclaration:
        for product, goods in self.products.items():
            if goods.substitutes is not None:
                raise ValueError(f"products.{product}: `substitutes` is said of a category, not of one product")
        return self

    def rules(self, as_of: date) -> pa.Table:
        """One row: the day, and what is declared for the whole shop. For statements that are compiled in advance."""
        numbers = self.model_dump(exclude={"categories", "products"})
        return pa.table({"as_of": pa.array([as_of], pa.date32()), **{name: [value] for name, value in numbers.items()}})

    def goods(self) -> pa.Table:
        """What is declared of categories and products, one row each, with the columns of :data:`GOODS_SCHEMA`."""
        rows = [
            {"kind": kind, "subject": subject, **goods.model_dump()}
            for kind, declared in (("category", self.categories), ("product", self.products))
            for subject, goods in declared.items()
        ]
        return pa.Table.from_pylist(rows, GOODS_SCHEMA)


#: Schema of :meth:`RecommendationsDeclaration.goods`.
GOODS_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("subject", pa.string()),
        ("durable", pa.bool_()),
        ("replacement_days", pa.int64()),
        ("substitutes", pa.bool_()),
    ]
)

#: Ibis schema of :meth:`RecommendationsDeclaration.rules`.
RULES_SCHEMA = {
    "as_of": "date",
    **{
        name: "float64" if field.annotation is float else "int64"
        for name, field in RecommendationsDeclaration.model_fields.items()
        if name not in ("categories", "products")
    },
}


@once_per_change
def load_recommendations(folder: Path = PLAYBOOK) -> RecommendationsDeclaration:
    """The declaration under ``folder``; the defaults where there is none.

    Raises :class:`~shopauto_pipelines.platform.playbook.PlaybookError` for a mistake, or a second one.
    """
    return declared_once(folder, RecommendationsDeclaration, "recommendations")
