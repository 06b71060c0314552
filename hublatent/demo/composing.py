"""Several edits of one face at once, a mix with another face, and the way there as an animation."""

from __future__ import annotations

import io
import shutil
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hublatent.demo import session
from hublatent.demo.faces import Face, latents_of
from hublatent.demo.names import human_name
from hublatent.demo.session import Refusal, each_model
from hublatent.demo.shelf import ModelShelf, OpenModel
from hublatent.demo.verdicts import MAX_STRENGTH, Judges, describe_change
from hublatent.direction import LayerRange
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.figures import fit, grid, label_font, strip
from hublatent.images import to_pil

N_CHANGES = 5  # sliders of the page
MAX_CHANGES = 8
# Shares of the whole change, there and back, that an animation shows.
WAY = tuple(i / 12 for i in (*range(13), *range(11, 0, -1)))
FRAME_SIDE, FRAME_MILLISECONDS = 160, 80
FFMPEG = shutil.which("ffmpeg")  # makes MP4, where it is installed


@dataclass(frozen=True)
class Composition:
    """What is to be done to a face."""

    changes: tuple[tuple[str, float], ...] = ()  # attributes, and by how many standard deviations
    method: str = ""
    mix: float = 0.0  # the share of the other face, from 0 to 1
    layers: LayerRange | None = None  # that it is mixed into, where latents have some; None: all

    def words(self, other: Face | None = None) -> str:
        """What is done, as a caption: "Smile +2σ, Glasses -1σ, 30% of seed 7"."""
        parts = [f"{human_name(name)} {strength:+g}σ" for name, strength in self.changes]
        if other is not None and self.mix:
            parts.append(f"{self.mix:.0%} of seed {other.seed}")
        return ", ".join(parts) or "Unchanged"

    def to_query(self, other: Face | None = None) -> str:
        """The part of a link that names it; `changes_from` reads the changes."""
        values = {"changes": ",".join(f"{name}:{strength:g}" for name, strength in self.changes)}
        if other is not None and self.mix:
            values |= {"mix": f"{self.mix:.0%}".rstrip("%"), "with": str(other.seed)}
        return urlencode(values)


def changes_from(query: Mapping[str, str]) -> tuple[tuple[str, float], ...]:
    """The changes that a link names, at most N_CHANGES."""
    pairs = query.get("changes", "").split(",")[:N_CHANGES]
    return tuple(
        (session.checked_text("attribute", name), checked_strength("strength", given))
        for name, _, given in (pair.partition(":") for pair in pairs if pair)
    )


def checked_strength(what: str, given: Any) -> float:
    """A number of standard deviations, whatever was given."""
    return session.checked_number(what, given, -MAX_STRENGTH, MAX_STRENGTH)


@dataclass(frozen=True, eq=False)
class Composed:
    """One model's answer."""

    model: str
    unedited: Image.Image
    edited: Image.Image
    words: str  # what the judges read of it


@torch.inference_mode()
def compose(
    shelf: ModelShelf, face: Face, other: Face | None, models: Sequence[str], what: Composition
) -> list[Composed | Refusal]:
    """Change a face in several ways at once, and mix in another, in several models."""

    def draw(opened: OpenModel) -> Composed:
        pair = opened.model.decode(torch.cat(_ends(opened, face, other, what)))
        unedited, edited = (fit(p.convert("RGB"), 1, session.SHOWN_SIDE) for p in to_pil(pair))
        words = _words(shelf.judges, what, pair[:1], pair[1:])
        return Composed(opened.name, unedited, edited, words)

    key = (face.key, other.key if other else "", what)
    return each_model(shelf, models, lambda o: o.composed.get(key, lambda: draw(o)))


