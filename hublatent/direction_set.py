"""DirectionSet: the directions of one model; direction_file.py reads and writes their file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hublatent import direction_file
from hublatent.direction import Direction, check_fits_shape
from hublatent.errors import DirectionError, unknown_name

if TYPE_CHECKING:
    from hublatent.model import LatentModel

MAX_DOWNLOAD_BYTES = 256 << 20
UNKNOWN = "unknown"  # the architecture and fingerprint of directions of no known model


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Directions of one model, and the one file that holds them.

    Attributes:
        directions: the directions, each name once.
        architecture: of the model they belong to.
        space: of its latents.
        fingerprint: of its weights.
        override: the fingerprint of another model that the user insisted to use them with.
        licence: the terms they come under, in a sentence, where their author stated any.
    """

    directions: tuple[Direction, ...]
    architecture: str
    space: str
    fingerprint: str
    override: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        names = [direction.name for direction in self.directions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DirectionError(f"A set holds each direction once; twice: {', '.join(twice)}.")

    @classmethod
    def of(cls, model: LatentModel, directions: Iterable[Direction]) -> DirectionSet:
        """Gather directions that were found on a model."""
        result = cls(tuple(directions), model.architecture, model.space, model.fingerprint())
        result.check_fits(model)
        return result

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes, in the file's order."""
        return tuple(dict.fromkeys(direction.attribute for direction in self))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, in the file's order."""
        return tuple(dict.fromkeys(direction.method for direction in self))

    def __len__(self) -> int:
        return len(self.directions)

    def __iter__(self) -> Iterator[Direction]:
        return iter(self.directions)

    def __contains__(self, key: object) -> bool:
        return any((d.attribute, d.method) == key for d in self)

    def __getitem__(self, key: tuple[str, str]) -> Direction:
        """The direction of an (attribute, method)."""
        if not isinstance(key, tuple) or len(key) != 2:
            raise DirectionError(f"Ask for set[attribute, method], not set[{key!r}].")
        attribute, method = key
        of_attribute = {d.method: d for d in self if d.attribute == attribute}
        if not of_attribute:
            raise DirectionError(unknown_name("attribute", attribute, self.attributes))
        if method not in of_attribute:
            raise DirectionError(unknown_name(f"method for {attribute}", method, of_attribute))
        return of_attribute[method]

    def check_fits(self, model: LatentModel) -> None:
        """Refuse a model that these directions were not found on.

        Raises:
            DirectionError: architecture, space, shape or fingerprint differ; says which.
        """
        for what, ours, theirs in (
            ("architecture", self.architecture, model.architecture),
            ("latent space", self.space, model.space),
        ):
            if ours != theirs:
                raise DirectionError(
                    f"These directions are for the {what} {ours!r}; the model's is {theirs!r}."
                )
        for direction in self:
            check_fits_shape(direction, model)
        fingerprint = model.fingerprint()
        if fingerprint not in (self.fingerprint, self.override):
            raise DirectionError(
                f"These directions were found on the {self.architecture} with the fingerprint "
                f"{self.fingerprint[:12]}; this model's is {fingerprint[:12]}, so its latents mean "
                "something else. Load the model they belong to, or pass override=True."
            )

    def save(self, path: str | Path) -> None:
        """Write the set as one safetensors file, atomically.

        Raises:
            OSError: the disk is full, or may not be written; an earlier file is as it was.
        """
        texts = {key: getattr(self, key) for key in direction_file.TEXTS}
        direction_file.write(Path(path), texts, self.directions)

    @classmethod
    def load(
        cls, path: str | Path, model: LatentModel | None = None, *, override: bool = False
    ) -> DirectionSet:
        """Read a set from its file.

        Args:
            path: the safetensors file.
            model: if given, the directions must have been found on it.
            override: use them with a model of the same architecture, space and shape but other
                weights all the same; the set records it.

        Returns:
            The set.

        Raises:
            DirectionError: the file is missing or damaged, or belongs to another model.
        """
        texts, found = direction_file.read(Path(path))
        directions = cls(found, **texts)  # type: ignore[arg-type]
        if model is not None:
            if override and model.fingerprint() != directions.fingerprint:
                directions = replace(directions, override=model.fingerprint())
            directions.check_fits(model)
        return directions

    @classmethod
    def from_pretrained(
        cls,
        repo: str | Path,
        model: LatentModel | None = None,
        revision: str | None = None,
        *,
        override: bool = False,
        **hub_options: Any,
    ) -> DirectionSet:
        """Read a set from a model's folder, or from the Hub.

        Args:
            repo: a folder or a Hub id.
            model: if given, the directions must have been found on it.
            revision: branch, tag or commit on the Hub.
            override: see `load`.
            hub_options: token, cache_dir, local_files_only, max_bytes.
        """
        from hublatent.hub import DIRECTIONS_NAME, snapshot

        limited = {"max_bytes": MAX_DOWNLOAD_BYTES, **hub_options}
        where = snapshot(repo, revision=revision, files=(DIRECTIONS_NAME,), **limited)
        return cls.load(where.folder / DIRECTIONS_NAME, model, override=override)

    def push_to_hub(
        self,
        repo: str,
        *,
        model: LatentModel | None = None,
        base_model: str | None = None,
        **options: Any,
    ) -> str:
        """Publish the set alone, without its model, under a card that is made for it.

        A repository that holds a model keeps its own card: there the direction file alone is sent.

        Args:
            repo: the Hub id; made where it does not exist.
            model: the model they belong to; draws the card's picture. Without it there is none.
            base_model: the model's Hub id, for the card.
            options: private, revision, create_pr, token, message of `hublatent.hub.publish`.

        Returns:
            The commit's URL.

        Raises:
            HubError: the Hub refused, or an id is none.
            DirectionError: the directions belong to another model.
        """
        import tempfile

        from hublatent.cards.directions_card import write_directions_folder
        from hublatent.publishing import (
            CONFIG_NAME,
            DIRECTIONS_NAME,
            PUBLISHED_FILES,
            holds,
            publish,
        )

        beside_model = holds(CONFIG_NAME, repo, options.get("revision"), options.get("token"))
        files = (DIRECTIONS_NAME,) if beside_model else PUBLISHED_FILES
        with tempfile.TemporaryDirectory() as folder:
            write_directions_folder(folder, self, repo, model=model, base_model=base_model)
            return publish(folder, repo, files=files, **options)
