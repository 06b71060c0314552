"""ModelShelf: the models that an app offers, opened by name, and what was lately asked of them."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from hublatent import models
from hublatent.checkpoint import CONFIG_NAME, WEIGHTS_NAME
from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.discovery import DEFAULT_METHOD
from hublatent.errors import DirectionError, HubError, HublatentError
from hublatent.hub import DIRECTIONS_NAME
from hublatent.model import LatentModel

MAX_OPEN_MODELS = 8
HOLDING_METHOD = "svm"  # the filter, which reads an attribute
# Owner and name, and nothing that could be a path of this machine.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

Value = TypeVar("Value")


class Cache:
    """The latest results under their keys; safe for several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is missing; two threads may make it twice."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]  # type: ignore[no-any-return, unused-ignore]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self.capacity:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A loaded model with its directions, and what it has lately been asked.

    Attributes:
        name: what the app calls it.
        model: the model.
        directions: its directions; None where it has none.
        problem: why it has none.
    """

    name: str
    model: LatentModel
    directions: DirectionSet | None
    problem: str = ""
    memory: Cache = field(default_factory=lambda: Cache(128))

    def find(self, attribute: str, method: str, held: tuple[str, ...] = ()) -> Direction:
        """The direction of an attribute, with the readings of others held where asked for."""
        if self.directions is None:
            raise DirectionError(self.problem)
        direction = self.directions[attribute, method]
        if attribute in held:
            raise DirectionError(f"{attribute} cannot be held still while it is being edited.")
        filters = [self.directions[name, HOLDING_METHOD] for name in held]
        direction = direction.orthogonal_to(*filters)
        return direction if direction.sigma is not None else direction.measured_on(self.model)


class ModelShelf:
    """Opens models by name, one thread at a time each, and keeps the latest in memory.

    Args:
        catalogue: name -> folder or Hub id, chosen by whoever runs the app.
        device: where models run; None takes a GPU where there is one.
    """

    def __init__(self, catalogue: Mapping[str, str], device: str | None = None) -> None:
        self.catalogue = dict(catalogue)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._open: OrderedDict[str, OpenModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The models on offer."""
        return tuple(self.catalogue)

    def open(self, name: str) -> OpenModel:
        """A model of the catalogue, or one of the Hub by its id; never another local folder.

        Raises:
            HublatentError: it is neither, or cannot be loaded.
        """
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # another visitor may be loading the same model: wait for it
            with self._lock:
                if name in self._open:
                    return self._open[name]
            try:
                opened = self._load(name)
                with self._lock:
                    self._open[name] = opened
                    while len(self._open) > MAX_OPEN_MODELS:
                        self._open.popitem(last=False)
            finally:
                with self._lock:
                    self._loading.pop(name, None)
            return opened

    def open_all(self, names: Sequence[str]) -> list[OpenModel]:
        """Those of several models that can be opened; `open` says why another cannot."""
        opened = []
        for name in names:
            with suppress(HublatentError):
                opened.append(self.open(name))
        return opened

    def _load(self, name: str) -> OpenModel:
        source = self.catalogue.get(name)
        # A visitor's Hub id is read as a stranger would read it, without the host's token.
        token = None if source is not None else False
        if source is None:
            source = _checked_hub_id(name, self.names)
        model = models.load(source, device=self.device, token=token)
        try:
            directions = DirectionSet.from_pretrained(source, model, model.commit, token=token)
        except (DirectionError, HubError) as error:
            has_file = (Path(source) / DIRECTIONS_NAME).is_file() or model.commit is not None
            missing = f"{name} has no {DIRECTIONS_NAME}; make one with training/find_directions.py."
            return OpenModel(name, model, None, str(error) if has_file else missing)
        return OpenModel(name, model, directions)


def find_models(folder: Path) -> dict[str, str]:
    """The latent models in the subfolders of a folder.

    Args:
        folder: such as model_cards/; it may be missing.

    Returns:
        Name -> folder, by name.
    """
    if not folder.is_dir():
        return {}
    return {path.name: str(path) for path in sorted(folder.iterdir()) if _is_latent_model(path)}


def collect_models(extra: tuple[str, ...], cards: Path) -> dict[str, str]:
    """The models of model_cards/ and those named at launch.

    Args:
        extra: folders or Hub ids.
        cards: the folder of bundled models.

    Returns:
        Name -> folder or Hub id.
    """
    catalogue = find_models(cards)
    for source in extra:
        folder = Path(source).expanduser()
        name = folder.resolve().name if folder.is_dir() else source
        stem, n = name, 2
        while catalogue.get(name, source) != source:
            name, n = f"{stem} ({n})", n + 1
        catalogue[name] = source
    return catalogue


def _is_latent_model(folder: Path) -> bool:
    if not (folder / WEIGHTS_NAME).is_file():
        return False
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("architecture") in models.ARCHITECTURES


def _checked_hub_id(name: str, offered: Sequence[str]) -> str:
    # hublatent.load() lets an existing folder win: no visitor may name one of this machine.
    if not _HUB_ID.fullmatch(name) or ".." in name or Path(name).exists():
        raise HubError(
            f"{name!r} is no model of this app and no Hub id such as 'user/model'. "
            f"Available: {', '.join(offered) or 'none'}."
        )
    return name


def offered_attributes(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The attributes that any of the models has a direction for."""
    sets = [o.directions for o in opened if o.directions is not None]
    return tuple(dict.fromkeys(name for s in sets for name in s.attributes))


def offered_methods(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The methods that any of the models has directions of; the default first."""
    sets = [o.directions for o in opened if o.directions is not None]
    names = dict.fromkeys(name for s in sets for name in s.methods)
    return tuple(sorted(names, key=lambda name: name != DEFAULT_METHOD))
