"""The comparison's claims, figures and report, on made-up results whose answer is known."""

from __future__ import annotations

import io
import math
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from hublatent.comparison.claims import examine_claims
from hublatent.comparison.conclusion import answer, answer_paragraphs
from hublatent.comparison.plots import draw_plots, outcome_bars, realism_lines
from hublatent.comparison.ranking import compare_edits, difference, share_interval, sign, widened
from hublatent.comparison.report import write_report
from hublatent.comparison.results import (
    PROJECTED,
    SAMPLES,
    TEST,
    TRAINING,
    Boundary,
    Ceiling,
    Comparison,
    Cosines,
    Data,
    Edits,
    EqualEffect,
    HandLabels,
    Holes,
    Judge,
    Model,
    NullBand,
    OutcomeCounts,
    Pair,
    PaperRow,
    Problem,
    Separability,
)
from hublatent.comparison.strips import STRIP_SIDE, Picture, before_and_after, edit_strips
from hublatent.comparison.tables import equal_effect_tables, scores_table
from hublatent.editing import edit
from hublatent.errors import HublatentError
from hublatent.figures import FONT_SIZE, GAP, MARGIN, fit
from hublatent.images import to_pil
from hublatent.stats import Estimate
from tests.tiny_models import random_directions, tiny_vae

ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
OTHERS = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs",
    "Big_Lips", "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows",
    "Chubby", "Double_Chin", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones",
    "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin",
)  # fmt: skip
METHODS = ("svm", "logistic", "mean-difference", "pattern", "joint")
STRENGTHS = (-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
# name -> architecture, space, parameters, accuracy of Eyeglasses, strength along svm and others
MODELS = {
    "vae-celeba": ("vae", "z", 6_300_000, 0.845, 9.5, 3.5),
    "betavae-celeba": ("betavae", "z", 1_300_000, 0.835, 6.0, 3.8),
    "btcvae-celeba": ("btcvae", "z", 1_300_000, 0.862, 4.8, 3.8),
    "beta1-celeba": ("vae", "z", 1_300_000, 0.838, 7.0, 3.6),
    "stylegan2-celeba": ("stylegan2", "w+", 23_000_000, 0.80, 7.5, 5.5),
    "eigenfaces-celeba": ("eigenfaces", "z", 1_500_000, 0.829, 12.0, 9.0),
}


def around(value: float, arm: float) -> Estimate:
    return Estimate(value, value - arm, value + arm)


def made_up() -> Comparison:
    """Results that resemble a real comparison: six models, three attributes, five methods."""
    return Comparison(
        seed=0,
        command="python -m hublatent compare model_cards/* --data celeba --out comparison",
        data=Data("a" * 64, 6000, 1000, 2000),
        judge=Judge(
            "judge-celeba",
            "b" * 64,
            {a: around(x, 0.002) for a, x in zip(ATTRIBUTES, (0.994, 0.977, 0.995), strict=True)},
            around(0.93, 0.01),
            0.021,
            2000,
        ),
        attributes=ATTRIBUTES,
        methods=METHODS,
        strengths=STRENGTHS,
        thresholds={"strong": 0.5, "decohered": 0.05},
        thresholds_text={
            "strong": "P(target) exceeds 0.5 somewhere on the strip.",
            "no effect": "P(target) stays at or below 0.5 up to the strip's end.",
            "decohered": "Realism is below the 5% quantile where P(target) first exceeds 0.5.",
        },
        definitions={"distance": "Perceptual distance.", "realism": "Realism score, k = 3."},
        models=made_up_models(),
        separability=tuple(made_up_separability()),
        paper_table=(
            PaperRow("StyleGAN2", "Eyeglasses", 0.8, 0.7895, 0.8108, 0.8, "Table 1"),
            PaperRow("VAE", "Eyeglasses", 0.7611, 0.768, 0.7484, 0.7581, "Table 1"),
            PaperRow("β-VAE", "Eyeglasses", 0.8387, 0.7984, 0.8543, 0.8254, "Table 1"),
            PaperRow("β-TCVAE", "Eyeglasses", 0.875, 0.8516, 0.8997, 0.875, "Table 1"),
        ),
        pairs=tuple(made_up_pairs()),
        ceilings=tuple(
            Ceiling(m, a, TEST, 150, 200, around(0.8, 0.03), around(0.04, 0.01))
            for m in MODELS
            for a in ATTRIBUTES
        ),
        edits=tuple(made_up_edits()),
        null_bands=tuple(
            NullBand(m, a, f, 200, 20, 20, STRENGTHS, tuple(0.02 * abs(s) for s in STRENGTHS))
            for m in MODELS
            for a in ATTRIBUTES
            for f in faces_of(m)
        ),
        holes=tuple(made_up_holes()),
        boundary=tuple(
            Boundary(m, a, "svm", TEST, around(-0.3, 0.1)) for m in MODELS for a in ATTRIBUTES
        ),
        cosines=tuple(
            Cosines(m, k, ATTRIBUTES, ((1.0, -0.1, 0.3), (-0.1, 1.0, -0.2), (0.3, -0.2, 1.0)))
            for m in MODELS
            for k in ("svm", "joint")
        ),
        problems=(Problem("old-model", "Smiling", "holds no directions for Smiling."),),
        hand_labels=HandLabels(60, around(0.85, 0.08), around(0.76, 0.12)),
    )


def made_up_models() -> tuple[Model, ...]:
    return tuple(
        Model(
            name, architecture, space, "c" * 64, 64,
            (10, 512) if space == "w+" else (128,), n, space == "z", architecture == "eigenfaces",
            beta={"betavae-celeba": 2.0, "btcvae-celeba": 2.0, "beta1-celeba": 1.0}.get(name),
        )
        for name, (architecture, space, n, *_) in MODELS.items()
    )  # fmt: skip


def made_up_separability() -> list[Separability]:
    draws = random.Random(0)
    rows = []
    extra = {"majority": 0.5, "random-encoder": 0.69}
    for i, attribute in enumerate(ATTRIBUTES):
        accuracies = {m: v[3] for m, v in MODELS.items() if v[1] == "z"} | extra
        for model, base in accuracies.items():
            value = base if model == "majority" else base + 0.03 * i + draws.uniform(-0.01, 0.01)
            curve = tuple(
                (n, around(value - 0.15 * (50 / n) ** 0.5, 0.2 / n**0.5))
                for n in (50, 100, 200, 400, 800, 1000)
            )
            rows.append(separability(model, attribute, TRAINING, value, curve))
        for model in MODELS:
            rows.append(separability(model, attribute, PROJECTED, 0.8 + 0.02 * i, ()))
    return rows


def separability(
    model: str,
    attribute: str,
    image_set: str,
    value: float,
    curve: tuple[tuple[int, Estimate], ...],
) -> Separability:
    precision, recall, auroc = (around(value + d, 0.018) for d in (-0.01, 0.01, 0.07))
    constant = model == "majority"
    return Separability(
        model=model,
        attribute=attribute,
        image_set=image_set,
        method="svm",
        n=1080,
        accuracy=around(value, 0.018),
        precision=precision,
        recall=recall,
        f1=around(value, 0.018),
        auroc=auroc,
        stability=None if constant else 0.71,
        curve=() if constant else curve,
    )


def made_up_pairs() -> list[Pair]:
    names = list(MODELS)
    return [
        Pair(
            attribute, PROJECTED if "stylegan2-celeba" in (a, b) else TRAINING, "accuracy", a, b,
            around(MODELS[a][3] - MODELS[b][3], 0.012),
        )
        for attribute in ATTRIBUTES
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]  # fmt: skip


def faces_of(model: str) -> tuple[str, ...]:
    return (TEST, SAMPLES) if model == "stylegan2-celeba" else (TEST,)


def made_up_edits() -> list[Edits]:
    return [
        edits(model, attribute, method, faces)
        for model in MODELS
        for attribute in ATTRIBUTES
        for method in METHODS
        for faces in faces_of(model)
    ]


def edits(model: str, attribute: str, method: str, faces: str = TEST) -> Edits:
    """Logistic effect that reaches 80% where the table above says; leakage grows with strength."""
    architecture, *_, along_svm, along_others = MODELS[model]
    reach = along_svm if method in ("svm", "logistic") else along_others
    reach += {"pattern": 0.2, "joint": 0.5}.get(method, 0) + 0.4 * ATTRIBUTES.index(attribute)
    cost = {"svm": 0.026, "logistic": 0.027, "joint": 0.018}.get(method, 0.028)
    cost *= {"btcvae": 1.15, "stylegan2": 1.4}.get(architecture, 1)
    share = tuple(1 / (1 + math.exp(-1.4 * (s - reach) - 1.386)) for s in STRENGTHS)
    leakage = tuple(
        around(0.02 + cost * abs(s), 0.006) if s else Estimate(0, 0, 0) for s in STRENGTHS
    )
    at = EqualEffect()
    if reach < 8:
        leak = around(0.02 + cost * reach, 0.006)
        at = EqualEffect(around(reach, 0.2), leak, around(0.2, 0.01), around(0.8, 0.01), leak)
    counts = (120, 50, 30) if reach < 8 else (20, 165, 15)
    draws = random.Random(f"{model} {attribute} {method}")
    start = share[STRENGTHS.index(0)]
    return Edits(
        model=model,
        attribute=attribute,
        method=method,
        faces=faces,
        n=200,
        found="file",
        strengths=STRENGTHS,
        target=tuple(around(x - start, 0.03 if x != start else 0) for x in share),
        share=share,
        leakage=leakage,
        distance=leakage,
        similarity=leakage,
        realism=leakage,
        monotonicity=around(0.95, 0.02),
        path_length=around(0.5, 0.02),
        equal_effect=at,
        leakage_by_attribute={
            other: draws.gauss(0, 0.12) for other in (*OTHERS, *ATTRIBUTES) if other != attribute
        },
        outcomes=OutcomeCounts(*counts, 8.0, "s" * counts[0] + "n" * counts[1] + "d" * counts[2]),
        above_null=True,
    )


def made_up_holes() -> list[Holes]:
    ways = [i / 10 for i in range(11)]
    radii = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
    rows = []
    for i, model in enumerate(MODELS):
        depth = 0.3 if model.startswith("stylegan2") else 0.05
        rows.append(
            Holes(
                model,
                200,
                tuple((t, around(1.1 - 4 * depth * t * (1 - t) - 0.01 * i, 0.02)) for t in ways),
                tuple((r, around(1.2 - depth * r - 0.01 * i, 0.02)) for r in radii),
            )
        )
    return rows


@pytest.fixture(scope="module")
def results() -> Comparison:
    return made_up()


# --- intervals -----------------------------------------------------------------------------------


def test_differences_and_shares_have_the_intervals_of_the_textbook() -> None:
    # 3-4-5: independent arms add in quadrature.
    d = difference(around(0.9, 0.03), around(0.7, 0.04))
    assert (d.value, d.low, d.high) == pytest.approx((0.2, 0.15, 0.25))
    # Wilson's interval of 8 of 20 (the paper's strong edits): 0.2188 to 0.6134.
    share = share_interval(8, 20)
    assert (share.low, share.high) == pytest.approx((0.2188, 0.6134), abs=1e-4)
    # Ten tests at 5% each: 2.807 standard errors instead of 1.960.
    wide = widened(around(0.0, 1.96), 10)
    assert wide.high == pytest.approx(2.807, abs=1e-3)


def test_a_difference_counts_only_if_its_interval_leaves_zero_out() -> None:
    assert [sign(Estimate(0.1, low, 0.2)) for low in (0.01, -0.01)] == [1, 0]
    assert sign(Estimate(-0.1, -0.2, -0.01)) == -1
    assert sign(Estimate(math.nan, math.nan, math.nan)) == 0


# --- claims --------------------------------------------------------------------------------------


def verdicts(results: Comparison) -> dict[str, str]:
    return {claim.key: claim.verdict for claim in examine_claims(results)}


def sentence(results: Comparison, key: str) -> str:
    return next(claim.sentence for claim in examine_claims(results) if claim.key == key)


def with_pair(results: Comparison, first: str, second: str, value: float) -> Comparison:
    """The same results, but one pair's difference is another."""
    pairs = [
        replace(p, difference=around(value, 0.012)) if (p.first, p.second) == (first, second) else p
        for p in results.pairs
    ]
    return replace(results, pairs=tuple(pairs))


def test_the_made_up_results_support_what_they_were_made_for(results: Comparison) -> None:
    assert verdicts(results) == {
        "1a": "supported",
        "1b": "supported",
        "1c": "not supported",
        "2": "undecided",
        "3a": "supported",
        "3b": "supported",
        "3c": "not measured",
        "4": "supported",
        "5": "not supported",
    }


def test_separability_is_undecided_at_a_tie_and_refuted_by_one_clear_rival(
    results: Comparison,
) -> None:
    tie = with_pair(results, "vae-celeba", "btcvae-celeba", -0.005)
    assert verdicts(tie)["1a"] == "undecided"
    lost = with_pair(results, "vae-celeba", "btcvae-celeba", 0.03)
    assert verdicts(lost)["1a"] == "not supported"
    assert "−0.030 (−0.042 to −0.018) against vae-celeba" in sentence(lost, "1a")
    # Beaten by the interval's width alone, among 12 chances: that is no refutation.
    barely = with_pair(results, "vae-celeba", "btcvae-celeba", 0.0125)
    assert verdicts(barely)["1a"] == "undecided"


def test_an_edit_that_is_not_reached_loses_against_one_that_is() -> None:
    reaching, failing = (
        edits("btcvae-celeba", "Eyeglasses", "svm"),
        edits("vae-celeba", "Eyeglasses", "svm"),
    )
    assert compare_edits(reaching, failing) == 1
    assert compare_edits(failing, reaching) == -1
    # 78% of 200 faces is too close to 80% to be sure.
    nearly = replace(failing, share=tuple(min(s * 100, 0.78) for s in failing.share))
    assert compare_edits(reaching, nearly) == 0


def test_the_weight_of_the_kl_is_judged_among_networks_of_one_size_only(
    results: Comparison,
) -> None:
    # The large plain VAE has no known beta and another size: its lead says nothing about beta.
    apart = with_pair(results, "vae-celeba", "betavae-celeba", 0.2)
    assert verdicts(apart)["2"] == "undecided"
    matters = with_pair(results, "betavae-celeba", "beta1-celeba", 0.05)
    assert verdicts(matters)["2"] == "supported"
    assert "3 of them in favour of the larger β" in sentence(matters, "2")
    assert "+0.050 (+0.038 to +0.062)" in sentence(matters, "2")


def test_noise_in_w_is_compared_where_both_stylegan2_took_part(results: Comparison) -> None:
    plain = next(m for m in results.models if m.architecture == "stylegan2")
    noisy = replace(plain, name="stylegan2-noisy-celeba", w_noise=0.1)
    ways = tuple((t, around(1.0, 0.01)) for t in (0.0, 0.5, 1.0))
    holes = Holes(noisy.name, 200, ways, ((1.0, around(1.0, 0.01)), (3.0, around(0.9, 0.01))))
    both = replace(results, models=(*results.models, noisy), holes=(*results.holes, holes))
    assert verdicts(both)["3c"] == "supported"
    # The claim about holes stays with the StyleGAN2 that was trained as the paper's.
    assert "for stylegan2-celeba" in sentence(both, "3a")


def test_a_positive_correlation_with_the_distance_speaks_against_the_paper(
    results: Comparison,
) -> None:
    def turned(value: float) -> Comparison:
        rows = [replace(row, correlation=around(value, 0.1)) for row in results.boundary]
        return replace(results, boundary=tuple(rows))

    assert verdicts(turned(0.3))["4"] == "not supported"
    assert verdicts(turned(-0.05))["4"] == "undecided"


def test_class_means_meet_the_svm_that_was_found_in_the_same_codes(results: Comparison) -> None:
    svm = edits("stylegan2-celeba", "Eyeglasses", "svm")
    means = edits("stylegan2-celeba", "Eyeglasses", "mean-difference")
    rows = (svm, replace(means, method="mean-difference-projected"))
    assert verdicts(replace(results, edits=rows))["5"] == "not measured"
    rows += (replace(svm, method="svm-projected"),)
    assert verdicts(replace(results, edits=rows))["5"] == "not supported"
    assert "along svm-projected against" in sentence(replace(results, edits=rows), "5")


# --- the answer ----------------------------------------------------------------------------------


def test_the_answer_names_the_best_reader_and_the_best_editor(results: Comparison) -> None:
    text = answer(results)
    assert "btcvae-celeba separates Eyeglasses (0.860, 0.842 to 0.878)" in text
    assert "clearly ahead of every other model" in text
    assert "vae-celeba along its joint direction edits Eyeglasses, Smiling and Male best" in text
    assert "80% of the faces show the attribute at 4.0σ, 4.4σ and 4.8σ" in text
    assert "every model was trained once" in text
    assert "\n" not in text and "  " not in text and ".." not in text


def test_the_answer_says_what_ties_and_which_baseline_keeps_up(results: Comparison) -> None:
    tie = with_pair(results, "vae-celeba", "btcvae-celeba", -0.005)
    tie = with_pair(tie, "btcvae-celeba", "eigenfaces-celeba", 0.001)
    text = answer(tie)
    assert "best, but vae-celeba cannot be told apart from it." in text
    assert (
        "The baseline eigenfaces-celeba cannot be told apart from the best on Eyeglasses, Smiling "
        "and Male."
    ) in text
    beaten = answer(with_pair(results, "btcvae-celeba", "eigenfaces-celeba", -0.05))
    assert (
        "The baseline eigenfaces-celeba separates Eyeglasses, Smiling and Male clearly better than "
        "that."
    ) in beaten


def test_the_answer_names_a_baseline_that_edits_better(results: Comparison) -> None:
    best = edits("vae-celeba", "Eyeglasses", "joint")
    cheap = EqualEffect(around(2.0, 0.1), around(0.05, 0.006))
    eigenfaces = replace(best, model="eigenfaces-celeba", equal_effect=cheap)
    text = answer(replace(results, attributes=ATTRIBUTES[:1], edits=(best, eigenfaces)))
    assert "vae-celeba along its joint direction is the only one here, and edits Eye" in text
    assert "The baseline eigenfaces-celeba edits Eyeglasses clearly better than that." in text


def test_the_answer_reads_well_when_nothing_was_measured(results: Comparison) -> None:
    empty = replace(
        results, models=(), separability=(), pairs=(), ceilings=(), edits=(), null_bands=(),
        holes=(), boundary=(), cosines=(), hand_labels=None,
    )  # fmt: skip
    assert answer(empty).startswith(
        "Separability was not measured. Edits of test faces were not measured. None of the "
        "paper's claims could be tested."
    )
    assert set(verdicts(empty).values()) == {"not measured"}


def test_the_answer_says_how_near_the_best_comes_when_nobody_arrives(results: Comparison) -> None:
    far = tuple(row for row in results.edits if row.model == "eigenfaces-celeba")
    models = tuple(replace(m, baseline=False) for m in results.models)
    text = answer(replace(results, edits=far, models=models, attributes=("Eyeglasses",)))
    top = max(max(row.share) for row in far if row.attribute == "Eyeglasses")
    assert "No model edits Eyeglasses so far that 80% of the faces show it" in text
    assert f"comes nearest, with {top:.0%} at +8σ" in text


def test_many_attributes_are_counted_instead_of_listed(results: Comparison) -> None:
    names = [f"Attribute_{i}" for i in range(12)]
    rows = [separability("vae-celeba", name, TRAINING, 0.8, ()) for name in names]
    many = replace(results, attributes=tuple(names), separability=tuple(rows), pairs=(), edits=())
    assert answer(many).startswith("Of 12 attributes, vae-celeba separates 12 best")


# --- figures, tables and the report --------------------------------------------------------------


@pytest.fixture(scope="module")
def small(results: Comparison) -> Comparison:
    """Two models, one attribute, two methods: enough of everything, and drawn in seconds."""
    names, methods = ("btcvae-celeba", "stylegan2-celeba"), ("svm", "joint")
    return replace(
        results,
        attributes=ATTRIBUTES[:1],
        methods=methods,
        models=tuple(m for m in results.models if m.name in names),
        separability=tuple(
            r for r in results.separability if r.model in (*names, "majority")
        ),
        edits=tuple(
            row
            for row in results.edits
            if row.model in names and row.method in methods and row.faces == TEST
        ),
        holes=tuple(row for row in results.holes if row.model in names),
        cosines=tuple(row for row in results.cosines if row.model in names)[:1],
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(small: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    picture = Picture("strips-mine", "A strip", Image.new("RGB", (40, 20), "red"), "It is red.")
    write_report(small, folder, [picture])
    return folder


def test_every_figure_is_drawn_and_the_same_results_give_the_same_bytes(
    small: Comparison, report: Path
) -> None:
    assert {path.stem for path in report.glob("*.png")} == {
        "separability", "separability-projected", "learning-curves", "effect-Eyeglasses",
        "effect-leakage-Eyeglasses", "outcomes-Eyeglasses", "leakage-Eyeglasses", "realism",
        "cosines-svm", "strips-mine",
    }  # fmt: skip
    for again in (outcome_bars(small, "Eyeglasses", TEST), realism_lines(small)):
        assert again is not None
        png = (report / f"{again.name}.png").read_bytes()
        assert again.png == png
        with Image.open(io.BytesIO(png)) as image:
            # Neither a date nor a version of the program that wrote it.
            assert image.width >= 900 and not image.info.keys() & {"Software", "Creation Time"}


def test_figures_without_numbers_are_left_out(results: Comparison) -> None:
    empty = replace(results, separability=(), edits=(), holes=(), cosines=())
    assert draw_plots(empty) == []


def test_the_page_opens_on_its_own(report: Path) -> None:
    page = (report / "index.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"#][^"]{0,40})', page)
    assert sources and all(s.startswith("data:image/png;base64,") for s in sources)
    assert page.lstrip().startswith("<!doctype html>") and "prefers-color-scheme: dark" in page
    assert page.count("<figure") == len(list(report.glob("*.png")))


def test_the_markdown_has_its_parts_in_order_and_only_pictures_that_exist(
    report: Path, small: Comparison
) -> None:
    text = (report / "report.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads == [
        "The paper's claims", "Table 1: separability", "Editing at equal effect", "Outcomes",
        "Figures", "The judge, and the thresholds", "What was compared", "How to reproduce",
    ]  # fmt: skip
    assert answer_paragraphs(small)[0] in text
    pictures = re.findall(r"!\[.*?\]\((.+?)\)", text)
    assert pictures and all((report / name).is_file() for name in pictures)
    assert "| β-TCVAE, the paper's own | 0.8750 | 0.8516 | 0.8997 | 0.8750 |" in text
    assert "majority (baseline)" in text and small.command in text
    for line in re.findall(r"^\|.*$", text, re.MULTILINE):
        assert line.endswith("|")


def test_names_in_the_report_are_text_and_no_markup(small: Comparison, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|x"
    models = (replace(small.models[0], note=evil), *small.models[1:])
    bare = replace(small, models=models, edits=(), separability=(), holes=(), cosines=())
    write_report(bare, tmp_path)
    assert "<script" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_equal_effect_tables_say_what_was_not_reached(results: Comparison) -> None:
    table = equal_effect_tables(results, TEST)[0]
    assert table.columns == ("model", *METHODS)
    rows = {row[0]: row[1:] for row in table.plain()}
    assert rows["vae-celeba"][0].startswith("not reached, ")
    joint = rows["vae-celeba"][-1]
    assert joint == "4.0σ, 0.092 (3.8 to 4.2; 0.086 to 0.098)"
    best = [cell for row in table.rows for cell in row if cell.strong]
    assert [str(cell) for cell in best] == [joint]


def test_the_overview_has_one_row_per_model(results: Comparison) -> None:
    table = scores_table(results, "Eyeglasses")
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.plain()}
    assert len(rows) == len(MODELS) + 2
    assert rows["vae-celeba"]["best direction"] == "joint"
    assert rows["vae-celeba"]["strong edits"] == "60% (53% to 67%)"
    # Read on the projected faces alone.
    assert rows["stylegan2-celeba"]["accuracy"].startswith("0.800")
    assert rows["majority (baseline)"]["strength"] == "–"


def test_results_from_a_file_give_the_same_report(small: Comparison, tmp_path: Path) -> None:
    small.save(tmp_path)
    again = Comparison.load(tmp_path)
    assert answer(again) == answer(small)
    # Everything but the figures, which take their time.
    bare = replace(again, edits=(), separability=(), holes=(), cosines=())
    first, second = write_report(bare, tmp_path / "a"), write_report(bare, tmp_path / "b")
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()


# --- strips --------------------------------------------------------------------------------------


def pixels(image: Image.Image, left: int, top: int, side: int) -> Image.Image:
    return image.crop((left, top, left + side, top + side))


def test_strips_show_each_latent_at_each_strength() -> None:
    model = tiny_vae()
    direction = random_directions(model)["Smiling", "svm"]
    latents = model.sample_latents(2, generator=torch.Generator().manual_seed(1))
    made = edit_strips(model, direction, latents, name="tiny", strengths=(-2.0, 0.0, 3.0))
    assert "−2σ, 0, +3σ" in made.caption and "2 rows of samples" in made.caption
    side = STRIP_SIDE
    # The second row's last picture is the second latent, moved by three standard deviations.
    wanted = fit(to_pil(model.decode(edit(latents[1:], direction, 3.0)))[0], side, side)
    line = FONT_SIZE + 8
    top = MARGIN + line + (line + side + GAP) + line
    found = pixels(made.image, MARGIN + 2 * (side + GAP), top, side)
    assert list(found.getdata()) == list(wanted.convert("RGB").getdata())


def test_the_grids_before_and_after_keep_each_face_in_its_place() -> None:
    model = tiny_vae()
    direction = random_directions(model)["Smiling", "svm"]
    latents = model.sample_latents(12, generator=torch.Generator().manual_seed(1))
    made = before_and_after(model, direction, latents, name="tiny", strength=0.0)
    half = (made.image.width - 4 * MARGIN) // 2
    top = MARGIN + FONT_SIZE + 8
    left, right = (
        made.image.crop((x, top, x + half, made.image.height)) for x in (MARGIN, 3 * MARGIN + half)
    )
    assert list(left.getdata()) == list(right.getdata())
    moved = before_and_after(model, direction, latents, name="tiny", strength=4.0)
    assert "+4σ" in moved.caption and moved.name == "grid-tiny-Smiling-svm"
    assert list(moved.image.getdata()) != list(made.image.getdata())


def test_labels_inside_pictures_keep_to_what_the_font_has() -> None:
    model = tiny_vae()
    direction = random_directions(model)["Smiling", "svm"]
    font, drawn = ImageFont.load_default(FONT_SIZE), []
    with pytest.MonkeyPatch.context() as patch:
        draw = ImageDraw.ImageDraw.text
        patch.setattr(
            ImageDraw.ImageDraw, "text", lambda *a, **k: (drawn.append(a[2]), draw(*a, **k))[1]
        )
        edit_strips(model, direction, torch.zeros(1, 8), name="tiny")
        before_and_after(model, direction, torch.zeros(1, 8), name="tiny")
    missing = bytes(font.getmask("\uffff"))
    letters = set("".join(drawn)) - {" "}
    assert letters and not [x for x in letters if bytes(font.getmask(x)) == missing]


def test_strips_without_latents_are_refused() -> None:
    model = tiny_vae()
    direction = random_directions(model)["Smiling", "svm"]
    with pytest.raises(HublatentError, match="at least one latent"):
        edit_strips(model, direction, torch.zeros(0, 8))
