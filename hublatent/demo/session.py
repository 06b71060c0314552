"""One face, one edit, several models: what the app shows, without the app.

EditRequest   which models, attribute, method and strength; also a link's query string
compare_edits a row of pictures and words per model
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import torch
from PIL import Image
from scipy.special import expit
from torch import Tensor

from hublatent.demo import faces, verdicts
from hublatent.demo.faces import Face, NotProjectedError, drawn_face, latents_of
from hublatent.demo.shelf import BEST_METHOD, ModelShelf, OpenModel
from hublatent.demo.verdicts import MAX_STRENGTH, SWEEP, UNEDITED, Judges, Sweep, Verdict
from hublatent.direction import Direction, LayerRange
from hublatent.editing import edit, probability, to_sigma, traverse
from hublatent.errors import HublatentError, shorten, unknown_name
from hublatent.figures import fit
from hublatent.images import to_pil
from hublatent.stats import Floats

MAX_ROWS = 8  # models, and attributes that are held
MAX_NAME = 200  # letters of a model's path, an attribute and the like
# What the page shows first: an edit that every bundled model can do.
DEFAULT_ATTRIBUTE, DEFAULT_SEED = "Smiling", 129
AS_FOUND = "as found"  # the layers that a direction has of itself
Answer = TypeVar("Answer")
# Pictures are kept no wider than they are shown, whatever size a model draws.
SHOWN_SIDE, FRAME_SIDE = 512, 128
# An equal effect is reached when the classifier sees so much of it; after so many steps it is not.
TOLERANCE, MAX_STEPS = 0.01, 4


class Mode(NamedTuple):
    """What the slider's number means: its name, what it asks for, and the slider's numbers."""

    label: str
    asks: str
    low: float
    high: float
    step: float
    default: float
    unit: str


# By their names in links. Percentages are of the classifier's probability in every model alike, or
# of the probability that a direction itself predicts.
MODES = {
    "effect": Mode("Equal effect", "to this % in every model", 1, 99, 1, 80, "%"),
    "sigma": Mode("Standard deviations", "by σ", -MAX_STRENGTH, MAX_STRENGTH, 0.1, 3, "σ"),
    "alpha": Mode("The paper's α", "by α", -40, 40, 0.1, 4, "α"),
    "probability": Mode("Target probability", "to this %, by its direction", 1, 99, 1, 80, "%"),
}


def checked_number(what: str, given: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number within a range, whatever was given."""
    try:
        value = float(given)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise HublatentError(f"The {what} is {shorten(given)}; expected a number.")
    if not low <= value <= high:
        raise HublatentError(f"The {what} is {value:g}; expected {low:,.12g} to {high:,.12g}.")
    return value


def checked_seed(what: str, given: Any) -> int:
    """The seed of a face, whatever was given; 0 for None."""
    return int(checked_number(what, given or 0, 0, faces.MAX_SEED))


def checked_text(what: str, given: Any) -> str:
    """A short text, whatever was given; "" for None."""
    if given is not None and (not isinstance(given, str) or len(given) > MAX_NAME):
        raise HublatentError(
            f"The {what} is {shorten(given)}; expected a text of at most {MAX_NAME} letters."
        )
    return given or ""


def checked_names(what: str, given: Any) -> tuple[str, ...]:
    """A few different names, whatever was given; () for None."""
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)):
        raise HublatentError(f"{what} is {shorten(given)}; expected a list of names.")
    if len(given) > MAX_ROWS:
        raise HublatentError(f"{len(given)} {what}; at most {MAX_ROWS} are taken.")
    return tuple(dict.fromkeys(checked_text(f"name among the {what}", name) for name in given))


def checked_layers(what: str, given: Any) -> LayerRange | None:
    """The layers that a control names; None leaves them to the direction."""
    text = checked_text(what, given)
    return LayerRange.parse(text) if text and text != AS_FOUND else None


# What may be asked for, by its name on the page and in a link: the field of EditRequest that holds
# it, and what checks it.
ASKED: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "models": ("models", checked_names), "attribute": ("attribute", checked_text),
    "method": ("method", checked_text), "hold": ("held", checked_names),
    "layers": ("layers", checked_layers), "mode": ("mode", checked_text),
    "strength": ("strength", checked_number), "face": ("source", checked_text),
    "seed": ("seed", checked_seed),
}  # fmt: skip


