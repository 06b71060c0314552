"""What a comparison found: plain values, and the files they are written to and read from.

results.json holds everything; separability.csv and edits.csv are its flat tables. Numbers have six
significant digits, so that the same seed on the same machine gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from hublatent import __version__
from hublatent.comparison.storage import csv_text, edit_rows, from_json, separability_rows, to_json
from hublatent.errors import DataError
from hublatent.stats import Estimate
from hublatent.storage import write_text

FORMAT = "hublatent-comparison"
FORMAT_VERSION = 1
RESULTS_NAME = "results.json"
SEPARABILITY_NAME = "separability.csv"
EDITS_NAME = "edits.csv"

TRAINING = "validation+train"  # the image set of the cross-validated scores
PROJECTED = "projected"  # the image set that a model without an encoder was given latents of
TEST = "test"  # edited faces: real ones of the test partition
SAMPLES = "samples"  # edited faces: the model's own samples
OUTCOMES = ("strong", "no effect", "decohered")
OUTCOME_LETTERS = {"strong": "s", "no effect": "n", "decohered": "d"}


@dataclass(frozen=True)
class Data:
    """The pictures that everything was measured on."""

    digest: str
    n_train: int
    n_validation: int
    n_test: int


@dataclass(frozen=True)
class Judge:
    """The classifier that judges, and how good it is on real test pictures.

    Attributes:
        name: its folder's name.
        fingerprint: of its weights.
        auroc: attribute -> AUROC on the test partition.
        same_person_auroc: how well the cosine of its features tells two pictures of one person
            from pictures of two.
        own_noise: mean |change of P| over all attributes when a test picture is mirrored: leakage
            below it says nothing.
        n_test: how many test pictures this rests on.
    """

    name: str
    fingerprint: str
    auroc: Mapping[str, Estimate]
    same_person_auroc: Estimate | None
    own_noise: float
    n_test: int


@dataclass(frozen=True)
class Model:
    """A compared model. `baseline`: majority, random encoder, eigenfaces; `problem`: why a part of
    its rows is missing; `note`: what else a reader has to know; `beta`: the weight it was trained
    with, `w_noise`: the noise in W; None where its card does not say."""

    name: str
    architecture: str
    space: str
    fingerprint: str
    image_size: int
    latent_shape: tuple[int, ...]
    n_parameters: int
    has_encoder: bool
    baseline: bool = False
    problem: str = ""
    note: str = ""
    beta: float | None = None
    w_noise: float | None = None


@dataclass(frozen=True)
class Separability:
    """How well one attribute is read from one model's latents, by held-out identities.

    Attributes:
        model, attribute: whose and which; "majority" and "random-encoder" are models too.
        image_set: TRAINING or PROJECTED.
        method: how the direction was found; "svm" is the paper's, and Table 1.
        n: pictures in the balanced set.
        accuracy, precision, recall, f1, auroc: with 95% intervals over identities.
        stability: mean cosine between the directions of two folds; None for "majority".
        curve: (labelled pictures, accuracy) of growing training sets; empty but for "svm".
    """

    model: str
    attribute: str
    image_set: str
    method: str
    n: int
    accuracy: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    auroc: Estimate
    stability: float | None
    curve: tuple[tuple[int, Estimate], ...] = ()


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's own Table 1."""

    model: str
    attribute: str
    accuracy: float
    precision: float
    recall: float
    f1: float
    source: str


@dataclass(frozen=True)
class Pair:
    """Accuracy of the first model minus that of the second, on the same pictures (svm)."""

    attribute: str
    image_set: str
    score: str
    first: str
    second: str
    difference: Estimate


@dataclass(frozen=True)
class Ceiling:
    """The judge's mean P(attribute) on unedited reconstructions: what blur leaves of it."""

    model: str
    attribute: str
    faces: str
    n_wearers: int
    n_others: int
    wearers: Estimate
    others: Estimate


@dataclass(frozen=True)
class EqualEffect:
    """The strength at which `share` of the faces have P(target) > 1/2, and what it costs there.

    All are None where that is not reached. An upper end equal to the largest strength means: at
    least that.
    """

    strength: Estimate | None = None
    leakage: Estimate | None = None
    distance: Estimate | None = None
    similarity: Estimate | None = None
    realism: Estimate | None = None


@dataclass(frozen=True)
class OutcomeCounts:
    """How many strips are strong, without effect, decohered; `by_face` has one letter s, n or d
    per face, in the faces' order; `strength` is the end of the strip."""

    strong: int
    no_effect: int
    decohered: int
    strength: float
    by_face: str


