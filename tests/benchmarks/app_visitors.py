"""Many visitors at once on the app as a public Space shows it: errors, memory, waiting.

The app runs with --public in a process of its own. Each visitor speaks to it as a browser does,
through Gradio's queue: opens the page, moves the slider, now and then picks another attribute or
another face. Prints the errors, the 95th percentile of each kind of event, and the memory.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from argparse import ArgumentParser
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import httpx
import numpy as np

from tests.benchmarks.app_process import RunningApp, served_app

ATTRIBUTES = ("Eyeglasses", "Smiling", "Male", "Young", "Blond_Hair", "Bangs")
# What a visitor does next, and how often: mostly the slider is moved.
ACTIONS = {"slide": 10, "redraw": 2, "change_face": 2}
SECONDS_BETWEEN = (0.5, 3.0)
PATIENCE = 60.0


@dataclass
class Tally:
    """What all visitors met, together."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="model folders beside those in model_cards/")
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    with served_app(*arguments.models, options=("--public",)) as app:
        tally = Tally()
        memory = _visit(app, arguments.visitors, arguments.seconds, tally)
    _report(tally, memory, arguments.visitors, arguments.seconds)
    raise SystemExit(1 if tally.errors else 0)


def _visit(app: RunningApp, n: int, seconds: float, tally: Tally) -> list[int]:
    """Let the visitors loose; returns the memory before, in the middle and at the end."""
    end = time.monotonic() + seconds
    visitors = [Visitor(app.url, seed, tally) for seed in range(n)]
    threads = [threading.Thread(target=visitor.stay, args=(end,)) for visitor in visitors]
    memory = [app.memory()]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    memory.append(app.memory())
    for thread in threads:
        thread.join()
    return [*memory, app.memory(), app.memory("VmHWM")]


class Visitor:
    """One page in one browser."""

    def __init__(self, url: str, seed: int, tally: Tally) -> None:
        self.url = f"{url}/gradio_api"
        self.seed = seed
        self.tally = tally
        self.random = random.Random(seed)
        self.session = f"visitor{seed}"
        self.client = httpx.Client(timeout=PATIENCE)
        self.functions: dict[str, int] = {}

    def stay(self, end: float) -> None:
        """Open the page, then do one thing after the other until it is time to leave."""
        try:
            time.sleep(self.random.uniform(0, 3))
            config = self.client.get(self.url.removesuffix("/gradio_api") + "/config").json()
            self.functions = _functions(config)
            values = self.ask("load", [])
            models, attribute, method, source = (_value(values[i]) for i in (0, 2, 3, 5))
            chosen = [models, attribute, method, [], "sigma", 3.0, "as found"]
            while time.monotonic() < end:
                self.act(chosen, source)
                time.sleep(self.random.uniform(*SECONDS_BETWEEN))
        except (httpx.HTTPError, RuntimeError, KeyError, ValueError) as error:
            with self.tally.lock:
                self.tally.errors.append(f"{self.session}: {type(error).__name__}: {error}")
        finally:
            self.client.close()

    def act(self, chosen: list[Any], source: str) -> None:
        """Do one thing; None stands for the server's own state, the face."""
        (action,) = self.random.choices(list(ACTIONS), list(ACTIONS.values()))
        if action == "slide":
            chosen[5] = round(self.random.uniform(-6, 6), 1)
            self.ask(action, [None, *chosen])
        elif action == "redraw":
            chosen[1] = self.random.choice(ATTRIBUTES)
            self.ask(action, [None, *chosen])
        else:
            self.ask(action, [source, self.random.randrange(1000), *chosen])

    def ask(self, name: str, data: list[Any]) -> list[Any]:
        """Send one event through the queue and wait for its answer."""
        start = time.perf_counter()
        event = {
            "data": data, "fn_index": self.functions[name], "session_hash": self.session,
            "trigger_id": None, "event_data": None,
        } if self.functions else {}  # fmt: skip
        answer = self.client.post(f"{self.url}/queue/join", json=event)
        answer.raise_for_status()
        output = self._wait(answer.json()["event_id"])
        with self.tally.lock:
            self.tally.seconds[name].append(time.perf_counter() - start)
        return output

    def _wait(self, event_id: str) -> list[Any]:
        address = f"{self.url}/queue/data"
        with self.client.stream("GET", address, params={"session_hash": self.session}) as lines:
            for line in lines.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "unexpected_error":
                    raise RuntimeError(message.get("message"))
                if message["msg"] == "process_completed" and message["event_id"] == event_id:
                    if not message["success"]:
                        raise RuntimeError(str(message["output"])[:300])
                    return list(message["output"]["data"])
        raise RuntimeError("the stream ended before the answer came")


def _functions(config: dict[str, Any]) -> dict[str, int]:
    """Name -> number of the first event that calls it."""
    found: dict[str, int] = {}
    for dependency in config["dependencies"]:
        found.setdefault(str(dependency["api_name"]), int(dependency["id"]))
    return found


def _value(update: Any) -> Any:
    return update["value"] if isinstance(update, dict) else update


def _report(tally: Tally, memory: list[int], n: int, seconds: float) -> None:
    print(f"{n} visitors, {seconds:.0f} s, {len(tally.errors)} errors")
    for error in tally.errors[:5]:
        print(f"  {error}")
    for name, times in sorted(tally.seconds.items()):
        p50, p95 = np.percentile(times, [50, 95]) * 1000
        print(f"{name:12} {len(times):5} events, p50 {p50:6.0f} ms, p95 {p95:6.0f} ms")
    names = ("before", "half-way", "at the end", "at most")
    sizes = zip(names, memory, strict=True)
    print("memory (RSS): " + ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in sizes))


if __name__ == "__main__":
    main()