@dataclass(frozen=True)
class EditRequest:
    """What is to be edited, how and by whom."""

    models: tuple[str, ...] = ()  # in the order of their rows
    attribute: str = DEFAULT_ATTRIBUTE
    method: str = BEST_METHOD
    held: tuple[str, ...] = ()  # attributes whose readings stay where they are
    mode: str = "sigma"  # what the strength means, one of MODES
    strength: float = 3.0
    source: str = ""  # the model that draws the face from the seed
    seed: int = DEFAULT_SEED
    layers: LayerRange | None = None  # to move, where there are some; None: the direction's own

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise HublatentError(unknown_name("mode", self.mode, MODES))
        mode = MODES[self.mode]
        if not mode.low <= self.strength <= mode.high:
            raise HublatentError(
                f"Strength {self.strength}; expected {mode.low:g} to {mode.high:g}{mode.unit}."
            )

    @property
    def wanted(self) -> tuple[str, str, tuple[str, ...], LayerRange | None]:
        """What finds a model's direction; nothing else that is asked changes a row's `still`."""
        return self.attribute, self.method, self.held, self.layers

    @classmethod
    def of(cls, given: Mapping[str, Any], default: EditRequest | None = None) -> EditRequest:
        """What the page, a link or a script says by the names in ASKED, whatever it is.

        What is left out is taken from `default`.

        Raises:
            HublatentError: a value is malformed or out of range.
        """
        known = {name: value for name, value in given.items() if name in ASKED}
        changes = {ASKED[name][0]: ASKED[name][1](name, value) for name, value in known.items()}
        return replace(default or cls(), **changes)

    @classmethod
    def from_query(cls, query: Mapping[str, str], default: EditRequest) -> EditRequest:
        """Read a link's decoded query string; what it leaves out is taken from `default`."""
        given: dict[str, Any] = dict(query)
        for name in ("models", "hold"):
            if name in query:
                given[name] = [part for part in query[name].split(",") if part]
        if "strength" in query:
            given.setdefault("mode", "sigma")
        elif query.get("mode") in MODES:
            given["strength"] = MODES[query["mode"]].default
        return cls.of(given, default)

    def to_query(self, face: Face | None = None) -> str:
        """The request as a link's query string, to the view of a face where one is given."""
        shown = replace(self, source=face.source, seed=face.seed) if face else self
        parts = []
        for name, (held_in, _) in ASKED.items():
            value = getattr(shown, held_in)
            if name == "strength":
                value = f"{value:g}"
            listed = [str(v) for v in (value if isinstance(value, tuple) else (value,))]
            if value not in (None, "", ()) and (name != "seed" or shown.source):
                parts.append(f"{name}={','.join(quote(text, safe='/') for text in listed)}")
        return "?" + "&".join(parts)


@dataclass(frozen=True)
class Refusal:
    """Why a model does not answer."""

    model: str
    problem: str
    pending: bool = False  # whether the face has first to be projected into the model


@dataclass(frozen=True, eq=False)
class Still:
    """What of an edit does not depend on the strength."""

    reconstruction: Image.Image  # the model's unedited picture of the face
    error: float | None  # its mean squared error, pixels in [0, 1]; None if the model drew the face
    projected: bool  # whether its latents were found by projection, not by an encoder
    frames: tuple[Image.Image, ...]  # the edits at FRAMES of SWEEP
    sweep: Sweep  # what is read along them
    unedited: Tensor  # (1, C, H, W)


