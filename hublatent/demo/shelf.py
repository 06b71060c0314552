"""ModelShelf: the models that an app offers, opened by name, and what was lately asked of them."""

from __future__ import annotations

import logging
import math
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import scan_cache_dir
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hublatent.checkpoint import CONFIG_NAME, MAX_CONFIG_BYTES, folder_name
from hublatent.demo.verdicts import Judges
from hublatent.direction import Direction, LayerRange, offered_ranges
from hublatent.direction_set import DirectionSet
from hublatent.discovery import DEFAULT_METHOD
from hublatent.errors import DirectionError, HubError, HublatentError, find_name
from hublatent.hub import DIRECTIONS_NAME, MODEL_FILES, HubModel, snapshot
from hublatent.hub.download import MAX_DOWNLOAD_BYTES
from hublatent.images import MAX_BYTES, MAX_PIXELS
from hublatent.mapping import LatentMap, load_maps
from hublatent.mapping.latent_map import BUNDLED_FOLDER
from hublatent.model import LatentModel
from hublatent.models import architecture_of, why_no_latent_model
from hublatent.perception.classifier import AttributeClassifier
from hublatent.perception.faces import FaceDetector, FaceIdentity

CLASSIFIER, DETECTOR, IDENTITY = "attributes-celeba", "face-detector", "face-identity"
JUDGE = "judge-celeba"  # of audits, and of nothing else
FACE_KEY_DIGITS = 16
STORED_LATENTS_NAME = "sample_latents.safetensors"
VISITORS_CACHE = Path(tempfile.gettempdir()) / "hublatent-visitors"
N_LOADING = 64  # models that are loaded at once, at most
HOLDING_METHOD = "svm"  # the filter, which reads an attribute
# What was measured to edit best there, by its direction file; else DEFAULT_METHOD.
BEST_METHOD = "best of each model"
# Owner and name, and nothing that could be a path of this machine.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# A path of several parts, but not an address such as https://host/path.
_PATH = re.compile(r"(?<![\w:/.~-])~?/(?:[^\s/'\",:;]+/)+([^\s/'\",:;]*)")

logger = logging.getLogger("hublatent")
Value = TypeVar("Value")
Network = TypeVar("Network", bound=HubModel)


@dataclass(frozen=True)
class Limits:
    """What those who use an app may ask of the machine it runs on; at home, unless told."""

    local_paths: bool = True  # whether a typed model may be a folder of this machine
    download_bytes: int = MAX_DOWNLOAD_BYTES  # largest model that a typed Hub id may name
    # Memory for open models, and disk for those that visitors named; the longest unused leave
    # first, those that visitors named before those of the app.
    open_bytes: int = 4 << 30
    kept_bytes: int = 1 << 50
    upload_bytes: int = MAX_BYTES  # largest picture file
    upload_pixels: int = MAX_PIXELS  # largest width x height of a picture
    face_side: int = 1024  # faces are kept no wider than this
    photo_side: int = 2048  # photos are kept no larger than this
    request_seconds: float = math.inf  # longest time that one request may take


LOCAL = Limits()
PUBLIC = Limits(
    local_paths=False, download_bytes=200_000_000, open_bytes=1 << 30, kept_bytes=2 << 30,
    upload_bytes=16 << 20, upload_pixels=25_000_000, face_side=512, photo_side=1024,
    request_seconds=20,
)  # fmt: skip


