"""Landing pages as declared in the playbook: a few words, an e-mail address, a box to tick. Serving them is the collector's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shopauto_pipelines.platform.playbook import PLAYBOOK, declarations, once_per_change

_Text = Annotated[str, Field(min_length=1)]


class Words(BaseModel):
    """A page in one language."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: _Text = Field(description="The headline.")
    intro: _Text = Field(description="What there is to gain, in a sentence or two.")
    email: _Text = Field(description="Label of the field for the address.")
    first_name: str | None = Field(None, description="Label of the field for the first name; left out: not asked.")
    consent: _Text = Field(
        description="What is agreed to where the box is ticked; kept with the consent, word by word."
    )
    button: _Text = Field(description="What sends the form.")
    thanks: _Text = Field(description="What is said once it is sent.")


class LandingPage(BaseModel):
    """A page at ``/pages/<name>`` of the collector, whose form is ``<name>`` in ``raw/form_submissions``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        description="Name in snake_case: the address is `/pages/<name>`, campaigns say `submitted: {form: <name>}`.",
    )
    description: _Text = Field(description="What the page is for, in a sentence.")
    languages: dict[Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$")], Words] = Field(
        min_length=1, description="The words in each language; the first is shown to readers of none of them."
    )


@once_per_change
def load_landing_pages(folder: Path = PLAYBOOK) -> Mapping[str, LandingPage]:
    """The pages declared under ``folder``, by name; raises ``PlaybookError`` with its place for the first mistake."""
    pages: dict[str, LandingPage] = {}
    for declaration in declarations("LandingPage", folder):
        page = declaration.validated(LandingPage, "landing page")
        if page.name in pages:
            raise declaration.error(f"there is another landing page {page.name!r}", "name")
        pages[page.name] = page
    return pages
