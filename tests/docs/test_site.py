"""The documents as a site: built strictly, searched from a folder, asking nobody else; and what assistants read."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dupmae

ROOT = Path(__file__).parents[2]
FOREIGN = re.compile(r"""<(?:script|link|img|iframe)[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+["']""")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built."""
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_its_pages_ask_nobody_else(site) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        links = FOREIGN.findall(page.read_text(encoding="utf-8"))
        assert [link for link in links if 'rel="canonical"' not in link] == [], page


def test_every_public_name_is_in_the_reference(site) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in dupmae.__all__:
        assert re.search(rf'id="dupmae[.\w]*\.{name}"', page), name


def test_links_out_of_the_documents_lead_to_the_repository(site) -> None:
    page = (site / "concepts.html").read_text(encoding="utf-8")
    assert "/blob/main/src/dupmae/pretraining/masking.py" in page
    overview = (site / "overview.html").read_text(encoding="utf-8")
    assert 'href="tutorial.html"' in overview


def test_the_site_can_be_searched_from_a_folder(site) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = next((path for path in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(path).exists()), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, asked = browser.new_page(), list[str]()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "overview.html").as_uri())
        page.wait_for_selector("iframe", state="attached")
        page.keyboard.press("s")
        page.keyboard.type("negatives", delay=20)
        page.wait_for_selector(".md-search-result__item")
        assert all(url.startswith("file:") for url in asked)
        browser.close()


def test_what_assistants_read_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "llms.txt").read_text(encoding="utf-8")):
        assert (ROOT / target).is_file(), target
    skill = (ROOT / "skills" / "dupmae" / "SKILL.md").read_text(encoding="utf-8")
    _, front, _ = skill.split("---\n", 2)
    assert set(yaml.safe_load(front)) == {"name", "description"}