@torch.inference_mode()
def animate(
    shelf: ModelShelf, face: Face, other: Face | None, models: Sequence[str], what: Composition,
    kind: str = "gif",
) -> bytes:  # fmt: skip
    """The way from the face to the changed one and back, the models side by side.

    Returns:
        A GIF, or an MP4 where FFMPEG is installed.
    """

    def frames(opened: OpenModel) -> list[Image.Image]:
        start, end = _ends(opened, face, other, what)
        steps = (opened.model.decode(start + share * (end - start)) for share in WAY)
        return [fit(to_pil(drawn)[0].convert("RGB"), FRAME_SIDE, FRAME_SIDE) for drawn in steps]

    found = each_model(shelf, models, frames)
    columns = [answer for answer in found if isinstance(answer, list)]
    if not columns:
        refused = [answer.problem for answer in found if isinstance(answer, Refusal)]
        raise HublatentError(refused[0] if refused else "No model is chosen.")
    strips = [strip(frame) for frame in zip(*columns, strict=True)]
    return _mp4(strips) if kind == "mp4" else _gif(strips)


def _gif(frames: Sequence[Image.Image]) -> bytes:
    buffer, (first, *rest) = io.BytesIO(), frames
    first.save(
        buffer, "GIF", save_all=True, append_images=rest, duration=FRAME_MILLISECONDS, loop=0
    )
    return buffer.getvalue()


def _mp4(frames: Sequence[Image.Image]) -> bytes:
    if FFMPEG is None:
        raise HublatentError("MP4 needs ffmpeg, which is not installed here; take the GIF.")
    width, height = frames[0].size
    command = (
        f"{FFMPEG} -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{height} "
        f"-r {1000 / FRAME_MILLISECONDS} -i - -vf pad=ceil(iw/2)*2:ceil(ih/2)*2 -pix_fmt yuv420p "
        "-movflags frag_keyframe+empty_moov -f mp4 -"
    )
    content = b"".join(frame.tobytes() for frame in frames)
    done = subprocess.run(command.split(), input=content, capture_output=True, check=False)
    if done.returncode:
        raise HublatentError(f"ffmpeg made no MP4: {done.stderr.decode(errors='replace')[:200]}")
    return done.stdout


def share_picture(answers: Sequence[Composed | Refusal], lines: Sequence[str]) -> Image.Image:
    """All models' pictures, unedited above edited, over lines of text."""
    done = [answer for answer in answers if isinstance(answer, Composed)]
    if not done:
        raise HublatentError("No model has a picture of this to share.")
    rows = [[a.unedited for a in done], [a.edited for a in done]]
    rows = [[fit(picture, FRAME_SIDE, FRAME_SIDE) for picture in row] for row in rows]
    sheet = grid(rows, ["unedited", "edited"], [answer.model for answer in done])
    font = label_font()
    width = max(20, int(sheet.width / font.getlength("n")) - 4)
    text = "\n".join(part for line in lines for part in textwrap.wrap(line, width))
    box = ImageDraw.Draw(sheet).multiline_textbbox((0, 0), text, font=font)
    whole = Image.new("RGB", (sheet.width, sheet.height + int(box[3]) + 24), "white")
    whole.paste(sheet)
    ImageDraw.Draw(whole).multiline_text((12, sheet.height + 8), text, fill="black", font=font)
    return whole


def _ends(
    opened: OpenModel, face: Face, other: Face | None, what: Composition
) -> tuple[Tensor, Tensor]:
    """The face's latent (1, *latent_shape), and the changed one."""
    start = end = latents_of(opened, face)
    if other is not None and what.mix:
        # Style mixing where only some layers are (Karras et al. 2019, arXiv:1812.04948).
        rows = what.layers.rows(opened.n_layers) if what.layers and opened.n_layers else slice(None)
        end = start.clone()
        end[:, rows] = torch.lerp(start, latents_of(opened, other), what.mix)[:, rows]
    for attribute, strength in what.changes:
        end = edit(end, opened.find(attribute, what.method), strength)
    return start, end


def _words(judges: Judges, what: Composition, unedited: Tensor, edited: Tensor) -> str:
    """What the classifier reads of the changed attributes, and whether it is the same person."""
    read = judges.attributes(torch.cat([unedited, edited]))
    found = [(name, judges.index(name)) for name, _ in what.changes]
    parts = [
        describe_change(name, *read[:, index])
        for name, index in found
        if read is not None and index is not None
    ]
    parts += [judges.person(unedited, edited)]
    text = ", ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]