@dataclass(frozen=True)
class Edits:
    """Edits of faces that lack an attribute, along one direction, at every strength.

    Attributes:
        model, attribute, method: along which direction.
        faces: TEST or SAMPLES.
        n: how many faces.
        found: where the direction comes from, "file" or "here".
        strengths: in standard deviations.
        target: change of P(target) per strength, against the unedited reconstruction.
        share: share of the faces with P(target) > 1/2 per strength.
        leakage: mean |change of P| over faces and the other attributes, per strength.
        distance: perceptual distance from the unedited reconstruction, per strength.
        similarity: cosine of the judge's features with the unedited reconstruction's.
        realism: see `definitions` of the Comparison; None without a reference.
        monotonicity: mean rank correlation of the strength with the judge's logit.
        path_length: perceptual distance summed over the steps from 0 to the largest strength.
        equal_effect: cost at equal effect.
        leakage_by_attribute: mean change of each other attribute's P at equal effect, or at the
            largest strength where that is not reached.
        outcomes: counts of strips; None without a reference.
        above_null: whether the effect at equal effect, or at the largest strength, lies above the
            null band with its whole interval.
        note: such as "150 faces, 200 were asked for".
    """

    model: str
    attribute: str
    method: str
    faces: str
    n: int
    found: str
    strengths: tuple[float, ...]
    target: tuple[Estimate, ...]
    share: tuple[float, ...]
    leakage: tuple[Estimate, ...]
    distance: tuple[Estimate, ...]
    similarity: tuple[Estimate, ...]
    realism: tuple[Estimate, ...] | None
    monotonicity: Estimate
    path_length: Estimate
    equal_effect: EqualEffect
    leakage_by_attribute: Mapping[str, float]
    outcomes: OutcomeCounts | None
    above_null: bool
    note: str = ""


@dataclass(frozen=True)
class NullBand:
    """95th percentile of |change of P(target)| over the control directions, per strength."""

    model: str
    attribute: str
    faces: str
    n: int
    n_random: int
    n_shuffled: int
    strengths: tuple[float, ...]
    band: tuple[float, ...]


@dataclass(frozen=True)
class Holes:
    """Realism on the way between two samples, and from the mean through a sample and beyond.

    Attributes:
        model: whose space.
        n: how many lines.
        realism_between: (t, realism) with t from 0, one sample, to 1, another.
        realism_beyond: (r, realism) at mean + r * (sample - mean).
    """

    model: str
    n: int
    realism_between: tuple[tuple[float, Estimate], ...]
    realism_beyond: tuple[tuple[float, Estimate], ...]


@dataclass(frozen=True)
class Boundary:
    """Rank correlation of how far a face lies before the svm boundary with how well its edit works
    (mean P(target) over the positive strengths)."""

    model: str
    attribute: str
    method: str
    faces: str
    correlation: Estimate


@dataclass(frozen=True)
class Cosines:
    """Cosines between the directions of a method: `matrix` is (K, K)."""

    model: str
    method: str
    attributes: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class HandLabels:
    """Agreement of the program's outcomes with strips labelled by eye."""

    n: int
    agreement: Estimate
    kappa: Estimate


@dataclass(frozen=True)
class Problem:
    """Something that could not be measured; the rest went on."""

    model: str
    attribute: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison found; the content of results.json.

    Attributes:
        seed, command: what it was made with.
        attributes, methods, strengths: what was asked for; strengths in standard deviations.
        thresholds, thresholds_text: name -> value, and a sentence each.
        definitions: measure -> one sentence that says how it is measured.
        faces: attribute -> file names of the edited test faces, in order.
        The others: rows of the tables.
    """

    seed: int
    command: str
    data: Data
    judge: Judge
    attributes: tuple[str, ...]
    methods: tuple[str, ...]
    strengths: tuple[float, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    thresholds_text: Mapping[str, str] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)
    faces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    separability: tuple[Separability, ...] = ()
    paper_table: tuple[PaperRow, ...] = ()
    pairs: tuple[Pair, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    edits: tuple[Edits, ...] = ()
    null_bands: tuple[NullBand, ...] = ()
    holes: tuple[Holes, ...] = ()
    boundary: tuple[Boundary, ...] = ()
    cosines: tuple[Cosines, ...] = ()
    problems: tuple[Problem, ...] = ()
    hand_labels: HandLabels | None = None

    def save(self, folder: str | Path) -> None:
        """Write results.json, separability.csv and edits.csv, each atomically."""
        folder = Path(folder)
        head = {"format": FORMAT, "version": FORMAT_VERSION, "package": __version__}
        document = {**head, **to_json(self)}
        # Infinite values are no JSON; where one is found, that is a mistake here.
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / SEPARABILITY_NAME, csv_text(separability_rows(self.separability)))
        write_text(folder / EDITS_NAME, csv_text(edit_rows(self.edits)))
        write_text(folder / RESULTS_NAME, text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Read results.json, given its path or its folder.

        Raises:
            DataError: it is missing, of another format or version, or damaged.
        """
        path = Path(path)
        path = path / RESULTS_NAME if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}.") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise DataError(f"{path} holds no results of `hublatent compare`.")
        if document.get("version") != FORMAT_VERSION:
            raise DataError(
                f"{path} has version {document.get('version')!r}; this hublatent reads "
                f"{FORMAT_VERSION}. Compare again."
            )
        try:
            names = {field.name for field in fields(cls)}
            return from_json(cls, {k: v for k, v in document.items() if k in names})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}.") from error