class Cache:
    """The latest results under their keys, none of them None; safe for several threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> Any:
        """The value of a key; None where there is none."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> Value:
        """Keep a value; the longest unused leave."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.capacity:
                self._values.popitem(last=False)
        return value

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is missing; two threads may make it twice."""
        found = self.find(key)
        return self.put(key, make()) if found is None else found


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A loaded model with its directions, and what it has lately been asked."""

    name: str  # what the app calls it
    model: LatentModel
    fingerprint: str  # of its weights
    directions: DirectionSet | None
    problem: str = ""  # why it has no directions
    # Face key -> latents (*latent_shape) that were found beforehand.
    stored_latents: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Cache = field(default_factory=lambda: Cache(64))  # what was lately shown
    composed: Cache = field(default_factory=lambda: Cache(4))  # what was lately composed: large
    projections: Cache = field(default_factory=lambda: Cache(256))  # face key -> what took long

    def face_key(self, seed: int | str) -> str:
        """What identifies the face that this model draws from a seed."""
        return f"{self.fingerprint[:FACE_KEY_DIGITS]}#{seed}"

    def drew(self, face_key: str) -> bool:
        """Whether this model drew a face, whatever it was called then."""
        return face_key.startswith(self.face_key(""))

    @property
    def n_layers(self) -> int:
        """How many layers its latents have; 0 where they have none."""
        return self.model.latent_shape[0] if len(self.model.latent_shape) == 2 else 0

    def find(
        self, attribute: str, method: str, held: Sequence[str] = (),
        layers: LayerRange | None = None,
    ) -> Direction:  # fmt: skip
        """The direction of an attribute, with the readings of others held where asked for.

        BEST_METHOD takes the attribute's default; without `layers` the direction moves its own.
        """
        if self.directions is None:
            raise DirectionError(self.problem)
        if attribute in held:
            raise DirectionError(f"{attribute} cannot be held still while it is being edited.")
        known = [d for d in self.directions if find_name(attribute, [d.attribute])]
        if len(known) == 1:  # a direction of one's own is known by one method alone
            method = self.directions.method_of(known[0])
        best = method == BEST_METHOD
        found = [self.directions.default(attribute) if best else self.directions[attribute, method]]
        found += [self.directions[name, HOLDING_METHOD] for name in held]
        if layers is not None:
            found = [layers.of(direction) for direction in found]
        direction = found[0].orthogonal_to(*found[1:])
        return direction if direction.sigma is not None else direction.with_sigma(self.model)

    def method_of(self, direction: Direction) -> str:
        """How one of its directions was found, and the layers it moves if not all of them."""
        method = self.directions.method_of(direction) if self.directions else direction.method
        moved = direction.layers or ()
        if len(moved) == self.n_layers:
            return method
        whole = len(moved) == moved[-1] - moved[0] + 1
        layers = LayerRange(moved[0], moved[-1]) if whole else " ".join(map(str, moved))
        return f"{method}, layers {layers}"


class ModelShelf:
    """Opens models by name, one thread at a time each, and keeps the latest in memory.

    Args:
        catalogue: name -> folder or Hub id, chosen by whoever runs the app.
        device: where models run; None takes a GPU where there is one.
        limits: what visitors may ask for.
        cards: folder of the networks that judge faces, each in a folder of its own.
    """

    def __init__(
        self, catalogue: Mapping[str, str], device: str | None = None, limits: Limits = PUBLIC,
        cards: Path | None = None,
    ) -> None:  # fmt: skip
        self.catalogue = dict(catalogue)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.limits = limits
        self.cards = cards
        self.projecting = threading.Lock()  # one face at a time: it takes all of the machine
        self._open: OrderedDict[str, OpenModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = [threading.Lock() for _ in range(N_LOADING)]  # each of some names

    @property
    def names(self) -> tuple[str, ...]:
        """The models on offer."""
        return tuple(self.catalogue)

    @property
    def open_bytes(self) -> int:
        """Memory that the weights of the open models take."""
        return sum(n_bytes(opened.model) for opened in self._open.values())

    def open(self, name: str) -> OpenModel:
        """A model of the catalogue, one of the Hub by its id, or, if allowed, a local folder."""
        opened = self._find(name)
        if opened is not None:
            return opened
        # Another visitor may be loading the same model: wait for it.
        with self._loading[hash(name) % len(self._loading)]:
            opened = self._find(name)
            if opened is not None:
                return opened
            opened = self._load(name)
            with self._lock:
                self._open[name] = opened
                while len(self._open) > 1 and self.open_bytes > self.limits.open_bytes:
                    others = (key for key in self._open if key != name)
                    self._open.pop(min(others, key=lambda key: key in self.catalogue))
            return opened

    def _find(self, name: str) -> OpenModel | None:
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
            return self._open.get(name)

    def open_all(self, names: Sequence[str]) -> list[OpenModel]:
        """Those of several models that can be opened; `open` says why another cannot."""
        opened = []
        for name in names:
            with suppress(HublatentError):
                opened.append(self.open(name))
        return opened

    def add(self, name: str, direction: Direction) -> None:
        """Give an open model one more direction until the app ends; one of its name is replaced."""
        opened = self.open(name)
        others = [d for d in opened.directions or () if d.name != direction.name]
        known = opened.directions or DirectionSet.of(opened.model, ())
        directions = known.with_directions((*others, direction))
        with self._lock:
            self._open[name] = replace(
                opened, directions=directions, memory=Cache(64), composed=Cache(4)
            )

    @cached_property
    def judges(self) -> Judges:
        """The networks that read faces; those that are not in the folder of cards are None."""

        def judge(network: type[Network], name: str) -> Network | None:
            if self.cards is None or not (self.cards / name).is_dir():
                return None
            return network.from_pretrained(self.cards / name, device=self.device)

        return Judges(
            judge(AttributeClassifier, CLASSIFIER), judge(FaceDetector, DETECTOR),
            judge(FaceIdentity, IDENTITY),
        )  # fmt: skip

    @cached_property
    def maps(self) -> tuple[LatentMap, ...]:
        """The maps between the latent spaces of the models, beside which they lie."""
        return () if self.cards is None else load_maps(self.cards / BUNDLED_FOLDER)

    def tell(self, error: HublatentError) -> str:
        """An error as those who use the app may read it: in public without this machine's paths."""
        text = str(error)
        return text if self.limits.local_paths else _PATH.sub(r"\1", text)

    def _load(self, name: str) -> OpenModel:
        """A model whose files are all of one commit."""
        ours = name in self.catalogue
        source = self.catalogue[name] if ours else self._checked(name)
        # A visitor's Hub id is read as a stranger would read it, without the host's token.
        stranger = not ours and not self.limits.local_paths
        common: dict[str, Any] = {"token": False, "cache_dir": VISITORS_CACHE} if stranger else {}
        # A large model is not downloaded to find it unknown.
        config = snapshot(source, files=(CONFIG_NAME,), max_bytes=MAX_CONFIG_BYTES, **common)
        architecture = architecture_of(config)
        where = snapshot(
            source, revision=config.commit, files=MODEL_FILES, optional=(DIRECTIONS_NAME,),
            max_bytes=MAX_DOWNLOAD_BYTES if ours else self.limits.download_bytes, **common,
        )  # fmt: skip
        if stranger:
            trim_cache(VISITORS_CACHE, self.limits.kept_bytes, source)
        model = architecture.from_snapshot(where, device=self.device)
        fingerprint = model.fingerprint()
        stored = read_stored_latents(where.folder, fingerprint, model.latent_shape)
        path, directions, problem = where.folder / DIRECTIONS_NAME, None, ""
        try:
            if not path.is_file():
                raise DirectionError(
                    f"{name} has no {DIRECTIONS_NAME}; make one with training/find_directions.py."
                )
            directions = DirectionSet.load(path, model)
        except DirectionError as error:
            problem = str(error)
        return OpenModel(name, model, fingerprint, directions, problem, stored)

    def _checked(self, name: str) -> str:
        """A typed name that may be opened."""
        if self.limits.local_paths and Path(name).expanduser().is_dir():
            return name
        # hublatent.load() lets an existing folder win: no visitor may name one of this machine.
        if not is_hub_id(name) or Path(name).exists():
            raise HubError(
                f"{name!r} is no model of this app and no Hub id such as 'user/model'. "
                f"Available: {', '.join(self.names) or 'none'}."
            )
        return name


