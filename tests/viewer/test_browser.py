"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import ChatConversation, Document, SQLStorage
from tests.support.records import conversation
from tests.viewer.conftest import Client, served

pytestmark = pytest.mark.process

HOSTILE = (
    "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
)
COUNT = 45
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Generator[Client, None, None]:
    store = SQLStorage(tmp_path_factory.mktemp("talks") / "talks.duckdb")
    store.save_conversations(
        [
            conversation(
                f"question {n} {HOSTILE}",
                {"domain": "ab"[n % 2], HOSTILE: HOSTILE, "other": [HOSTILE, "x"][n % 2]},
                final_score=n / COUNT,
            )
            for n in range(COUNT - 1)
        ]
    )
    chat = [
        {"role": "user", "content": "a chat"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm."},
    ]
    store.save_conversations([ChatConversation(conversations=chat, metadata={"domain": "c"})])
    store.save_documents([Document(id="d", text=HOSTILE)])
    with served(store) as found:
        yield found


@pytest.fixture
def page(browser: Any, client: Client) -> Generator[Any, None, None]:
    context = browser.new_context(viewport={"width": 360, "height": 700})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    # The browser also reports the status of each answer that is an error.
    page.on("console", lambda said: faults.extend([said.text] * ("of 400" not in said.text)))
    page.goto(client.link)
    page.get_by_text(f"1 to 20 of {COUNT}").wait_for()
    page.get_by_label("metadata.domain").wait_for()
    yield page
    assert faults == []
    assert page.title() == "talks"  # no text of a record has run
    context.close()


def first(page: Any) -> str:
    return str(page.locator("article").first.inner_text())


def test_the_token_is_not_in_the_address(page: Any, client: Client) -> None:
    assert client.token not in page.url
    assert page.evaluate("document.cookie") == ""


def test_search_facet_and_sort_are_in_the_address(page: Any) -> None:
    page.get_by_label("Search", exact=True).nth(1).fill("final_score >= 0.5 AND question")
    page.get_by_text("of 21").wait_for()
    page.get_by_label("metadata.domain").select_option(label="b (11)")
    page.get_by_text("1 to 11 of 11").wait_for()
    page.get_by_label("Sort").select_option("-final_score")
    page.get_by_text("question 43").first.wait_for()
    page.reload()
    page.get_by_text("1 to 11 of 11").wait_for()
    assert "question 43" in first(page)
    assert page.get_by_label("Search", exact=True).nth(1).input_value().startswith("final_score")
    assert "metadata.domain" in page.url


def test_pages_and_the_back_button(page: Any) -> None:
    page.get_by_role("button", name="Next page").click()
    page.get_by_text(f"21 to 40 of {COUNT}").wait_for()
    assert "#21 " in first(page)
    page.get_by_role("button", name="Next page").click()
    page.get_by_text(f"41 to {COUNT} of {COUNT}").wait_for()
    assert page.get_by_role("button", name="Next page").is_disabled()
    page.go_back()
    page.get_by_text(f"21 to 40 of {COUNT}").wait_for()


def test_keys_go_from_record_to_record_and_from_page_to_page(page: Any) -> None:
    def focused() -> str:
        return str(page.evaluate("document.activeElement.querySelector('header').textContent"))

    for key, at in (("j", "#1 "), ("j", "#2 "), ("k", "#1 ")):
        page.keyboard.press(key)
        assert focused().startswith(at)
    for _ in range(20):
        page.keyboard.press("j")
    page.get_by_text(f"21 to 40 of {COUNT}").wait_for()
    page.wait_for_function("document.activeElement.tagName === 'ARTICLE'")
    assert focused().startswith("#21 ")
    page.keyboard.press("k")
    page.get_by_text(f"1 to 20 of {COUNT}").wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.tagName") == "INPUT"


def test_the_calls_are_shown_and_follow_the_search(page: Any) -> None:
    page.get_by_text("The same in Python and SQL").click()
    page.get_by_text("store.load_conversations(limit=20)").wait_for()
    page.get_by_label("metadata.domain").select_option(label="b (22)")
    page.get_by_text("filters=[('metadata.domain', '==', 'b')]").wait_for()
    assert page.locator("#sql").inner_text().startswith("SELECT *")


def test_a_link_leads_to_one_conversation(page: Any) -> None:
    page.get_by_label("Search", exact=True).nth(1).fill("a chat")
    page.get_by_text("1 to 1 of 1").wait_for()
    page.get_by_role("button", name="Link").click()
    page.wait_for_url("**hash=*")
    page.get_by_text("1 to 1 of 1").wait_for()
    for folded in ("reasoning", "calls find"):
        assert not page.locator("details[open]", has_text=folded).count()
        assert page.locator("summary", has_text=folded).is_visible()


def test_documents_completion_and_a_wrong_search(page: Any) -> None:
    page.get_by_label("kind").select_option("documents")
    page.get_by_text("1 to 1 of 1").wait_for()
    page.get_by_label("kind").select_option("conversations")
    page.get_by_text(f"1 to 20 of {COUNT}").wait_for()
    box = page.get_by_label("Search", exact=True).nth(1)
    box.press_sequentially("final")
    assert page.locator("datalist option").all_text_contents() == ["final_score"]
    box.fill("finalscore > 1")
    page.get_by_role("alert").wait_for()
    assert "Did you mean final_score" in page.get_by_role("alert").inner_text()


@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_the_window_and_has_a_dark_mode(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in ("body", "article", "nav", "article p"):
        color = f"getComputedStyle(document.querySelector('{part}'))"
        before = page.evaluate(f"{color}.backgroundColor + {color}.color")
        page.get_by_role("button", name="Dark or light").click()
        assert page.evaluate(f"{color}.backgroundColor + {color}.color") != before


@pytest.mark.parametrize("is_dark", [False, True])
def test_no_rule_of_accessibility_is_broken(page: Any, is_dark: bool) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    if is_dark:
        page.get_by_role("button", name="Dark or light").click()
    found = axe.Axe().run(page)
    assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []


def test_the_page_in_a_file_has_no_broken_rule_either(browser: Any, tmp_path: Path) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    store = SQLStorage("duckdb:///:memory:")
    store.save_conversations([conversation(f"question {n}", {"d": n % 2}) for n in range(6)])
    store.export_html(tmp_path / "look.html")
    page = browser.new_page()
    page.goto(f"file://{tmp_path / 'look.html'}")
    found = axe.Axe().run(page)
    page.close()
    assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []
