"""Many visitors at once on the app as a public Space shows it: errors, memory, waiting.

The app runs with --public in a process of its own. Each visitor speaks to it as a browser does,
through Gradio's queue: opens the page, moves the slider, now and then picks another attribute or
another face. Prints the errors, the 95th percentile of each kind of event, and the memory. With
--attacker the same again while one more asks for as much as possible without waiting for answers,
and by how much the others' 95th percentiles grow.
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
    parser.add_argument("--attacker", action="store_true", help="again, with an attacker")
    arguments = parser.parse_args()
    tallies = []
    for attacked in (False, True)[: 1 + arguments.attacker]:
        with served_app(*arguments.models, options=("--public",)) as app:
            time.sleep(10)  # it warms up
            tally, stop = Tally(), threading.Event()
            attacker = Attacker(app.url, stop)
            if attacked:
                attacker.start()
            memory = _visit(app, arguments.visitors, arguments.seconds, tally)
            stop.set()
            if attacked:
                print(f"one attacker: {attacker.n_sent} requests, {attacker.n_refused} refused")
        _report(tally, memory, arguments.visitors, arguments.seconds)
        tallies.append(tally)
    if arguments.attacker:
        _report_growth(*tallies)
    raise SystemExit(1 if any(tally.errors for tally in tallies) else 0)


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


def client_from(address: str) -> httpx.Client:
    """A client with an address of its own: all of 127.0.0.0/8 is this machine (on Linux)."""
    return httpx.Client(
        timeout=PATIENCE, transport=httpx.HTTPTransport(local_address=address, retries=3)
    )


class Attacker:
    """Asks for much, in many threads and under ever new names, and waits for no answer."""

    def __init__(self, url: str, stop: threading.Event) -> None:
        self.url = url
        self.stop = stop
        self.n_sent = self.n_refused = 0

    def start(self) -> None:
        """Begin in the background."""
        config = httpx.get(f"{self.url}/config").json()
        models = next(
            [choice[1] for choice in part["props"]["choices"]]
            for part in config["components"]
            if part["props"].get("elem_id") == "models"
        )
        for i in range(8):
            arguments = (random.Random(i), _functions(config), models[:8])
            threading.Thread(target=self._attack, args=arguments, daemon=True).start()

    def _attack(self, choose: random.Random, functions: dict[str, int], models: list[str]) -> None:
        client = client_from("127.0.9.9")
        while not self.stop.is_set():
            held = choose.sample(ATTRIBUTES, 4)
            attribute = next(name for name in ATTRIBUTES if name not in held)
            chosen = [models, attribute, "joint", held, "effect", 80, "as found"]
            event = {
                "data": [None, None, models[0], choose.randrange(10**6), *chosen],
                "fn_index": functions["change_face"], "session_hash": f"x{choose.random()}",
            }  # fmt: skip
            try:
                answer = client.post(f"{self.url}/gradio_api/queue/join", json=event)
                self.n_sent += 1
                self.n_refused += answer.status_code == 503
            except httpx.HTTPError:
                pass
            time.sleep(0.05)


class Visitor:
    """One page in one browser."""

    def __init__(self, url: str, seed: int, tally: Tally) -> None:
        self.url = f"{url}/gradio_api"
        self.seed = seed
        self.tally = tally
        self.random = random.Random(seed)
        self.session = f"visitor{seed}"
        self.client = client_from(f"127.0.{1 + seed // 200}.{1 + seed % 200}")
        self.functions: dict[str, int] = {}

    def stay(self, end: float) -> None:
        """Open the page, then do one thing after the other until it is time to leave."""
        try:
            time.sleep(self.random.uniform(0, 3))
            config = self.client.get(self.url.removesuffix("/gradio_api") + "/config").json()
            self.functions = _functions(config)
            parts = {part["props"].get("elem_id"): part["props"] for part in config["components"]}
            names = ("models", "attribute", "method", "source")
            models, attribute, method, source = (parts[name]["value"] for name in names)
            self.ask("load", [None] * 11)
            chosen = [models, attribute, method, [], "effect", 80, "as found"]
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
            chosen[5] = self.random.randrange(1, 100)
            self.ask(action, [None, *chosen])
        elif action == "redraw":
            chosen[1] = self.random.choice(ATTRIBUTES)
            self.ask(action, [None, None, source, 0, *chosen])
        else:
            self.ask(action, [None, None, source, self.random.randrange(1000), *chosen])

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


def _report_growth(alone: Tally, attacked: Tally) -> None:
    for name in sorted(alone.seconds):
        before, after = (np.percentile(t.seconds[name], 95) for t in (alone, attacked))
        print(f"{name:12} p95 with an attacker is {after / before:.2f} times that without")


if __name__ == "__main__":
    main()