@dataclass(eq=False)
class Edit:
    """One model's edit of a face."""

    opened: OpenModel
    request: EditRequest
    face: Face
    direction: Direction
    latents: Tensor  # (1, *latent_shape), unedited
    still: Still
    strength: float  # how far the latent is moved, in standard deviations
    reached: bool  # whether a percentage that was asked for is reached in the safe range
    images: Tensor = field(init=False)  # (1, C, H, W), edited
    logits: Floats | None = None  # (K,), that the classifier reads of them
    verdict: Verdict | None = None  # the edit in words; None where no judge is here
    pending: bool = False  # whether the latents are an estimate that projection would refine

    @property
    def model(self) -> str:
        """The model's name."""
        return self.opened.name

    @property
    def key(self) -> str:
        """Names what does not depend on the strength: the same key, the same `still`."""
        weights = self.opened.fingerprint[:16]
        return f"{self.model} {weights} {self.face.key} {self.pending} {self.request.wanted}"

    @property
    def safe(self) -> tuple[float, float]:
        """Between these faces are realistic, as the slider counts."""
        low, high = self.still.sweep.safe
        scale = (self.direction.sigma or 1.0) if self.request.mode == "alpha" else 1.0
        return low * scale, high * scale

    @property
    def picture(self) -> Image.Image:
        """The edited picture."""
        return to_pil(self.images)[0]

    @property
    def change(self) -> float:
        """Mean size of the difference, pixels in [0, 1]."""
        return float((self.images - self.still.unedited).abs().mean()) / 2

    @property
    def raw(self) -> float:
        """The coefficient of the direction's vector, the paper's alpha."""
        return self.strength * (self.direction.sigma or 0.0)

    @property
    def reading(self) -> tuple[float, float] | None:
        """P(attribute) of the unedited and the edited latent; None where it is not known."""
        # What holding leaves has no curve of its own; the attribute is read as without.
        reader = _direction(self.opened, self.request.attribute, self.request.method)
        known = reader.threshold is not None and reader.gain is not None
        if not known or reader.layers != self.direction.layers:  # others do not move the reading
            return None
        moved = edit(self.latents, self.direction, self.strength)
        return float(probability(self.latents, reader)), float(probability(moved, reader))


Row = Edit | Refusal


def draw(shelf: ModelShelf, source: Any, seed: Any) -> Face | None:
    """The face that a model draws from a seed, whatever was given; None without a model."""
    if not source:
        return None
    return drawn_face(shelf.open(checked_text("model", source)), checked_seed("seed", seed))


def slider_range(rows: Sequence[Row], request: EditRequest) -> tuple[float, float]:
    """The slider's ends: a mode's own, or where the first model, then the last, breaks the face."""
    mode = MODES[request.mode]
    done = [row.safe for row in rows if isinstance(row, Edit)]
    if mode.unit == "%" or not done:
        return mode.low, mode.high
    lows, highs = zip(*done, strict=True)
    ends = min(*lows, request.strength, -1.0), max(*highs, request.strength, 1.0)
    steps = math.floor(ends[0] / mode.step), math.ceil(ends[1] / mode.step)
    return max(mode.low, steps[0] * mode.step), min(mode.high, steps[1] * mode.step)


@torch.inference_mode()
def compare_edits(shelf: ModelShelf, face: Face, request: EditRequest) -> list[Row]:
    """Edit one face in several models; one that cannot answer does not stop the others."""
    judges = shelf.judges
    rows = each_model(shelf, request.models, lambda o: _begin(o, judges, face, request))
    edits = [row for row in rows if isinstance(row, Edit)]
    _draw(judges, edits)
    if request.mode == "effect":
        _approach(judges, edits, request.strength / 100)
    for made in edits:
        about = (made.direction.attribute, made.strength, made.still.sweep, made.logits)
        made.verdict = verdicts.judge(judges, *about)
    return rows


def each_model(
    shelf: ModelShelf, models: Sequence[str], answer: Callable[[OpenModel], Answer]
) -> list[Answer | Refusal]:
    """What each model answers, or why it does not."""
    check = faces.time_limit(shelf.limits.request_seconds)
    answers: list[Answer | Refusal] = []
    for i, name in enumerate(models[:MAX_ROWS]):
        try:
            check(i, len(models))
            answers.append(answer(shelf.open(name)))
        except HublatentError as error:
            pending = isinstance(error, NotProjectedError)
            answers.append(Refusal(name, shelf.tell(error), pending))
    return answers


def first_request(shelf: ModelShelf, n_models: int, preferred: Sequence[str] = ()) -> EditRequest:
    """What to show before anything was chosen: models that can edit one face at once.

    A model without an encoder draws the face where there is one: it could not edit another's at
    once, while the others encode its. `preferred` models come before others.
    """
    mode = "effect" if DEFAULT_ATTRIBUTE in shelf.judges.names else "sigma"
    request = EditRequest(mode=mode, strength=MODES[mode].default)
    opened = shelf.open_all(shelf.names)
    if not opened:
        return replace(request, models=shelf.names[:n_models])
    source = min(opened, key=lambda o: (o.model.has_encoder, -o.n_layers))
    face = drawn_face(source, 0)
    ready = [o.name for o in opened if not faces.is_pending(o, face)]
    order = list(dict.fromkeys((source.name, *preferred, *ready)))
    first = sorted(ready, key=order.index)
    return replace(request, models=tuple(first[:n_models]), source=source.name)


