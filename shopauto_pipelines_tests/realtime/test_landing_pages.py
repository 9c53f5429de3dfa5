"""Landing pages: in the reader's language, without JavaScript, where the reader comes from goes with the form."""

import re

import pytest

from shopauto_pipelines.platform.playbook import PlaybookError
from shopauto_pipelines.realtime.collector.reading import Reader, Unreadable
from shopauto_pipelines.realtime.landing_pages import load_landing_pages
from shopauto_pipelines_tests.realtime.collecting import collecting, rows


@pytest.fixture
def shop(engine, monkeypatch, tmp_path):
    with collecting(engine, monkeypatch, tmp_path) as client:
        yield client


def filled_in(page, **typed):
    """What a browser sends for the form in a page."""
    tags = re.findall(r"<input [^>]*>", page)
    hidden = [tag for tag in tags if 'type="hidden"' in tag]
    return {re.search('name="(.*?)"', tag)[1]: re.search('value="(.*?)"', tag)[1] for tag in hidden} | typed


def test_who_fills_in_a_page_and_agrees_is_a_lead_with_consent_and_utm(engine, shop):
    page = shop.get("/pages/guide?utm_source=search&utm_campaign=spring", headers={"Accept-Language": "pt,en;q=0.5"})
    assert "Como escolher bem" in page.text
    form = filled_in(page.text, email="ana@example.com", first_name="Ana", consent="yes")
    sent = shop.post("/pages/guide", data=form)
    assert "O guia está a caminho" in sent.text
    shop.post("/pages/guide", data=form)  # clicked twice
    [stored] = rows(engine, "raw/form_submissions")
    assert (stored["form"], stored["utm_source"], stored["utm_campaign"]) == ("guide", "search", "spring")
    [customer], [consent] = rows(engine, "raw/customers"), rows(engine, "raw/consents")
    assert customer["shop_customer_id"] == consent["shop_customer_id"] == stored["shop_customer_id"]
    assert (customer["email"], customer["first_name"], customer["language"]) == ("ana@example.com", "Ana", "pt-BR")
    assert (consent["state"], consent["channel"]) == ("opted_in", "email")
    assert consent["wording"].startswith("Quero receber o guia")


def test_without_the_box_there_is_no_consent_and_nobody_becomes_known(engine, shop):
    shop.post("/pages/guide", data=filled_in(shop.get("/pages/guide").text, email="ana@example.com"))
    assert len(rows(engine, "raw/form_submissions")) == 1
    assert rows(engine, "raw/consents") == rows(engine, "raw/customers") == []


def test_what_is_no_address_is_asked_again_and_nothing_typed_is_lost(engine, shop):
    typed = {"email": "ana@", "first_name": '"Ana"', "consent": "yes"}
    again = shop.post("/pages/guide", data=filled_in(shop.get("/pages/guide").text, **typed))
    assert again.status_code == 422
    assert 'value="ana@"' in again.text
    assert "&#34;Ana&#34;" in again.text
    assert 'name="consent" value="yes" checked' in again.text
    assert rows(engine, "raw/form_submissions") == []


def test_what_is_not_taken_is_asked_again_and_our_own_faults_are_not_called_the_reader_s(shop, monkeypatch):
    form = filled_in(shop.get("/pages/guide").text, email="ana@example.com", first_name="Ana")

    def answer_where(fault):
        def form_of(*_, **__):
            raise fault

        monkeypatch.setattr(Reader, "form", form_of)
        return shop.post("/pages/guide", data=form)

    again = answer_where(Unreadable("email: too long"))
    assert (again.status_code, 'value="Ana"' in again.text) == (422, True)
    assert answer_where(ValueError("ours")).status_code == 500


def test_programs_that_fill_in_every_field_are_thanked_and_forgotten(engine, shop):
    form = filled_in(shop.get("/pages/guide").text, email="bot@example.com", website="https://spam.example")
    assert "The guide is on its way" in shop.post("/pages/guide", data=form).text
    assert rows(engine, "raw/form_submissions") == []


@pytest.mark.parametrize("body", [b"\xff=1", b"&".join(b"a%d=1" % n for n in range(60)), b""])
def test_what_is_not_the_form_is_refused(engine, shop, body):
    answer = shop.post("/pages/guide", content=body)
    assert answer.status_code == (422 if body == b"" else 400)
    assert rows(engine, "raw/form_submissions") == []


def test_a_page_that_nobody_declared_is_not_there(shop):
    assert shop.get("/pages/nothing").status_code == shop.post("/pages/nothing").status_code == 404


def test_a_wrong_page_is_told_with_its_place(tmp_path):
    folder = tmp_path / "landing_pages" / "x"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(
        "type: shopauto_pipelines.realtime.component.LandingPage\nattributes:\n  name: x\n  description: A page.\n"
        "  languages:\n    en: {title: T, intro: I, email: E, consnet: C, button: B, thanks: T}\n"
    )
    with pytest.raises(PlaybookError, match=r"defs\.yaml:6:\d+: landing page: "):
        load_landing_pages(tmp_path)
