"""The card of directions alone says whose they are and what is known; its example runs."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import hublatent
from hublatent.cli import main
from hublatent.direction import Direction, Origin
from hublatent.direction_set import DirectionSet
from hublatent.errors import DirectionError, HubError, HublatentError
from hublatent.interop.directions import import_directions
from hublatent.model import LatentModel
from hublatent.publish import CardInput, check_card, render_card
from hublatent.stats import Estimate
from tests.hub_standin import ClientState, HubStandIn
from tests.tiny_models import random_directions, save_model, tiny_stylegan2, tiny_vae

REPO, BASE = "user/glasses", "user/vae"


@pytest.fixture(scope="module")
def model() -> LatentModel:
    torch.manual_seed(0)
    return tiny_vae()


CELEBA = Origin("encoded", "celeba", "0123abcd")


def scored(model: LatentModel, origin: Origin | None = CELEBA) -> DirectionSet:
    """Random directions with scores."""
    found = random_directions(model)
    scores = {"accuracy": Estimate(0.75, 0.7, 0.8), "auroc": Estimate(0.8125, 0.75, 0.875)}
    with_scores = (
        replace(d, scores=scores, n_positive=40, n_negative=41, origin=origin) for d in found
    )
    return replace(found, directions=tuple(with_scores))


def example_of(text: str) -> str:
    return text.split("```python\n")[1].split("```")[0]


def test_it_says_which_model_and_what_is_known(model: LatentModel, tmp_path: Path) -> None:
    found = scored(model)
    text = render_card(CardInput(REPO, None, found, base_model=BASE))
    assert f"[{BASE}](https://huggingface.co/{BASE})" in text
    assert "`vae`: Variational auto-encoder" in text
    assert f"`{model.fingerprint()}`" in text
    row = "| Eyeglasses | `svm` | 0.750 (0.700-0.800) | - | - | - | 0.812 (0.750-0.875) |"
    assert row in text
    sigma = found["Male", "joint"].sigma
    assert f"| `Male.joint` | {sigma:.4g} | - | 40 / 41 | images of celeba (0123abcd) | - |" in text
    assert "non-commercial research purposes only" in text
    assert "--for MODEL" in text and "samples.png" not in text
    for word in ("{{", "{%", "None", "nan", "\n\n\n"):
        assert word not in text
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    check_card(tmp_path / "README.md")
    data = ModelCard(text).data
    assert (data.base_model, data.base_model_relation) == (BASE, "adapter")
    assert data.license_name == "celeba-non-commercial-research"
    assert {r.metric_name: r.metric_value for r in data.eval_results}["Male.svm accuracy"] == 0.75


def test_tables_are_rectangular(model: LatentModel) -> None:
    text = render_card(CardInput(REPO, None, scored(model), base_model=BASE))
    lines = [line if line.startswith("|") else "" for line in text.splitlines()]
    tables = [table.strip().splitlines() for table in "\n".join(lines).split("\n\n")]
    tables = [table for table in tables if table]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_terms_are_stated_only_where_somebody_stated_them(model: LatentModel) -> None:
    def card(found: DirectionSet) -> ModelCard:
        return ModelCard(render_card(CardInput(REPO, None, found, base_model=BASE)))

    unstated = card(scored(model, None))
    assert unstated.data.license == "unknown" and "Nobody has stated terms" in unstated.text
    assert "CelebA" not in unstated.text
    stated = card(replace(scored(model, None), licence="CC BY-NC 4.0, by Somebody."))
    assert stated.data.license == "other" and "CC BY-NC 4.0, by Somebody." in stated.text
    assert "CelebA" not in stated.text
    both = card(replace(scored(model), licence="CC BY-NC 4.0, by Somebody."))
    assert "CC BY-NC 4.0" in both.text and "CelebA" in both.text


def test_what_no_card_states(model: LatentModel) -> None:
    with pytest.raises(HubError, match="Hub id"):
        render_card(CardInput(REPO, None, scored(model), base_model="/a/folder of/mine"))
    found = scored(model)
    broken = replace(found.directions[0], scores={"accuracy": Estimate(math.nan, 0.1, 0.2)})
    with pytest.raises(HublatentError, match=r"Eyeglasses.svm accuracy = nan"):
        render_card(CardInput(REPO, None, replace(found, directions=(broken,))))


def test_names_stay_text(model: LatentModel) -> None:
    name = 'x"]; exit() # <img src=a> | b'
    found = DirectionSet.of(model, [Direction(name, "svm", torch.ones(8))])
    text = render_card(CardInput(REPO, None, found, base_model=BASE))
    assert "<img" not in text
    compile(example_of(text), "card", "exec")
    assert "exit()" in example_of(text).split("directions[")[1].split('", "svm"]')[0]


@pytest.mark.parametrize("architecture", ["vae", "stylegan2"])
def test_the_example_runs_against_the_hub(
    architecture: str,
    hub: HubStandIn,
    client: ClientState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = tiny_vae() if architecture == "vae" else tiny_stylegan2()
    folder = save_model(model, tmp_path / "model")
    hub.create(BASE, {p.name: p.read_bytes() for p in folder.iterdir()})
    bare = Direction("Hat", "mine", torch.ones(model.latent_shape))  # sigma is not known
    DirectionSet.of(model, [bare]).push_to_hub(REPO, base_model=BASE)
    code = example_of(hub.files(REPO)["README.md"].decode())
    assert len([line for line in code.splitlines() if line]) == 5
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["images"].shape == (4, 3, model.image_size, model.image_size)


def test_push_with_the_model_draws_a_picture(
    hub: HubStandIn,
    client: ClientState,
    model: LatentModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = save_model(model, tmp_path / "model")
    base_commit = hub.create(BASE, {p.name: p.read_bytes() for p in folder.iterdir()})
    file = tmp_path / "mine.safetensors"
    scored(model).save(file)
    main(["push-directions", str(file), REPO, "--for", BASE])
    files = hub.files(REPO)
    assert set(files) - {".gitattributes"} == {
        "README.md", "directions.safetensors", "samples.png",
    }  # fmt: skip
    assert files["directions.safetensors"] == file.read_bytes()
    with Image.open(io.BytesIO(files["samples.png"])) as picture:
        assert picture.mode == "RGB" and picture.height > 4 * 128  # samples and three attributes
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == BASE and base_commit in card.text
    assert "![Samples, and the same ones edited" in card.text
    before = hub.commits(REPO)[0].oid
    main(["push-directions", str(file), REPO, "--for", BASE])
    assert hub.commits(REPO)[0].oid == before  # nothing has changed

    main(["push-directions", str(file), "user/b", "--for", str(folder), "--base-model", BASE])
    text = hub.files("user/b")["README.md"].decode()
    assert ModelCard(text).data.base_model == BASE and str(tmp_path) not in text
    main(["push-directions", str(file), "user/c", "--for", str(folder)])
    text = hub.files("user/c")["README.md"].decode()
    assert "base_model" not in text and str(tmp_path) not in text
    assert "samples.png" in hub.files("user/c")
    capsys.readouterr()


def test_a_picture_of_another_model_is_refused(
    hub: HubStandIn, client: ClientState, model: LatentModel
) -> None:
    torch.manual_seed(1)
    with pytest.raises(DirectionError, match="fingerprint"):
        scored(model).push_to_hub(REPO, model=tiny_vae())
    with pytest.raises(HubError, match="no direction to publish"):
        DirectionSet.of(model, []).push_to_hub(REPO)
    with pytest.raises(HubError, match="Hub id"):
        scored(model).push_to_hub("not an id")
    assert REPO not in hub.repositories


def test_beside_a_model_its_own_card_stays(
    hub: HubStandIn, client: ClientState, model: LatentModel, tmp_path: Path
) -> None:
    folder = save_model(model, tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: mit\n---\nTheirs.\n")
    hub.create(BASE, {p.name: p.read_bytes() for p in folder.iterdir()})
    scored(model).push_to_hub(BASE, model=model)
    scored(model).push_to_hub(BASE, model=model, revision="trial")
    for revision in ("main", "trial"):
        files = hub.files(BASE, revision)
        assert b"Theirs." in files["README.md"] and "samples.png" not in files
        assert len(DirectionSet.from_pretrained(BASE, model, revision)) == 6


def test_imported_directions_keep_their_terms(
    hub: HubStandIn, client: ClientState, model: LatentModel, tmp_path: Path
) -> None:
    row = np.random.default_rng(0).standard_normal((1, 8))
    np.save(tmp_path / "age_boundary.npy", row / np.linalg.norm(row))
    file = tmp_path / "age.safetensors"
    words = ["import-directions", str(tmp_path / "age_boundary.npy"), "--attribute", "Age"]
    folder = save_model(model, tmp_path / "model")
    terms = ["--licence", "MIT, by its authors."]
    main([*words, "--out", str(file), "--for", str(folder), *terms])
    main(["push-directions", str(file), REPO, "--for", str(folder)])
    text = hub.files(REPO)["README.md"].decode()
    assert "MIT, by its authors." in text and "No scores are known" in text
    assert "`Age.interfacegan`" in text
    assert DirectionSet.from_pretrained(REPO, model).licence == "MIT, by its authors."


def test_directions_of_no_model(hub: HubStandIn, client: ClientState, tmp_path: Path) -> None:
    row = np.random.default_rng(0).standard_normal((1, 8))
    np.save(tmp_path / "age_boundary.npy", row / np.linalg.norm(row))
    found = import_directions([tmp_path / "age_boundary.npy"], "Age").directions
    found.push_to_hub(REPO)
    text = hub.files(REPO)["README.md"].decode()
    assert "not tied to a model" in text and "not stated" in text
    names: dict = {}
    exec(example_of(text), names)
    assert names["vector"].shape == (8,)


def test_pull_of_directions_alone(
    hub: HubStandIn,
    client: ClientState,
    model: LatentModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = scored(model)
    found.push_to_hub(REPO, model=model, base_model=BASE)
    out = tmp_path / "pulled"
    main(["pull", REPO, "--only-directions", "--out", str(out)])
    assert f"commit: {hub.commits(REPO)[0].oid}" in capsys.readouterr().out
    pulled = DirectionSet.load(out / "directions.safetensors", model)
    assert [path.name for path in out.iterdir()] == ["directions.safetensors"]
    direct = DirectionSet.from_pretrained(REPO, model, revision=hub.commits(REPO)[0].oid)
    for one, two, three in zip(found, pulled, direct, strict=True):
        assert torch.equal(one.vector, two.vector) and torch.equal(one.vector, three.vector)
        assert one.scores == two.scores == three.scores
    with hub.unreachable():
        assert len(DirectionSet.from_pretrained(REPO, model)) == len(found)
    torch.manual_seed(1)
    with pytest.raises(DirectionError, match="fingerprint"):
        DirectionSet.from_pretrained(REPO, tiny_vae())
    with pytest.raises(HubError, match="It holds directions"):
        hublatent.load(REPO)