def _direction(opened: OpenModel, *wanted: Any) -> Direction:
    return opened.memory.get(("direction", *wanted), lambda: opened.find(*wanted))


def _begin(opened: OpenModel, judges: Judges, face: Face, request: EditRequest) -> Edit:
    """What an edit needs, and how far it is to go as far as the sweep tells."""
    pending = faces.is_estimate(opened, face)
    direction, latents = _direction(opened, *request.wanted), latents_of(opened, face)
    still = opened.memory.get(
        ("still", face.key, pending, *request.wanted),
        lambda: _still(opened, judges, face, latents, direction),
    )
    strength, reached = _strength(request, latents, direction, still.sweep)
    return Edit(
        opened, request, face, direction, latents, still, strength, reached, pending=pending
    )


def _draw(judges: Judges, edits: Sequence[Edit]) -> None:
    """Draw edits, and read the pictures of one size together, which takes half the time."""
    by_shape: dict[torch.Size, list[Edit]] = {}
    for made in edits:
        made.images = made.opened.model.decode(edit(made.latents, made.direction, made.strength))
        by_shape.setdefault(made.images.shape, []).append(made)
    for alike in by_shape.values():
        logits = judges.attributes(torch.cat([made.images for made in alike]))
        for i, made in enumerate(alike):
            made.logits = None if logits is None else logits[i]


def _approach(judges: Judges, edits: Sequence[Edit], share: float) -> None:
    """Move edits until the classifier itself sees the share: sweeps are known at a few points."""
    for step in range(MAX_STEPS + 1):
        off = []
        for made in edits:
            index = judges.index(made.direction.attribute)
            if made.logits is None or index is None:
                continue
            logit = float(made.logits[index])
            made.still.sweep.learn(made.strength, logit)
            near = abs(float(expit(logit)) - share) <= TOLERANCE
            if made.reached and not near:
                off.append(made)
            made.reached = near
        if not off or step == MAX_STEPS:
            return
        for made in off:
            made.strength, made.reached = made.still.sweep.strength_for(share)
        _draw(judges, off)


def _strength(
    request: EditRequest, latents: Tensor, direction: Direction, sweep: Sweep
) -> tuple[float, bool]:
    """What was asked for in standard deviations, and whether all of it can be had."""
    if request.mode == "sigma":
        return request.strength, True
    if request.mode == "alpha":
        return float(to_sigma(latents, direction, request.strength, "raw")), True
    share = request.strength / 100
    if request.mode == "effect":
        if sweep.target is None:
            raise HublatentError(
                f"No classifier here reads {direction.attribute}, so its effect cannot be made "
                "equal. Choose another mode of the slider."
            )
        return sweep.strength_for(share)
    wanted = float(to_sigma(latents, direction, share, "probability"))
    strength = min(max(wanted, sweep.safe[0]), sweep.safe[1])
    return strength, strength == wanted


def _still(
    opened: OpenModel, judges: Judges, face: Face, latents: Tensor, direction: Direction
) -> Still:
    """The still part of an edit."""
    model = opened.model
    steps = traverse(latents, direction, torch.from_numpy(SWEEP))[0]  # (S, *latent_shape)
    drawn = torch.cat(list(faces.decode_in_parts(model, steps)))  # (S, C, H, W)
    unedited, error = drawn[UNEDITED : UNEDITED + 1], None
    if not opened.drew(face.key):
        error = float(((faces.images_of(model, face) - unedited) / 2).square().mean())
    frames = [fit(frame, 1, FRAME_SIDE) for frame in to_pil(drawn[verdicts.FRAMES])]
    refined = isinstance(opened.projections.find(face.key), Tensor)
    projected = error is not None and (refined or not model.has_encoder)
    lowest = opened.memory.get("lowest confidence", lambda: judges.lowest_confidence(model))
    sweep = judges.read_sweep(drawn, direction.attribute, lowest)
    redrawn = fit(to_pil(unedited)[0], 1, SHOWN_SIDE)
    return Still(redrawn, error, projected, tuple(frames), sweep, unedited)
