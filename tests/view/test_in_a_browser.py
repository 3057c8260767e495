"""The page of the viewer in a real browser."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.support.browsers import browser

__all__ = ["browser"]

pytestmark = pytest.mark.process


@pytest.fixture
def page(browser: Any, link: str) -> Generator[Any, None, None]:
    context = browser.new_context(viewport={"width": 360, "height": 700})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(link)
    expect(page, "1 to 20 of 50")
    yield page
    assert [each for each in faults if "400" not in each] == []
    context.close()


def expect(page: Any, text: str) -> None:
    """Wait until the page says this about its records."""
    page.wait_for_function("t=>document.querySelector('output').textContent===t", arg=text)


def first(page: Any) -> str:
    return str(page.locator("article").first.inner_text())


def test_nothing_in_a_record_is_executed(page: Any) -> None:
    assert page.title() != "run"
    assert page.locator("img").count() == 0
    assert "token" not in page.url


def test_search_menus_order_and_the_state_in_the_url(page: Any) -> None:
    page.get_by_label("Search", exact=True).last.fill("metadata.n >= 10")
    expect(page, "1 to 20 of 40")
    page.get_by_label("metadata.domain").select_option('"b"')
    expect(page, "1 to 20 of 20")
    page.get_by_label("Order").select_option("metadata.n:desc")
    page.wait_for_function(
        "()=>document.querySelector('article').textContent.includes('question 49')"
    )
    page.reload()
    expect(page, "1 to 20 of 20")
    assert "question 49" in first(page)
    assert page.get_by_label("metadata.domain").input_value() == '"b"'
    page.get_by_label("Search", exact=True).last.fill("metadata.n in 3")
    page.wait_for_selector(".error:visible")
    assert "JSON list" in page.locator(".error").inner_text()


def test_paging_and_keys(page: Any) -> None:
    page.get_by_role("button", name="Next").click()
    expect(page, "21 to 40 of 50")
    page.keyboard.press("n")
    expect(page, "41 to 50 of 50")
    assert page.get_by_role("button", name="Next").is_disabled()
    page.keyboard.press("p")
    expect(page, "21 to 40 of 50")
    focused = "document.activeElement.textContent"
    for key, at in (("j", "#21"), ("j", "#22"), ("k", "#21")):
        page.keyboard.press(key)
        page.wait_for_function(f"t=>{focused}.startsWith(t)", arg=at)
    page.keyboard.press("k")
    page.wait_for_function(f"t=>{focused}.startsWith(t)", arg="#20")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"


def test_a_link_a_copy_and_the_code(page: Any) -> None:
    article = page.locator("article").nth(2)
    article.get_by_role("button", name="Copy as JSON").click()
    page.wait_for_selector("article button:has-text('Copied')")
    assert '"n": 2' in page.evaluate("navigator.clipboard.readText()")
    article.get_by_role("button", name="Link").click()
    expect(page, "1 to 1 of 1")
    assert "question 2" in first(page)
    assert "content_hash" in page.url
    page.get_by_text("The same in Python and SQL").click()
    page.wait_for_function(
        "()=>document.querySelector('#code pre').textContent.startsWith('store.')"
    )


@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_the_window_and_has_a_dark_mode(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    color = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(color)
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate(color) != before


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_screen_readers_find_every_control(page: Any, mode: str) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe is not installed")
    page.emulate_media(color_scheme=mode)
    found = axe.Axe().run(page)
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
