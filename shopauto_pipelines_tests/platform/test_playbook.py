"""What is read of the playbook, and when."""

import os
import re

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from shopauto_pipelines.platform.playbook import PlaybookError, declarations, once_per_change
from shopauto_pipelines.platform.words import nearest


def test_a_loader_reads_a_folder_again_only_when_a_file_in_it_is_new_changed_or_gone(tmp_path):
    read = []
    load = once_per_change(lambda folder: read.append(folder) or sorted(path.name for path in folder.rglob("*.yaml")))
    (tmp_path / "a.yaml").touch()
    assert load(tmp_path) is load(tmp_path)
    (tmp_path / "b.yaml").touch()
    assert load(tmp_path) == ["a.yaml", "b.yaml"]
    os.utime(tmp_path / "b.yaml", (0, 0))
    load(tmp_path)
    (tmp_path / "b.yaml").unlink()
    assert load(tmp_path) == ["a.yaml"]
    assert len(read) == 3  # what it was at first is still known


class Tea(BaseModel):
    model_config = ConfigDict(extra="forbid")
    leaves: int


class Milk(BaseModel):
    model_config = ConfigDict(extra="forbid")
    fat: float = 3.5


class Menu(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    cups: list[Tea | Milk] = Field(default_factory=list)
    prices: dict[str, int] = Field(default_factory=dict)
    words: str = ""

    @field_validator("words")
    @classmethod
    def _polite(cls, words: str) -> str:
        if "!" in words:
            error = ValueError("do not shout")
            lines = words[: words.index("!")].split("\n")
            error.at = len(lines), len(lines[-1]) + 1
            raise error
        return words


@pytest.fixture
def read(tmp_path):
    """Reads the attributes of a declaration as a menu."""

    def menu(attributes: str) -> Menu:
        (tmp_path / "defs.yaml").write_text(f"type: some.where.Menu\nattributes:\n{attributes}", encoding="utf-8")
        (declaration,) = declarations("Menu", tmp_path)
        return declaration.validated(Menu, "menu")

    return menu


@pytest.mark.parametrize(
    ("attributes", "place", "words"),
    [
        ("  words: hi", "3:3", "`name` is missing"),
        ("  nmae: x", "3:3", "there is no `nmae`; did you mean `name`?"),
        ("  name: x\n  nmae: x", "4:3", "there is no `nmae`; there are cups, prices, words"),
        ("  name: x\n  cup: []", "4:3", "there is no `cup`; did you mean `cups`?"),
        (
            "  name: x\n  cups:\n  - leaves: three",
            "5:13",
            "cups.0.leaves: must be a whole number, not the text 'three'",
        ),
        ("  name: x\n  cups:\n  - leaves: 3\n  - {leafs: 3}", "6:5", "cups.1"),
        ("  name: x\n  prices: {tea: cheap}", "4:17", "prices.tea: must be a whole number, not the text 'cheap'"),
        ("  name: 3", "3:9", "name: must be a text, not the number 3: put it in quotes"),
        ("  name:", "3:8", "name: must be a text, not empty"),
        ("  name: x\n  words: hi !", "4:13", "words: do not shout"),
        ("  name: x\n  words: |2\n     hi,\n\n    you ! there", "7:9", "words: do not shout"),
        ("  name: x\n  words: >-\n     hi,\n\n     you ! there", "7:10", "words: do not shout"),
        ("  name: x\n  words: 'it''s ''you'' !'", "4:25", "words: do not shout"),
        ('  name: x\n  words: "a\\u00e9\\t\\"b\\" \\\n     !"', "5:6", "words: do not shout"),
        ("  name: x\n  name: y", "4:3", "`name` is already there in line 3"),
        ("  name: x\n  cups: [", "5:1", "not valid YAML"),
    ],
)
def test_a_mistake_is_told_in_words_with_file_line_and_column(read, attributes, place, words):
    with pytest.raises(PlaybookError) as error:
        read(attributes)
    assert f"defs.yaml:{place}: " in str(error.value)
    assert words in str(error.value)


def test_what_is_right_is_read(read):
    menu = read("  name: x\n  cups: [{leaves: 3}, {fat: 1.5}]\n  prices: {tea: 3}")
    assert menu == Menu(name="x", cups=[Tea(leaves=3), Milk(fat=1.5)], prices={"tea": 3})


def test_a_wrong_name_is_answered_by_the_nearest_or_by_all_there_are():
    assert nearest("ordrs", ["orders", "visits"]) == "did you mean `orders`?"
    assert nearest("zzz", ["orders", "visits"]) == "there are orders, visits"
    assert re.fullmatch(r"there are n00, .*n11 and 8 more", nearest("zzz", [f"n{n:02}" for n in range(20)], most=12))
