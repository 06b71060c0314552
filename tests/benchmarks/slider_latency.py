"""How long a slider move takes in a real browser, from the slider's event to the last picture.

The app runs in a process of its own; Debian's chromium drives it. A move is done when every model's
edited picture has been replaced and decoded. Prints the median and the 95th percentile, how long
the first picture takes on a page that others have opened before, and how many pictures a second
there are while the slider is dragged.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np

from tests.benchmarks.app_process import served_app

# Moves the slider as a hand would, and waits until all rows show another picture.
MOVE_JS = """async (strength) => {
  const images = [...document.querySelectorAll(".hl-edited img")];
  const old = images.map((image) => image.src);
  const slider = document.querySelector("#strength input[type=range]");
  const start = performance.now();
  slider.value = strength;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  while (images.some((image, i) => image.src === old[i])) {
    if (performance.now() - start > 10000) throw new Error("no answer within 10 s");
    await new Promise((next) => requestAnimationFrame(next));
  }
  await Promise.all(images.map((image) => image.decode()));
  return performance.now() - start;
}"""

# Drags the slider for some seconds, and counts the pictures that the first row shows meanwhile.
DRAG_JS = """async (seconds) => {
  const image = document.querySelector(".hl-edited img");
  const slider = document.querySelector("#strength input[type=range]");
  const start = performance.now();
  let seen = image.src, count = 0;
  while (performance.now() - start < 1000 * seconds) {
    slider.value = 3 * Math.sin(performance.now() / 700);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((next) => requestAnimationFrame(next));
    if (image.src !== seen) { seen = image.src; count += 1; }
  }
  return count / seconds;
}"""


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="model folders; default: those in model_cards/")
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--rows", type=int, default=5, help="how many models to show")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        models = _enough(arguments.models, arguments.rows, Path(temporary))
        with served_app(*models) as app:
            times, sent, first, rate = measure(app.url, arguments.moves, arguments.rows)
    p50, p95 = np.percentile(times, [50, 95])
    print(f"{arguments.rows} models, {len(times)} moves, {sent / 1000:.0f} kB sent per move")
    print(f"first picture of a warm page: {first:.2f} s (goal: within 2 s)")
    print(f"dragging: {rate:.1f} pictures a second (goal: 15)")
    print(f"slider to pictures: p50 {p50:.0f} ms, p95 {p95:.0f} ms (goal: p95 within 100 ms)")


def _enough(given: Sequence[str], n: int, temporary: Path) -> list[str]:
    """Copies of the given models under other names, until there are enough."""
    models = list(given)
    for i in range(n - len(given) if given else 0):
        source = Path(given[i % len(given)])
        name = source.parent.name if source.name == "model" else source.name
        models.append(str(shutil.copytree(source, temporary / f"{name}-{i + 2}")))
    return models


def measure(url: str, n_moves: int, n_rows: int) -> tuple[list[float], float, float, float]:
    """Milliseconds of each move, the mean bytes of its answers, seconds to the first picture, and
    pictures a second while dragging."""
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(0)
    sizes: list[int] = []
    with sync_playwright() as running:
        chromium = shutil.which("chromium")
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(2):  # the first page warms up
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            page.goto(url)
            page.wait_for_selector(".hl-row .hl-edited img")
            first = time.perf_counter() - start
            page.wait_for_timeout(3000)
        page.goto(f"{url}/?mode=sigma&strength=3")
        page.wait_for_function(
            "n => document.querySelectorAll('.hl-edited img').length >= n", arg=n_rows
        )
        page.on("requestfinished", lambda request: sizes.append(_size(request)))
        # Each differs from the one before, or no picture would change.
        strengths = np.cumsum(rng.integers(1, 120, n_moves + 5)) % 121 / 10 - 6
        times = [float(page.evaluate(MOVE_JS, float(s))) for s in strengths]
        rate = float(page.evaluate(DRAG_JS, 4))
        browser.close()
    return times[5:], sum(sizes) / len(times), first, rate  # the first moves warm up


def _size(request: Any) -> int:
    return int(request.sizes()["responseBodySize"]) if "/gradio_api/" in request.url else 0


if __name__ == "__main__":
    main()
