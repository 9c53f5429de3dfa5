"""Components that check a declaration and make nothing of it: what the room does with it, it reads when it runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import BaseModel

from shopauto_pipelines.platform.dagster.assets import OWNERS


class Declared(dg.Component):
    """Base of such a component; its docstring is what the UI says of it.

    ``model`` is the declaration, ``read`` finds it below a folder and raises ``PlaybookError`` for a wrong one, ``room`` is the
    room whose assets read it.
    """

    model: ClassVar[type[BaseModel]]
    read: ClassVar[Callable[[Path], object]]
    room: ClassVar[str]

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """How the component presents itself in the UI."""
        return dg.ComponentTypeSpec(description=cls.__doc__, tags=[cls.room], owners=OWNERS)

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The attributes of the YAML file."""
        return cls.model

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """The component of a YAML file; raises ``PlaybookError`` with its place for a wrong declaration."""
        cls.read(context.path)
        return cls()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Nothing of its own."""
        return dg.Definitions()


def scaffolds(example: Mapping[str, Any]) -> type[dg.Scaffolder]:
    """A scaffolder that writes a first ``defs.yaml`` with the attributes of ``example``, which load."""

    class Example(dg.Scaffolder):
        def scaffold(self, request: dg.ScaffoldRequest) -> None:
            dg.scaffold_component(request, dict(example))

    return Example
