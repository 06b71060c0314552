"""The app in a real browser, at a desk and at a phone's width."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hublatent.demo.catalogue import find_models
from hublatent.demo.shelf import ModelShelf
from hublatent.inversion import projection

pytestmark = pytest.mark.browser
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
PATIENCE = 20_000


@pytest.fixture(scope="module")
def address(model_cards: Path) -> Iterator[str]:
    app = pytest.importorskip("app")
    shelf = ModelShelf(find_models(model_cards), device="cpu")
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


def test_scores_follow_the_attribute_and_fit(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny,eigenfaces-tiny&attribute=Male")
    page.get_by_role("tab", name="Scores").click()
    page.wait_for_selector("#scores table")
    assert page.locator("#scores tbody tr").count() == 4  # two models, two methods
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator("#attribute input").fill("Unheard_Of")
    page.keyboard.press("Enter")
    page.wait_for_function("!document.querySelector('#scores table')")


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


def test_a_face_without_an_encoder_is_looked_for_while_the_others_are_shown(
    page: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, found = threading.Event(), threading.Event()

    def project(model: Any, images: Any, *, progress: Any, **_: Any) -> Any:
        progress(3, 10)
        looking.set()
        assert found.wait(PATIENCE / 1000)
        return SimpleNamespace(latents=model.sample_latents(len(images)))

    monkeypatch.setattr(projection, "project", project)
    monkeypatch.setattr(ModelShelf, "classifier", lambda _: None)
    seed = page.viewport_size["width"]  # another face for each width: an answer is kept
    open_page(page, f"{address}?models=vae-tiny,stylegan2-tiny&face=vae-tiny&seed={seed}")
    page.locator("#waiting .hl-pending").wait_for()
    assert page.locator(".hl-edited").count() == 1
    assert looking.wait(PATIENCE / 1000)
    page.locator("#waiting [role=progressbar]").wait_for()
    found.set()
    page.wait_for_function("document.querySelectorAll('.hl-edited').length == 2")
    assert "projection, MSE" in page.locator(".hl-row").nth(1).inner_text()
    assert not page.locator("#waiting").is_visible()


def test_layers_are_asked_for_only_where_there_are_some(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny&face=vae-tiny")
    assert not page.locator("#layers").is_visible()
    open_page(page, f"{address}?models=stylegan2-tiny&face=stylegan2-tiny&layers=0-3")
    assert page.locator("#layers input").input_value() == "0-3"
    before = edited(page)
    page.locator("#layers input").fill("2-99")
    page.keyboard.press("Enter")
    assert "layers 0 to 7" in page.locator(".hl-problem").inner_text()
    page.locator("#layers input").fill("4-7")
    page.keyboard.press("Enter")
    wait_for_query(page, "layers=4-7")
    assert edited(page) != before


def test_a_slider_move_leaves_the_strip_in_place(page: Any, address: str) -> None:
    open_page(page, address)
    strip = page.locator(".hl-strip img").first
    strip.evaluate("image => { image.dataset.seen = 'yes'; }")
    page.locator("#strength input[type=number]").fill("-2.5")
    page.get_by_text("-2.5σ is α").first.wait_for()
    assert strip.get_attribute("data-seen") == "yes"
    difference = page.locator(".hl-difference img").first.get_attribute("src")
    page.locator("#strength input[type=number]").fill("0")
    page.get_by_text("+0.0σ is α").first.wait_for()
    assert page.locator(".hl-difference img").first.get_attribute("src") != difference
    assert "mean 0.000" in page.locator(".hl-difference").first.inner_text()
