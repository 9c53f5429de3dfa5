"""The shop's word on its goods: read from the playbook, checked, with file and line in every error."""

import textwrap

import pytest

from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.recommendations.declaration import RecommendationsDeclaration, load_recommendations


@pytest.fixture
def playbook(tmp_path):
    """Writes ``recommendations/defs.yaml`` and returns the playbook's folder."""

    def write(attributes, name="recommendations"):
        file = tmp_path / name / "defs.yaml"
        file.parent.mkdir(parents=True)
        head = "type: shopauto_pipelines.recommendations.component.Recommendations\nattributes:\n"
        file.write_text(head + textwrap.indent(textwrap.dedent(attributes).strip(), "  ") + "\n", encoding="utf-8")
        return tmp_path

    return write


def test_what_is_declared_is_read_and_the_rest_has_defaults(playbook):
    folder = playbook(
        """
        remind_days: 5
        categories:
          mattresses: {durable: true, replacement_days: 2920, substitutes: true}
        products:
          P1: {durable: false}
        """
    )
    read = load_recommendations(folder)
    assert (read.remind_days, read.complement_days) == (5, 30)
    assert read.goods().to_pylist() == [
        {"kind": "category", "subject": "mattresses", "durable": True, "replacement_days": 2920, "substitutes": True},
        {"kind": "product", "subject": "P1", "durable": False, "replacement_days": None, "substitutes": None},
    ]


def test_a_playbook_without_a_declaration_has_the_defaults(tmp_path):
    assert load_recommendations(tmp_path) == RecommendationsDeclaration.model_validate({})


def test_the_shipped_declaration_loads():
    assert load_recommendations().replacement_days == 1825


@pytest.mark.parametrize(
    ("attributes", "line", "message"),
    [
        ("remind_days: 99", 3, "remind_days"),
        ("categories:\n  tents: {durabel: true}", 4, "there is no `categories.tents.durabel`; did you mean `durable`"),
        ("categories:\n  tents: {durable: false, replacement_days: 5}", 4, "drop one of them"),
        ("products:\n  P1: {substitutes: true}", 3, "said of a category"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(playbook, attributes, line, message):
    with pytest.raises(PlaybookError, match=message) as error:
        load_recommendations(playbook(attributes))
    assert f"defs.yaml:{line}" in str(error.value)


def test_a_second_declaration_is_refused(playbook):
    playbook("remind_days: 3")
    with pytest.raises(PlaybookError, match="declared twice"):
        load_recommendations(playbook("remind_days: 4", name="shop"))
