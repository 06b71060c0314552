"""An attribute whose name is markup: from a table of labels to directions, pictures and cards."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from hublatent import cli
from hublatent.direction_set import DirectionSet
from hublatent.publish import check_card
from tests.hub_standin import ClientState, HubStandIn
from tests.tiny_models import save_model, tiny_vae
from tests.training_helpers import write_faces
from training import find_directions

NAME = "<img src=x onerror=alert(1)>|$x_1^{$ {{7*7}} `id` [a](b) é"
SIZE = 16


def check_markdown(card: str) -> None:
    """The name is there as text: no tag, no evaluated template, no table cell that it ends."""
    body = card.split("---\n", 2)[2]
    shown = "".join(body.split("```")[::2])  # without blocks of code
    assert "onerror" in shown and "<img src=x" not in shown and " 49 " not in shown
    for table in re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1, table


def test_a_name_that_is_markup_stays_text(
    hub: HubStandIn, client: ClientState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "faces").mkdir()
    write_faces(tmp_path / "faces", 64, 8, SIZE)
    table = tmp_path / "faces" / "attributes.csv"
    table.write_text(table.read_text().replace("Smiling", f'"{NAME}"'), encoding="utf-8")
    torch.manual_seed(0)
    model = tiny_vae(size=SIZE)
    folder = save_model(model, tmp_path / "vae")
    find_directions.run(
        find_directions.Arguments(
            model=str(folder),
            data=str(tmp_path / "faces"),
            methods=("joint",),
            cache=tmp_path / "cache",
        )
    )
    found = DirectionSet.load(folder / "directions.safetensors", model)
    (direction,) = found
    assert direction.attribute == NAME
    assert "<img" not in direction._repr_html_()

    cli.main(["info", str(folder), "--all"])
    assert NAME in capsys.readouterr().out
    strip = tmp_path / "edited.png"
    picture = str(tmp_path / "faces" / "000.png")
    words = ["--attribute", NAME, "--strength", "2", "--method", "joint", "--out", str(strip)]
    cli.main(["edit", str(folder), picture, *words])
    assert strip.is_file()

    model.push_to_hub("user/vae", directions=found)
    found.push_to_hub("user/directions")
    for repo in ("user/vae", "user/directions"):
        card = hub.files(repo)["README.md"].decode()
        check_markdown(card)
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
        check_card(tmp_path / "README.md")
