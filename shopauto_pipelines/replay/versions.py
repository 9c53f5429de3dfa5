"""Another version of a campaign: a whole declaration in the playbook's format, or only what changes, from a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shopauto_pipelines.campaigns.declaration import Campaign
from shopauto_pipelines.campaigns.declaration.playbook import campaign_of
from shopauto_pipelines.platform.errors import ShopAutoError
from shopauto_pipelines.platform.playbook import PLAYBOOK, Declaration, declarations, documents
from shopauto_pipelines.platform.words import nearest
from shopauto_pipelines.segments.declaration import load_segments


class ReplayError(ShopAutoError):
    """A replay cannot begin; the text says why and what to do."""


@dataclass(frozen=True)
class _Other(Declaration):
    """A declaration beside the playbook; templates are taken from the ``home`` of the campaign it changes."""

    home: Path

    @property
    def folder(self) -> Path:
        """Folder of the campaign's templates."""
        return self.home


def changed_version(campaign: Campaign, file: Path, folder: Path = PLAYBOOK) -> Campaign:
    """The campaign as ``file`` declares it: a declaration with its ``type``, or attributes that replace the present ones.

    Of attributes alone, each replaces the present one as a whole, and ``null`` takes it away; ``steps`` may be a mapping, by the
    step's name, of that step's attributes that change. Templates stand in the campaign's folder as ever. Raises
    :class:`~shopauto_pipelines.platform.playbook.PlaybookError` with file, line and column of the mistake.
    """
    if not file.is_file():
        raise ReplayError(
            f"there is no file {file}: it holds what changes in {campaign.name}, e.g. `holdout_percent: 20`"
        )
    found = documents(file)
    if not found:
        raise ReplayError(
            f"{file} has no fields with values: it holds what changes in {campaign.name}, e.g. `holdout_percent: 20`"
        )
    if len(found) != 1:
        raise ReplayError(f"{file} holds {len(found)} declarations: one is asked for, of the campaign {campaign.name}")
    (said,) = found
    if not isinstance(said.attributes, dict):
        raise said.error(f"`attributes` are fields with values, such as those of the campaign {campaign.name}")
    if _type_of(said) is None:
        said = _merged(said, _present(campaign, folder))
    elif _type_of(said) != "Campaign":
        raise said.error(f"this declares a {_type_of(said)}, not a Campaign")
    other = _Other(said.file, said.attributes, said.root, campaign.folder)
    changed = campaign_of(other, load_segments(folder))
    if changed.name != campaign.name:
        raise other.error(f"this is the campaign {changed.name!r}, but {campaign.name!r} is replayed", "name")
    return changed


def _type_of(declaration: Declaration) -> str | None:
    """The class it declares; ``None`` where it says nothing of it."""
    named = {key.value: value.value for key, value in declaration.root.value if isinstance(key, yaml.ScalarNode)}
    return str(named["type"]).rsplit(".", 1)[-1] if "type" in named else None


def _present(campaign: Campaign, folder: Path) -> Mapping[str, Any]:
    """What the playbook's file says of the campaign."""
    return next(d.attributes for d in declarations("Campaign", folder) if d.attributes.get("name") == campaign.name)


def _merged(changes: Declaration, present: Mapping[str, Any]) -> Declaration:
    """``present`` with the changes; places are those of the changes."""
    said, root = changes.attributes, changes.root
    if isinstance(said.get("steps"), dict):
        names = [step["name"] for step in present["steps"]]
        for name, of_step in said["steps"].items():
            if name not in names:
                raise changes.error(f"there is no step `{name}`; {nearest(str(name), names)}", "steps", name)
            if not isinstance(of_step, dict):
                raise changes.error(f"step `{name}`: say what changes, e.g. `wait_days: 3`", "steps", name)
        steps = [_with(step, said["steps"].get(step["name"], {})) for step in present["steps"]]
        said, root = {**said, "steps": steps}, _steps_in_order(root, names)
    return Declaration(changes.file, _with(present, said), root)


def _with(present: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**present, **changes}.items() if value is not None or name not in changes}


def _steps_in_order(root: yaml.Node, names: list[str]) -> yaml.Node:
    """The document's nodes with the steps as the list that they stand for: a mistake is looked for by a step's number."""

    def replaced(node: yaml.Node, path: tuple[str, ...]) -> yaml.Node:
        if not path:
            of_steps = {key.value: value for key, value in node.value}
            blank = yaml.ScalarNode("tag:yaml.org,2002:null", "", node.start_mark, node.start_mark)
            return yaml.SequenceNode("tag:yaml.org,2002:seq", [of_steps.get(n, blank) for n in names], node.start_mark)
        pairs = [(k, replaced(v, path[1:]) if k.value == path[0] else v) for k, v in node.value]
        return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)

    return replaced(root, ("attributes", "steps"))