def is_hub_id(name: str) -> bool:
    """Whether a text is a Hub id, and no path but of two parts."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def trim_cache(cache: Path, limit: int, newest: str) -> None:
    """Delete the longest unused repositories but the newest of a Hub cache beyond a limit."""
    if not cache.is_dir():
        return
    info = scan_cache_dir(cache)
    excess = info.size_on_disk - limit
    for repo in sorted(info.repos, key=lambda repo: repo.last_accessed):
        if excess > 0 and repo.repo_id != newest:
            info.delete_revisions(*(r.commit_hash for r in repo.revisions)).execute()
            excess -= repo.size_on_disk


def n_bytes(model: nn.Module) -> int:
    """Memory that a model's weights and buffers take."""
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def find_models(folder: Path) -> dict[str, str]:
    """Name -> folder of the latent models in a folder like model_cards/; it may be missing."""
    if not folder.is_dir():
        return {}
    folders = [path for path in sorted(folder.iterdir()) if not why_no_latent_model(path)]
    return {path.name: str(path) for path in folders}


def collect_models(extra: tuple[str, ...], cards: Path) -> dict[str, str]:
    """The models of model_cards/ and the folders or Hub ids that were named at launch.

    Returns:
        Name -> folder or Hub id; a second of the same name gets a number.
    """
    catalogue = find_models(cards)
    for source in extra:
        folder = Path(source).expanduser()
        name = folder_name(folder) if folder.is_dir() else source
        stem, n = name, 2
        while catalogue.get(name, source) != source:
            name, n = f"{stem} ({n})", n + 1
        catalogue[name] = source
    return catalogue


def offered_attributes(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """The attributes that any of the models has a direction for."""
    sets = [o.directions for o in opened if o.directions is not None]
    return tuple(dict.fromkeys(name for s in sets for name in s.attributes))


def offered_methods(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """BEST_METHOD where a model has a default, then the methods that any of them knows."""
    sets = [o.directions for o in opened if o.directions is not None]
    names = list(dict.fromkeys(name for s in sets for name in s.methods))
    has_default = DEFAULT_METHOD in names or any(s.defaults for s in sets)
    names.sort(key=lambda name: name != DEFAULT_METHOD)
    return (BEST_METHOD, *names) if has_default else tuple(names)


def offered_layers(opened: Sequence[OpenModel]) -> tuple[str, ...]:
    """Layer ranges to choose from, for the model with the most layers; () without layers."""
    return offered_ranges(max((o.n_layers for o in opened), default=0))


def read_stored_latents(
    folder: Path, fingerprint: str, latent_shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """Face key -> latent (*latent_shape) that were stored for a model; none of other weights."""
    path = folder / STORED_LATENTS_NAME
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            owner = (file.metadata() or {}).get("fingerprint")
            latents = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        logger.warning("%s cannot be read and is skipped: %s.", path, error)
        return {}
    if owner == fingerprint and all(tuple(z.shape) == latent_shape for z in latents.values()):
        return latents
    logger.warning("%s belongs to other weights and is skipped.", path)
    return {}
