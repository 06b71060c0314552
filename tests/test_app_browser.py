"""The app in a real browser, at a desk and at a phone's width."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hublatent.demo.shelf import DETECTOR, LOCAL, PUBLIC, Limits, ModelShelf, find_models
from hublatent.inversion import projection
from tests.conftest import PROJECT

pytestmark = pytest.mark.browser
WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}
PATIENCE = 20_000
EXAMPLE = PROJECT / "model_cards" / "example.png"


@contextmanager
def served(model_cards: Path, folder: Path, limits: Limits) -> Iterator[str]:
    pytest.importorskip("gradio")
    from hublatent.demo.page import launch

    # The detector is the bundled one; the classifier does not know what tiny models draw.
    (folder / DETECTOR).symlink_to(PROJECT / "model_cards" / DETECTOR)
    shelf = ModelShelf(find_models(model_cards), device="cpu", limits=limits, cards=folder)
    blocks = launch(shelf, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield blocks.local_url
    blocks.close()


@pytest.fixture(scope="module")
def address(model_cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(model_cards, tmp_path_factory.mktemp("judges"), PUBLIC) as url:
        yield url


@pytest.fixture(scope="module")
def home(model_cards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(model_cards, tmp_path_factory.mktemp("judges"), LOCAL) as url:
        yield url


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
    return str(page.locator(".hl-row").nth(row).locator(".hl-edited img").get_attribute("src"))


PICTURE_JS = "document.querySelectorAll('.hl-edited img')[row]?.getAttribute('src')"


def wait_for_picture(page: Any, src: str, row: int = 0) -> None:
    page.wait_for_function(f"([src, row]) => {PICTURE_JS} === src", arg=[src, row])


def wait_for_another_picture(page: Any, src: str, row: int = 0) -> None:
    page.wait_for_function(f"([src, row]) => {PICTURE_JS} !== src", arg=[src, row])


def open_page(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(".hl-shown img")


def wait_for_query(page: Any, part: str) -> None:
    # The whole of it: seed=2 is not seed=21.
    page.wait_for_function("part => location.search.split(/[?&]/).includes(part)", arg=part)


def is_phone(page: Any) -> bool:
    return bool(page.viewport_size["width"] < 600)


def on_first_screen(page: Any, selector: str) -> bool:
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    return bool(
        box["x"] >= 0 and box["y"] >= 0 and box["x"] + box["width"] <= size["width"]
        and box["y"] + box["height"] <= size["height"]
    )  # fmt: skip


def test_everything_to_edit_with_is_on_the_first_screen(page: Any, address: str) -> None:
    open_page(page, address)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for part in ("#shelf .hl-face >> nth=0", "#pills", "#strength", ".hl-shown .hl-edited"):
        assert on_first_screen(page, part), part
    assert page.locator(".hl-row").count() == 4
    visible = page.locator(".hl-row:visible")
    assert visible.count() == (1 if is_phone(page) else 4)
    for picture in page.locator("#shelf img, #matrix img").all():
        assert picture.get_attribute("alt")


def test_the_slider_edits_every_row_and_stays_in_sight(page: Any, address: str) -> None:
    open_page(page, address)
    before = [edited(page, row) for row in range(2)]
    page.locator("#strength input[type=number]").fill("-5")
    wait_for_query(page, "strength=-5")
    for row, old in enumerate(before):
        wait_for_another_picture(page, old, row)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("scrollY + innerHeight >= document.body.scrollHeight - 2")
    box = page.locator("#strength").bounding_box()
    assert 0 <= box["y"] < page.viewport_size["height"]


def test_back_and_forward_undo_and_redo(page: Any, address: str) -> None:
    open_page(page, f"{address}?attribute=Eyeglasses")
    first = edited(page)
    page.locator(".hl-pill", has_text="Smile").click()
    wait_for_query(page, "attribute=Smiling")
    wait_for_another_picture(page, first)
    second = edited(page)
    page.go_back()
    page.locator('.hl-pill[aria-pressed="true"]', has_text="Glasses").wait_for()
    wait_for_picture(page, first)
    page.locator("[data-action=redo]").click()
    page.locator('.hl-pill[aria-pressed="true"]', has_text="Smile").wait_for()
    wait_for_picture(page, second)


def test_an_attribute_is_found_as_people_type_it(page: Any, address: str) -> None:
    open_page(page, f"{address}?attribute=Male")
    page.locator("#attribute input").fill("glasses")
    page.keyboard.press("Enter")
    wait_for_query(page, "attribute=Eyeglasses")
    page.locator('.hl-pill[aria-pressed="true"]', has_text="Glasses").wait_for()


def test_a_frame_moves_all_models_and_holding_shows_the_unedited_picture(
    page: Any, address: str
) -> None:
    open_page(page, address)
    page.locator(".hl-shown .hl-frame").nth(5).click()
    wait_for_query(page, "strength=4")
    page.wait_for_function("document.querySelector('#strength input[type=number]').value === '4'")
    figure = page.locator(".hl-shown .hl-edited")
    shown, unedited = figure.locator("img"), page.locator(".hl-shown .hl-unedited img")
    after = shown.get_attribute("src")
    figure.hover()
    page.mouse.down()
    assert shown.get_attribute("src") == unedited.get_attribute("src")
    page.mouse.up()
    assert shown.get_attribute("src") == after


def test_a_model_is_chosen_on_a_phone(page: Any, address: str) -> None:
    open_page(page, address)
    if not is_phone(page):
        assert not page.locator(".hl-tabs").is_visible()
        return
    page.locator(".hl-tabs button").nth(2).click()
    name = page.locator(".hl-row:visible").get_attribute("data-model")
    assert name != "stylegan2-tiny", "the model that drew the face comes first"
    page.locator(".hl-pill", has_text="Male").click()
    wait_for_query(page, "attribute=Male")
    assert page.locator(".hl-row:visible").get_attribute("data-model") == name


def test_scores_follow_the_attribute_and_fit(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny,eigenfaces-tiny&attribute=Male")
    page.get_by_role("tab", name="Scores").click()
    page.wait_for_selector("#scores table")
    assert page.locator("#scores tbody tr").count() >= 2
    assert page.locator("[role=tab]").all_inner_texts()[-2:] == ["Map", "Scores"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_link_restores_the_view(page: Any, address: str) -> None:
    query = "?models=vae-tiny,eigenfaces-tiny&attribute=Male&method=svm&strength=1.5"
    open_page(page, f"{address}{query}&face=eigenfaces-tiny&seed=6")
    assert page.locator(".hl-row h3").all_inner_texts()[0] == "vae-tiny"
    assert page.locator('.hl-pill[aria-pressed="true"]').inner_text() == "Male"
    assert page.locator("#seed input").input_value() == "6"
    assert "+1.5σ" in page.locator(".hl-numbers").first.text_content()
    wait_for_query(page, "seed=6")
    first = edited(page)
    open_page(page, page.url)
    assert edited(page) == first


def test_a_face_is_picked_and_the_strips_are_saved(page: Any, address: str) -> None:
    from PIL import Image

    open_page(page, address)
    page.locator(".hl-face[title^='face 2,']").click()
    wait_for_query(page, "seed=2")
    with page.expect_download() as download:
        page.locator("#download-strip").click()
    with Image.open(download.value.path()) as strips:
        assert strips.format == "PNG"
        assert strips.width > 7 * 128


def test_uploads_are_shown_or_refused_in_words(page: Any, address: str, tmp_path: Path) -> None:
    from PIL import Image

    open_page(page, address)
    page.locator("[data-toggle=upload-panel]").click()
    good, bad = tmp_path / "face.png", tmp_path / "face.jpg"
    Image.radial_gradient("L").save(good)
    bad.write_text("no picture")
    before = edited(page, 1)
    page.locator("#upload input[type=file]").set_input_files(str(bad))
    told = page.get_by_text("is not a picture")
    told.wait_for()
    assert told.inner_text().startswith("face.jpg ")
    assert edited(page, 1) == before
    open_page(page, address)
    page.locator("[data-toggle=upload-panel]").click()
    page.locator("#upload input[type=file]").set_input_files(str(good))
    page.get_by_text("No face was found").wait_for()
    assert edited(page, 1) == before, "a picture's centre is used only if that is asked for"
    page.locator("#use-square").click()
    page.locator(".hl-face[title='your picture']").wait_for()
    wait_for_another_picture(page, before, 1)
    page.wait_for_function("!location.search.includes('seed')")


def test_a_face_off_the_centre_is_found(page: Any, address: str, tmp_path: Path) -> None:
    from PIL import Image

    photo = Image.new("RGB", (600, 400), "#5a7896")
    photo.paste(Image.open(EXAMPLE).convert("RGB").resize((220, 220)), (340, 150))
    photo.save(tmp_path / "photo.png")
    open_page(page, address)
    page.locator("[data-toggle=upload-panel]").click()
    page.locator("#upload input[type=file]").set_input_files(str(tmp_path / "photo.png"))
    page.wait_for_selector(".hl-crop polygon", state="attached")
    corners = page.locator(".hl-crop polygon").get_attribute("points").split()
    x, y = (sum(float(c.split(",")[i]) for c in corners) / 4 for i in range(2))
    assert 400 < x < 500 and 200 < y < 320, "the square lies around the face"


def test_back_keeps_the_visitors_photo(page: Any, address: str) -> None:
    open_page(page, f"{address}?attribute=Smiling&face=vae-tiny&seed=3")
    wait_for_query(page, "seed=3")
    page.locator("[data-toggle=upload-panel]").click()
    page.locator("#upload input[type=file]").set_input_files(str(EXAMPLE))
    page.wait_for_function("!location.search.includes('seed')")
    own = page.locator(".hl-original img").get_attribute("src")
    for label, name in (("Glasses", "Eyeglasses"), ("Male", "Male")):
        page.locator(".hl-pill", has_text=label).click()
        wait_for_query(page, f"attribute={name}")

    def wait_for_view(pill: str, caption: str) -> None:
        page.locator('.hl-pill[aria-pressed="true"]', has_text=pill).wait_for()
        page.locator(".hl-original", has_text=caption).wait_for(state="attached")

    page.go_back()
    wait_for_view("Glasses", "your picture")
    assert page.locator(".hl-original img").get_attribute("src") == own
    page.go_back()
    wait_for_view("Smile", "your picture")
    page.go_back()
    wait_for_view("Smile", "drawn by vae-tiny, seed 3")
    page.go_forward()
    wait_for_view("Smile", "your picture")
    assert page.locator(".hl-original img").get_attribute("src") == own


def test_a_number_beyond_the_slider_is_its_end(page: Any, home: str) -> None:
    open_page(page, home)
    if is_phone(page):  # the options stand below
        page.locator("#mode").scroll_into_view_if_needed()
    for mode, end in (("The paper's α", "40"), ("Standard deviations", "6")):
        page.locator("#mode input").click()
        page.get_by_role("option", name=mode).click()
        page.wait_for_function(
            "max => document.querySelector('#strength input').max === max", arg=end
        )
        field = page.locator("#strength input[type=number]")
        field.fill("100000")
        field.press("Enter")
        page.get_by_text(f"The slider ends at {end}").first.wait_for()
        page.wait_for_function(
            "end => document.querySelector('#strength input[type=number]').value === end", arg=end
        )
        wait_for_query(page, f"strength={end}")
        assert "+6σ" in page.locator(".hl-numbers").first.text_content() or end == "40"


TOPMOST_JS = """() => [...document.querySelectorAll('#bar button')].every((button) => {
  const box = button.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return document.querySelector('#bar').contains(top) || box.right > innerWidth;
})"""


def test_the_square_is_placed_beside_the_bar(page: Any, address: str) -> None:
    open_page(page, address)
    page.locator("[data-toggle=upload-panel]").click()
    page.locator("#upload input[type=file]").set_input_files(str(EXAMPLE))
    page.wait_for_selector(".hl-crop polygon", state="attached")
    for label in page.locator("#nudges label").all():
        assert label.bounding_box()["height"] < 30, "in one line"
    for scrolled in range(0, 400, 20):
        page.evaluate("y => scrollTo(0, y)", scrolled)
        assert page.evaluate(TOPMOST_JS), "nothing is drawn over the bar"


def test_a_typed_path_is_refused_in_its_row(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny,/etc/passwd")
    assert "no Hub id" in page.locator(".hl-problem").text_content()


def test_a_face_without_an_encoder_is_looked_for_while_the_others_are_shown(
    page: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, found = threading.Event(), threading.Event()

    def project(model: Any, images: Any, *, progress: Any, **_: Any) -> Any:
        while not found.wait(0.1):
            looking.set()
            progress(3, 10)
        return SimpleNamespace(latents=model.sample_latents(len(images)))

    monkeypatch.setattr(projection, "project", project)
    seed = page.viewport_size["width"]  # another face for each width: an answer is kept
    query = f"{address}?models=vae-tiny,stylegan2-tiny&face=vae-tiny&seed="
    open_page(page, f"{query}{seed + 1}")
    page.locator("#waiting .hl-pending").wait_for()
    assert looking.wait(PATIENCE / 1000)
    page.locator("#stop").click()
    page.locator("#waiting .hl-pending").wait_for(state="detached")
    looking.clear()
    open_page(page, f"{query}{seed}")
    page.locator("#waiting .hl-pending").wait_for()
    assert page.locator(".hl-edited").count() == 1
    assert looking.wait(PATIENCE / 1000)
    page.locator("#search progress").wait_for()
    found.set()
    page.wait_for_function("document.querySelectorAll('.hl-edited').length == 2")
    assert "Projection" in page.locator(".hl-row").nth(1).locator(".hl-details").text_content()
    assert not page.locator("#waiting").is_visible()


def test_every_tab_stands_in_the_bar_once_whichever_was_opened(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny&face=vae-tiny")
    page.get_by_role("tab", name="Make a direction").click()
    page.wait_for_selector(".hl-sorted img")
    page.get_by_role("tab", name="Scores").click()
    page.wait_for_selector("#scores table")
    names = ["Edit", "Compose", "Make a direction", "Map", "Scores"]
    assert page.locator("[role=tab]").all_inner_texts() == names


def test_layers_are_asked_for_only_where_there_are_some(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny&face=vae-tiny")
    assert not page.locator("#layers").is_visible()
    open_page(page, f"{address}?models=stylegan2-tiny&face=stylegan2-tiny&layers=0-3")
    assert page.locator("#layers input").input_value() == "0-3"
    before = edited(page)
    page.locator("#layers input").fill("2-99")
    page.keyboard.press("Enter")
    page.locator(".hl-problem", has_text="layers 0 to 7").wait_for()
    page.locator("#layers input").fill("4-7")
    page.keyboard.press("Enter")
    wait_for_query(page, "layers=4-7")
    wait_for_another_picture(page, before)


def test_a_slider_move_leaves_the_frames_in_place(page: Any, address: str) -> None:
    open_page(page, address)
    frame = page.locator(".hl-frame img").first
    frame.evaluate("image => { image.dataset.seen = 'yes'; }")
    page.locator("#strength input[type=number]").fill("-2.5")
    page.wait_for_function(
        "document.querySelector('.hl-numbers').textContent.includes('-2.5σ is α')"
    )
    assert frame.get_attribute("data-seen") == "yes"
    page.locator("#strength input[type=number]").fill("0")
    page.wait_for_function(
        "document.querySelector('.hl-numbers').textContent.includes('pixels 0.000')"
    )


def test_a_direction_is_made_of_two_heaps(page: Any, home: str) -> None:
    open_page(page, f"{home}?face=eigenfaces-tiny&models=eigenfaces-tiny,vae-tiny")
    page.get_by_role("tab", name="Make a direction").click()
    faces = page.locator(".hl-sorted")
    faces.first.wait_for()
    for i in range(10):
        faces.nth(i).click(click_count=1 if i < 5 else 2)
    assert faces.nth(9).get_attribute("aria-label") == "face 9: without"
    page.locator("#made-name :is(input, textarea)").fill("Waves")
    page.locator("[data-ask=find]").click()
    page.locator(".hl-made").first.wait_for()
    assert page.locator(".hl-made .hl-strip").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as download:
        page.locator("#made-files a[download]").first.click()
    assert download.value.suggested_filename == "Waves-eigenfaces-tiny.safetensors"
    assert not page.locator("#restyle").is_visible(), "it has no styles"
    page.locator("#use-made").click()
    wait_for_query(page, "attribute=Waves")
    page.locator('.hl-pill[aria-pressed="true"]', has_text="Waves").wait_for()


def test_a_direction_is_made_of_two_folders_in_a_zip_file(
    page: Any, address: str, tmp_path: Path
) -> None:
    import io
    import zipfile

    from PIL import Image

    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        for folder, ground in (("before", 60), ("after", 180)):
            for i in range(5):
                picture = io.BytesIO()
                Image.new("RGB", (64, 64), (ground, 20 * i, 90)).save(picture, "PNG")
                archive.writestr(f"{folder}/{i}.png", picture.getvalue())
    open_page(page, f"{address}?face=eigenfaces-tiny&models=eigenfaces-tiny")
    page.get_by_role("tab", name="Make a direction").click()
    page.locator(".hl-sorted").first.wait_for()
    assert not page.locator("#use-made").is_visible(), "there is nothing to use yet"
    assert not page.locator("#push-row").is_visible()
    page.locator("#with-files input[type=file]").set_input_files(str(tmp_path / "pairs.zip"))
    page.locator("#with-files").get_by_text("pairs").wait_for()
    page.locator("#made-name :is(input, textarea)").fill("Bright")
    page.locator("[data-ask=find]").click()
    page.locator(".hl-made .hl-strip").first.wait_for()
    assert "100%" in page.locator(".hl-made p").first.inner_text()
    page.locator("#made-files a[download]").wait_for()
    assert not page.locator("#use-made").is_visible(), "strangers share the models"


def test_several_changes_are_composed_and_saved(page: Any, address: str) -> None:
    from PIL import Image

    open_page(page, f"{address}?models=vae-tiny,eigenfaces-tiny&face=vae-tiny")
    page.get_by_role("tab", name="Compose").click()
    shown = page.locator(".hl-card img")
    past = page.locator(".hl-past .hl-face")
    past.first.wait_for()
    seen = [shown.first.get_attribute("src")]
    for slider in (0, 1):
        page.locator(".hl-change input[type=number]").nth(slider).fill("4")
        page.wait_for_function(
            "old => document.querySelector('.hl-card img').src != old", arg=seen[-1]
        )
        seen.append(shown.first.get_attribute("src"))
    page.keyboard.press("Tab")  # the slider is let go, so what it made is remembered
    page.locator(".hl-past .hl-face[title*='+4σ, ']").first.wait_for()
    oldest = past.last.get_attribute("title")
    past.last.click()
    page.wait_for_function(
        "old => document.querySelector('.hl-card img').getAttribute('src') === old", arg=seen[0]
    )
    assert oldest == "Smile +2σ", "the history brings a composition back"
    page.locator(".hl-divide").fill("100")
    assert "0%" in page.locator(".hl-compare img").nth(1).evaluate(
        "i => getComputedStyle(i).clipPath"
    )
    page.locator(".hl-divide").fill("0")
    with page.expect_download() as download:
        page.locator("#compose-gif").click()
    with Image.open(download.value.path()) as animation:
        assert animation.format == "GIF" and animation.n_frames > 12
        assert animation.width == 2 * 160 + 2
    page.locator("#compose-reset").click()  # then both pictures of a card are the same
    page.wait_for_function(
        "() => { const [edited, unedited] = document.querySelectorAll('.hl-card img');"
        " return edited.src == unedited.src; }"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_model_of_the_hub_joins_the_others(
    page: Any, address: str, model_cards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hublatent.demo import hub_search
    from hublatent.demo.hub_search import FoundRepo

    found = FoundRepo(str(model_cards / "betavae-tiny"), "model with directions", 12, None)
    monkeypatch.setattr(hub_search, "search_hub", lambda *_: [found])
    monkeypatch.setattr(hub_search, "holds_model", lambda *_: True)
    monkeypatch.setattr(ModelShelf, "_checked", lambda _, name: name)
    open_page(page, f"{address}?models=vae-tiny&face=vae-tiny")
    page.get_by_text("Find models and directions").click()
    page.locator("#hub-search").click()
    page.locator(".hl-found").click()
    page.wait_for_function("document.querySelectorAll('.hl-row').length == 2")


def test_a_sample_on_the_map_is_edited(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny,eigenfaces-tiny&face=vae-tiny&seed=3")
    page.get_by_role("tab", name="Map").click()
    page.wait_for_selector(".hl-plane circle[data-i='999']", state="attached")
    assert page.locator(".hl-here").count() == 1, "today's face is among them"
    assert "threshold" in page.locator(".hl-histogram").get_attribute("aria-label")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".hl-plane circle[data-i='17']").dispatch_event("click")
    wait_for_query(page, "seed=17")
    assert "seed 17" in page.locator(".hl-original").inner_text()


def test_the_map_is_walked_with_the_keys(page: Any, address: str) -> None:
    open_page(page, f"{address}?models=vae-tiny&face=vae-tiny&seed=3")
    page.get_by_role("tab", name="Map").click()
    page.wait_for_selector(".hl-plane circle[data-i='999']", state="attached")
    page.locator("#map-model input").focus()
    for _ in range(4):  # model, attribute, perhaps the arrangement, then the map
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.hl-plane svg')"):
            break
    current = page.locator(".hl-current")

    def place() -> tuple[float, float]:
        return tuple(float(current.get_attribute(name)) for name in ("cx", "cy"))

    page.keyboard.press("ArrowRight")  # the first point
    page.keyboard.press("PageDown")
    assert current.get_attribute("data-i") == "1", "every point has its turn"
    for key, axis, sign in (("ArrowRight", 0, 1), ("ArrowUp", 1, -1), ("ArrowLeft", 0, -1)):
        before = place()
        page.keyboard.press(key)
        assert sign * (place()[axis] - before[axis]) > 0, key
    seed = current.get_attribute("data-i")
    assert page.locator(".hl-at").inner_text().startswith(f"Face {seed}")
    assert page.locator(".hl-peek").is_visible()
    page.keyboard.press("Enter")
    wait_for_query(page, f"seed={seed}")
