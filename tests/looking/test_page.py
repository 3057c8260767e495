"""Records are shown as they are, and nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    ChatConversation,
    Conversation,
    Document,
    InvalidQueryError,
    SQLStorage,
    StorageError,
)
from tests.support.records import conversation

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"><b>'&\u2028\x00\ud800"
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}


@pytest.fixture
def filled(storage: Any) -> Any:
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm."},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
    ]
    storage.save_conversations(
        [
            *(conversation(f"question {n}", {"domain": "ab"[n % 2], "n": n}) for n in range(3)),
            ChatConversation(conversations=chat, metadata={"domain": "c"}),
        ]
    )
    storage.save_documents([Document(id="night", text="x" * 5000)])
    return storage


class TestNotebooks:
    def test_a_cell_shows_who_says_what(self, filled: Any) -> None:
        shown = filled.show()
        html = shown._repr_html_()
        assert len(shown) == 4
        assert html.count("<article") == 4
        assert html.count("<b>user</b>") == 4
        assert "calls find" in html
        assert "<summary>reasoning</summary>" in html
        assert len(html) < 100_000

    def test_filters_order_and_kinds(self, filled: Any) -> None:
        shown = filled.show({"metadata.domain": "a"}, order_by="-metadata.n", limit=1)
        assert [each.metadata["n"] for each in shown] == [2]
        assert "(5,000 characters)" in filled.show(kind="documents")._repr_html_()
        assert "no records" in filled.show({"metadata.domain": "z"})._repr_html_()
        assert "no records" in repr(filled.show({"metadata.domain": "z"}))
        with pytest.raises(InvalidQueryError, match="kind"):
            filled.show(kind="records")

    def test_a_store_says_what_is_in_it(self, filled: Any) -> None:
        html = filled._repr_html_()
        assert ": 4 conversations, 1 document</p>" in html
        assert "<code>" in html

    def test_twenty_conversations_are_a_small_cell(self) -> None:
        store = SQLStorage("duckdb:///:memory:")
        store.save_conversations([conversation("text " * 100) for _ in range(40)])
        assert len(store.show()._repr_html_()) < 100_000


class TestPages:
    def test_the_file_has_the_records_and_no_other_source(
        self, filled: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "look.html"
        assert filled.export_html(path, title="My <talks>") == 4
        text = path.read_text("utf-8")
        assert text.count("<article") == 4
        assert "My &lt;talks&gt;" in text
        assert not re.search(r"https?://|\bsrc=|url\(", text)
        assert filled.export_html(path, limit=1, kind="documents") == 1
        assert path.read_text("utf-8").count("<article") == 1

    def test_nothing_is_written_over_the_store(self, filled: Any, tmp_path: Path) -> None:
        for own in filled._backend.files():
            with pytest.raises(InvalidQueryError, match="own file"):
                filled.export_html(own)
        with pytest.raises(StorageError):
            filled.export_html(tmp_path / "none" / "look.html")

    def test_hostile_text_is_escaped(self, tmp_path: Path) -> None:
        store = SQLStorage("duckdb:///:memory:")
        text = HOSTILE.replace("\ud800", "")
        store.save_conversations(
            [Conversation(conversations=[{"role": "user", "content": text}], metadata={text: text})]
        )
        store.export_html(tmp_path / "look.html", title=text)
        page = (tmp_path / "look.html").read_text("utf-8")
        assert "<img" not in page
        assert page.count("</script>") == 1


@pytest.mark.process
class TestBrowser:
    @pytest.fixture
    def page(self, browser: Any, tmp_path: Path) -> Generator[Any, None, None]:
        store = SQLStorage("duckdb:///:memory:")
        text = HOSTILE.replace("\ud800", "")
        store.save_conversations(
            [
                conversation(f"question {n} {text}", {"domain": "ab"[n % 2], "long": "x" * 300})
                for n in range(6)
            ]
        )
        store.export_html(tmp_path / "look.html", title="Talks")
        page = browser.new_page(viewport={"width": 360, "height": 700})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.goto(f"file://{tmp_path / 'look.html'}")
        yield page
        assert faults == []
        page.close()

    def seen(self, page: Any) -> int:
        return int(page.locator("article:visible").count())

    def test_search_menus_and_the_state_in_the_url(self, page: Any) -> None:
        assert page.title() == "Talks"  # no text of a record has run
        assert self.seen(page) == 6
        page.get_by_label("Search the text").fill("QUESTION 3")
        assert self.seen(page) == 1
        assert "q=QUESTION" in page.url
        page.reload()
        assert self.seen(page) == 1
        page.get_by_label("Search the text").fill("")
        page.get_by_label("metadata.domain").select_option("b")
        assert self.seen(page) == 3
        assert page.get_by_role("status").or_(page.locator("output")).first.inner_text() == "3 of 6"

    def test_keys_go_from_record_to_record(self, page: Any) -> None:
        for key, at in (("j", "#1"), ("j", "#2"), ("k", "#1")):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.textContent").startswith(at)
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.tagName") == "INPUT"

    @pytest.mark.parametrize("width", [360, 1400])
    def test_it_fits_the_window_and_has_a_dark_mode(self, page: Any, width: int) -> None:
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        color = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(color)
        page.get_by_role("button").click()
        assert page.evaluate(color) != before
