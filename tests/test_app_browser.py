"""The app in a real browser, at a desk and at a phone's width."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hublatent.catalogue import find_models
from hublatent.shelf import ModelShelf
from tests.tiny_models import build_model_folders

pytestmark = pytest.mark.browser
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
PATIENCE = 20_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = pytest.importorskip("app")
    root = tmp_path_factory.mktemp("model_cards")
    build_model_folders(root)
    shelf = ModelShelf(find_models(root), device="cpu")
    blocks = app.launch(shelf, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield blocks.local_url
    blocks.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's chromium is not installed")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=WIDTHS)
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, height = WIDTHS[request.param]
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.set_default_timeout(PATIENCE)
    outside: list[str] = []
    errors: list[str] = []
    local = ("http://127.0.0.1", "http://localhost", "data:", "blob:")
    opened.on("request", lambda r: outside.append(r.url) if not r.url.startswith(local) else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    opened.close()
    assert not outside, "the app works without the internet"
    assert not errors


def edited(page: Any, row: int = 0) -> str:
    return str(page.locator(".hl-row").nth(row).locator("img").nth(2).get_attribute("src"))


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(".hl-row img")


def wait_for_query(page: Any, part: str) -> None:
    page.wait_for_function("part => location.search.includes(part)", arg=part)


def test_the_page_fits_and_the_slider_edits_every_row(page: Any, address: str) -> None:
    open_page(page, address)
    assert page.locator(".hl-row").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    before = [edited(page, row) for row in range(2)]
    page.locator("#strength input[type=number]").fill("-5")
    wait_for_query(page, "strength=-5")
    assert all(edited(page, row) != old for row, old in enumerate(before))
    page.locator(".hl-row").nth(2).scroll_into_view_if_needed()
    page.mouse.wheel(0, 600)
    page.wait_for_function("scrollY > 300")
    assert page.locator("#strength").bounding_box()["y"] >= 0, "the slider stays in sight"
    for image in page.locator(".hl-row img").all():
        assert image.get_attribute("alt")


def test_a_link_restores_the_view(page: Any, address: str) -> None:
    query = "?models=vae-tiny,eigenfaces-tiny&attribute=Male&method=svm&strength=1.5"
    open_page(page, f"{address}{query}&face=eigenfaces-tiny&seed=6")
    assert page.locator(".hl-row h3").all_inner_texts() == ["vae-tiny", "eigenfaces-tiny"]
    assert page.locator("#attribute input").input_value() == "Male"
    assert page.locator("#seed input").input_value() == "6"
    assert "+1.5σ" in page.locator(".hl-row").first.inner_text()
    page.wait_for_function("document.querySelector('#link textarea, #link input').value")
    link = page.locator("#link textarea, #link input").input_value()
    first = edited(page)
    open_page(page, link)
    assert edited(page) == first


def test_a_sample_is_picked_and_the_strip_downloaded(page: Any, address: str) -> None:
    from PIL import Image

    open_page(page, address)
    page.locator("#samples button.thumbnail-item, #samples .thumbnail-item").nth(2).click()
    wait_for_query(page, "seed=2")
    with page.expect_download() as download:
        page.locator("#download-strip").click()
    with Image.open(download.value.path()) as strips:
        assert strips.format == "PNG"
        assert strips.width > 7 * 128


def test_uploads_are_shown_or_refused_in_words(page: Any, address: str, tmp_path: Path) -> None:
    from PIL import Image

    open_page(page, address)
    page.get_by_role("tab", name="Your picture").click()
    good, bad = tmp_path / "face.png", tmp_path / "face.jpg"
    Image.radial_gradient("L").save(good)
    bad.write_text("no picture")
    before = edited(page)
    page.locator("#upload input[type=file]").set_input_files(str(bad))
    page.get_by_text("is not a picture").wait_for()
    assert edited(page) == before
    open_page(page, address)
    page.get_by_role("tab", name="Your picture").click()
    page.locator("#upload input[type=file]").set_input_files(str(good))
    page.wait_for_function("!location.search.includes('seed')")
    assert edited(page) != before
    assert page.get_by_text("It is not part of the link").is_visible()


def test_a_typed_path_is_refused_in_its_row(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny,/etc/passwd")
    assert "no Hub id" in page.locator(".hl-problem").inner_text()
