"""hublatent data and hublatent metrics: drawn factors, and scores of disentanglement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from hublatent.cli.options import Classifier, Data

Estimator = Literal["gradient-boosting", "random-forest", "logistic"]


def data(
    name: Annotated[Positional[Literal["sprites"]], arg(metavar="sprites")],
    out: Annotated[Path, arg(metavar="FILE")] = Path("sprites.npz"),
    count: int = 62_500,
    seed: int = 0,
) -> None:
    """Draw a data set of known factors: sprites of 3 shapes, 6 sizes, 40 turns, 32 x 32 places.

    The file has the arrays of dSprites, imgs (N, 64, 64; from 0 to 255) and latents_classes
    (N, 5). Commands that take --data draw the default's pictures themselves: --data sprites.

    Args:
        name: which; there are only sprites.
        out: the file to write.
        count: how many of the 737,280 different sprites.
        seed: of the choice.
    """
    import numpy as np

    from hublatent.data import sprites
    from hublatent.storage import atomic_path

    factors = sprites.draw_factors(count, seed)
    # numpy appends .npz to names that lack it, and so not to an open file's.
    with atomic_path(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, imgs=sprites.render(factors), latents_classes=factors)
    ranges = ", ".join(f"{factor} {n}" for factor, n in sprites.FACTORS.items())
    print(f"{out}: {count:,} sprites ({ranges}), seed {seed}")


def metrics(
    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL...")],
    source: Data,
    metrics: tuple[str, ...] | None = None,
    n: int | None = None,
    estimator: Estimator | None = None,
    samples: int = 2000,
    classifier: Classifier = "model_cards/judge-celeba",
    features: Classifier = "model_cards/image-features",
    out: Path | None = None,
    seed: int = 0,
) -> None:
    """Measure disentanglement: on drawn factors, or on a data set's attributes.

    Attributes depend on one another, so that no model can score 1 on them; these scores are
    called attribute-..., and the correlations of the labels stand beside.

    Args:
        models: each a folder or a Hub id.
        source: labelled pictures, or "sprites".
        metrics: which ones; all by default.
        n: pictures encoded; 10,000 sprites or 4,000 labelled pictures by default.
        estimator: DCI's, on which its scores depend: random-forest on sprites and logistic on
            attributes by default; the literature's gradient-boosting takes minutes a factor.
        samples: of the model, for linear separability and path length on labelled data; 0 leaves
            both out.
        classifier: reads the samples' attributes.
        features: whose perceptual distance path length is measured by.
        out: a CSV file with a line for each model; the labels' correlations go beside it.
        seed: of every draw.
    """
    from functools import cache, partial

    import pandas as pd

    from hublatent.checkpoint import folder_name
    from hublatent.data import sprites
    from hublatent.errors import HublatentError, unknown_name
    from hublatent.evaluation.metrics import METRICS, label_correlations, measure
    from hublatent.evaluation.subjects import check_distinct, run_of
    from hublatent.models import load
    from hublatent.perception.classifier import AttributeClassifier
    from hublatent.perception.features import ImageFeatures
    from hublatent.storage import write_text

    for metric in metrics or ():
        if metric not in METRICS:
            raise HublatentError(unknown_name("metric", metric, METRICS))
    if n is not None and n < measure.MIN_IMAGES:
        raise HublatentError(f"--n {n}; expected {measure.MIN_IMAGES} or more.")
    if not models:
        raise HublatentError("No model is named; expected one or more folders or Hub ids.")
    drawn = source.data == sprites.NAME and not Path(source.data).exists()
    chosen = estimator or ("random-forest" if drawn else "logistic")
    called = [folder_name(Path(m)) if Path(m).is_dir() else m for m in models]
    check_distinct(called)
    # What the models share is loaded once.
    load_data = cache(source.load)
    load_classifier = cache(partial(AttributeClassifier.from_pretrained, classifier))
    load_features = cache(partial(ImageFeatures.from_pretrained, features))
    rows = {}
    for name, place in zip(called, models, strict=True):
        model = load(place)
        if drawn:
            latents, factors = measure.sprite_latents(model, n or 10_000, seed)
        else:
            dataset = load_data(model.image_size)
            latents, factors, names = measure.attribute_latents(model, dataset, n or 4000, seed)
        found = measure.scores(latents, factors, metrics or METRICS, chosen, not drawn, seed)
        if samples and not drawn and metrics is None:
            judges = load_classifier(), load_features()
            found |= measure.sample_scores(model, *judges, samples, seed)
        print(name, *(f"  {column}: {value:.4f}" for column, value in found.items()), sep="\n")
        # Each is written as soon as it is measured: the next may take minutes.
        rows[name] = run_of(Path(place))[1] | found
        if out is not None:
            write_text(out, pd.DataFrame(rows).T.to_csv(index_label="model"))
        if not drawn:
            correlations = pd.DataFrame(label_correlations(factors), names, names)
            print(measure.describe_correlations(correlations))
            if out is not None:
                beside = out.with_name(f"{out.stem}-correlations.csv")
                write_text(beside, correlations.to_csv(float_format="%.4f"))
