"""The page in a real browser, where Debian's Chromium is installed."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_serving import HOSTILE, app_of

from dupmae import DuplexEncoder, DuplexIndex, Passage
from dupmae.serving.limits import Limits

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)")


class Live:
    """A server in a thread."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_config=None, timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def server(folder: Path) -> Iterator[Live]:
    live = Live(app_of(folder))
    yield live
    live.stop()


@pytest.fixture
def page(browser: Any, server: Live) -> Iterator[Any]:
    """The page at the width of a small telephone; it must log no error and ask no other machine."""
    opened = browser.new_page(viewport={"width": 360, "height": 640})
    opened.set_default_timeout(15_000)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: problems.append(request.url) if str(server.port) not in request.url else None)
    opened.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    opened.goto(f"http://127.0.0.1:{server.port}/")
    yield opened
    opened.close()
    assert problems == []


def until(page: Any, condition: str) -> None:
    """Wait until an expression holds; the page's policy forbids the browser to do that itself."""
    deadline = time.monotonic() + 15
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        time.sleep(0.02)


def documents(page: Any) -> list[str]:
    return [str(text) for text in page.locator("#hits h2").all_inner_texts()]


def test_hits_come_as_one_types_and_the_keyboard_reaches_them(page: Any, folder: Path, texts: list[str]) -> None:
    page.keyboard.type(texts[2])  # the field has the focus from the start
    page.locator("#hits article").first.wait_for()
    until(page, "document.querySelector('#status').textContent.includes('hits in')")
    assert documents(page) == [hit.title or hit.document for hit in DuplexIndex.open(folder).search([texts[2]])[0]]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator(".explanation table").first.wait_for()
    assert "Learned terms" in page.locator(".explanation").first.inner_text()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("Tab")
    page.keyboard.press("/")
    assert "q=" in page.url


def test_balance_and_filter_rank_again_at_once(page: Any, folder: Path, texts: list[str]) -> None:
    page.fill("#query", texts[2])
    page.locator("#hits article").first.wait_for()
    page.click("summary")
    page.fill("#where", "year<2000")
    until(page, "document.querySelectorAll('#hits article').length == 2")
    page.select_option("#choices select[name=lang]", "de")
    until(page, "document.querySelector('#status').textContent.startsWith('1 hit ')")
    page.fill("#where", "year<")
    until(page, "document.querySelector('#status').className == 'failed'")
    page.fill("#where", "")
    until(page, "document.querySelectorAll('#hits article').length > 2")
    german = DuplexIndex.open(folder).search([texts[2]], where="lang=de")[0]
    assert documents(page) == [hit.title or hit.document for hit in german]
    page.select_option("#choices select[name=lang]", "")
    for part in ("lexical", "words"):
        page.locator(f"#{part}").fill("0")
    until(page, "[...document.querySelectorAll('.bar .words')].every((bar) => bar.style.width == '0%')")
    from dupmae.index import Weights

    found = DuplexIndex.open(folder).search([texts[2]], weights=Weights(1, 0, 0))[0]
    until(page, f"document.querySelector('#hits .number')?.textContent == '{found[0].score:.2f}'")
    assert documents(page) == [hit.title or hit.document for hit in found]


def test_texts_stay_texts(page: Any) -> None:
    page.fill("#query", HOSTILE)
    page.locator("#hits article").first.wait_for()
    assert HOSTILE.replace("\x1b", "") in [text.replace("\x1b", "") for text in documents(page)]
    assert page.locator("#hits img").count() == 0
    assert page.title() == "Search"
    article = page.locator("article", has_text="onerror").first
    marked = article.locator("mark").all_inner_texts()
    assert marked
    assert all(word in HOSTILE for word in marked)


def test_an_index_that_changes_and_a_server_that_stops(
    page: Any, server: Live, folder: Path, duplex_folder: Path, texts: list[str]
) -> None:
    DuplexIndex(folder, DuplexEncoder(str(duplex_folder))).add([Passage("new", "A new one", texts[2])])
    page.fill("#query", texts[2])
    page.locator("#hits article").first.wait_for()
    assert "A new one" in documents(page)
    server.stop()
    page.fill("#query", texts[1])
    until(page, "document.querySelector('#status').textContent == 'The server does not answer.'")


def test_a_server_that_gives_few_hits_gives_them_to_the_page(browser: Any, built: Path, texts: list[str]) -> None:
    live = Live(app_of(built, limits=Limits(k=3)))
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{live.port}/?q={texts[2].split()[0]}")
        until(page, "document.querySelectorAll('#hits article').length == 3")
        page.close()
    finally:
        live.stop()


def test_a_key_is_taken_and_the_interface_is_described(browser: Any, built: Path, texts: list[str]) -> None:
    live = Live(app_of(built, keys=["secret"]))
    try:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{live.port}/?q={texts[2].split()[0]}")
        until(page, "document.querySelector('#status').textContent.includes('API key')")
        page.click("summary")
        page.fill("#key", "secret")
        page.keyboard.press("Tab")
        page.locator("#hits article").first.wait_for()
        page.goto(f"http://127.0.0.1:{live.port}/docs")
        page.get_by_text("POST /search").wait_for()
        page.close()
    finally:
        live.stop()
