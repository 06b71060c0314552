"""README's pictures of the app, taken from the running app; all faces in them are drawn by models.

Run: python tests/benchmarks/app_screenshots.py
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.benchmarks.app_process import PROJECT, served_app

FOLDER = PROJECT / "model_cards"
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
PATIENCE = 90_000


def main() -> None:
    with served_app() as app, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        desk, phone = (
            browser.new_page(viewport={"width": width, "height": height})
            for width, height in SIZES.values()
        )
        for page in (desk, phone):
            page.set_default_timeout(PATIENCE)
            page.goto(app.url)
            page.wait_for_selector(".hl-shown img")
            page.wait_for_timeout(1000)
        _save([desk, phone], "app-edit.jpg")
        desk.get_by_role("tab", name="Map").click()
        desk.wait_for_selector(".hl-plane circle[data-i='999']", state="attached")
        desk.wait_for_timeout(1000)
        _save([desk], "app-map.jpg")
        browser.close()


def _save(pages: list[Any], name: str) -> None:
    """The pages side by side."""
    shots = [Image.open(io.BytesIO(page.screenshot())).convert("RGB") for page in pages]
    gap = 24
    size = (sum(s.width for s in shots) + gap * (len(shots) - 1), max(s.height for s in shots))
    joined, left = Image.new("RGB", size, "white"), 0
    for shot in shots:
        joined.paste(shot, (left, 0))
        left += shot.width + gap
    joined.save(FOLDER / name, quality=85)
    print(f"wrote {FOLDER / name}")


if __name__ == "__main__":
    main()
