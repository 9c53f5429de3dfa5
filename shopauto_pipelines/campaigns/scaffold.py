"""A first campaign to start from: its declaration and its words, which load as they are and reach nobody yet."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import BaseModel, Field, field_validator

from shopauto_pipelines.campaigns.declaration import EVERYONE, Trigger
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.words import nearest

#: Folder of the playbook where the campaigns and what they share stand.
FOLDER = "campaigns"

#: What triggers say that cannot do without; the others need nothing.
_NEEDED = {"segment_entered": "lapsed", "broadcast": "12-24", "submitted": "newsletter"}

#: What stands after a trigger's colon, where it is not the trigger's only value.
_SAYS = {"broadcast": "yearly", "submitted": "form", "ordered": "category"}

_WORDS = """\
{step}:
  preheader: "The line that mail programs show beside the subject."
  headline: "A few words in large letters"
  intro: "What you have to say, in a sentence or two. Texts may name {{{{ shop.name }}}}, {{{{ person.first_name or 'you' }}}}."
  button: "Visit the shop"
  products_title: "You may like"
"""

_DECLARATION = """\
type: {type}
attributes:
  name: {name}
  description: What it is, in a sentence.
  goal: What it is for, in a sentence that can turn out wrong.
  owner: team:crm
  enabled: false # true once its preview says what you want to say: until then it reaches nobody
  priority: 100 # who goes first when the cap leaves room for one message
  trigger:
    {trigger}
{audience}  steps:
    - name: {step}
      {wait}
      template: letter # the shared shape; one of its own is <template>.mjml.j2 and <template>.txt.j2 beside this file
      subject: # the other words are in texts/en.yaml
        en: "{{% if person.first_name %}}{{{{ person.first_name }}}}, news{{% else %}}News{{% endif %}} from {{{{ shop.name }}}}"
  exit_on: [unsubscribed]
  holdout_percent: 10 # who get nothing, so that the effect can be measured
"""

_STEP = "message"


class Wanted(BaseModel):
    """What one may say of the campaign to be."""

    trigger: str = Field(
        "signed_up",
        description=f"What starts it: {', '.join(Trigger.model_fields)}; with what it is about, as segment_entered:lapsed.",
    )

    @field_validator("trigger")
    @classmethod
    def _known(cls, trigger: str) -> str:
        kind, colon, _about = trigger.partition(":")
        if kind not in Trigger.model_fields:
            raise ValueError(f"there is no trigger {kind!r}; {nearest(kind, Trigger.model_fields)}")
        if colon and kind not in {"segment_entered", *_SAYS}:
            raise ValueError(f"the trigger {kind!r} is about nothing more: leave out what follows the colon")
        return trigger


def scaffold(folder: Path, component: str, wanted: Wanted) -> None:
    """Write the campaign called as ``folder`` into it; ``component`` is its type.

    Raises :class:`ShopAutoError` where the templates that campaigns share do not stand above it, or where there is one.
    """
    if not (folder.parent / "letter.mjml.j2").exists():
        raise ShopAutoError(f"campaigns stand where the templates are that they share: name it {FOLDER}/{folder.name}")
    if (folder / "defs.yaml").exists():
        raise ShopAutoError(f"{folder.name} is already there: choose another name, or remove {folder}")
    name = re.sub(r"[^a-z0-9_]+", "_", folder.name.lower())
    kind, _colon, about = wanted.trigger.partition(":")
    about = about or _NEEDED.get(kind, "")
    said = {kind: {_SAYS[kind]: about} if about and kind in _SAYS else about or {}}
    (folder / "texts").mkdir(parents=True, exist_ok=True)
    (folder / "texts" / "en.yaml").write_text(_WORDS.format(step=_STEP), encoding="utf-8")
    text = _DECLARATION.format(
        type=component,
        name=name if name[:1].isalpha() else f"campaign_{name}",
        step=_STEP,
        trigger=yaml.safe_dump(said, default_flow_style=None).strip(),
        audience=f"  audience:\n    include: [{EVERYONE}]\n" if kind == "broadcast" else "",
        wait="wait_hours: 0 # hours in which nothing has happened to the cart"
        if kind == "cart_abandoned"
        else "wait_days: 0 # days after the trigger",
    )
    (folder / "defs.yaml").write_text(text, encoding="utf-8")
