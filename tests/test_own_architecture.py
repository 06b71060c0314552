"""An architecture that only this test knows goes all the way, with nothing changed elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from torch import Tensor
from torch.nn import functional

import hublatent
from hublatent import models
from hublatent.cli import main
from hublatent.demo.faces import drawn_face
from hublatent.demo.session import Edit, EditRequest, compare_edits
from hublatent.demo.shelf import ModelShelf, find_models
from hublatent.direction import Origin
from hublatent.discovery import LabelledLatents, discover
from hublatent.images import save_png, to_pil
from hublatent.model import LatentModel
from hublatent.publish import CardInput
from hublatent.publish.push import write_card

SIZE, N = 32, 240


class Tiles(LatentModel):
    """Keeps the mean colour of each of 4 x 4 tiles."""

    architecture = "tiles"

    def __init__(self, image_size: int = SIZE, channels: int = 3) -> None:
        super().__init__(image_size, channels, (channels * 16,))

    def encode(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return functional.adaptive_avg_pool2d(images, 4).flatten(1)  # (B, D)

    def decode(self, latents: Tensor) -> Tensor:
        self.check_latents(latents)
        tiles = latents.unflatten(1, (self.channels, 4, 4))
        return functional.interpolate(tiles, self.image_size).clamp(-1, 1)  # (B, C, H, W)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiles]:
    """The registered architecture; it is no face, and nothing that needs one may fail."""
    before = dict(models.ARCHITECTURES)
    hublatent.register(Tiles)
    yield Tiles().eval()
    models.ARCHITECTURES.clear()
    models.ARCHITECTURES.update(before)


def test_it_is_loaded_edited_described_and_shown(
    model: Tiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(N, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) - 0.5
    bright = torch.arange(N) % 2 == 0
    images[bright, :, : SIZE // 2] += 0.4
    latents = model.encode(images)
    model.set_latent_statistics(latents)
    data = LabelledLatents(
        latents.numpy(), bright.numpy()[:, None], ("Bright_Top",), np.arange(N),
        Origin("encoded", "tiles", n=N),
    )  # fmt: skip
    direction = discover(data, "Bright_Top", "mean-difference", model=model)
    found = hublatent.DirectionSet.of(model, [direction])
    folder = tmp_path / "cards" / "tiles"
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    found.save(folder / "directions.safetensors")

    loaded = hublatent.load(folder)
    assert isinstance(loaded, Tiles) and loaded.fingerprint() == model.fingerprint()
    write_card(folder, CardInput("user/tiles", loaded, found), loaded, tuple(found))
    assert "Bright_Top" in ModelCard.load(folder / "README.md").content

    save_png(to_pil(images[:1])[0], tmp_path / "in.png")
    words = ["--direction", "bright top=3", "--out", str(tmp_path / "out.png")]
    main(["edit", str(folder), str(tmp_path / "in.png"), *words])
    assert "Bright_Top.mean-difference by +3.00" in capsys.readouterr().out

    shelf = ModelShelf(find_models(tmp_path / "cards"), device="cpu")
    face = drawn_face(shelf.open("tiles"), 0)
    request = EditRequest(("tiles",), "Bright_Top", "mean-difference", source="tiles")
    (row,) = compare_edits(shelf, face, request)
    assert isinstance(row, Edit) and row.verdict is None
    top = np.asarray(row.picture, float)[: SIZE // 2].mean()
    assert top > np.asarray(face.picture, float)[: SIZE // 2].mean() + 10
