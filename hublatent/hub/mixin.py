"""HubModel: the one mixin that every model shares.

It builds on PyTorchModelHubMixin, but reads strictly: config and weights come from one commit, and
every tensor has to fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from huggingface_hub import PyTorchModelHubMixin

from hublatent import checkpoint
from hublatent.checkpoint import CONFIG_NAME, FORMAT_VERSION, WEIGHTS_NAME
from hublatent.errors import CheckpointError
from hublatent.hub.download import HubOptions, Snapshot, snapshot
from hublatent.hub.publisher import publisher

if TYPE_CHECKING:
    from typing_extensions import Unpack

Model = TypeVar("Model", bound="HubModel")


class HubModel(PyTorchModelHubMixin, library_name="hublatent", license="other"):
    """A folder format, strict loading, publishing.

    A subclass's `__init__` takes named JSON scalars only, keeps each as an attribute of the same
    name, and refuses values out of range: its signature is the format of config.json.
    """

    architecture: ClassVar[str]
    commit: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        """config.json's content: architecture, format version and every `__init__` argument."""
        arguments = {name: getattr(self, name) for name in checkpoint.init_parameters(type(self))}
        return {"architecture": self.architecture, "format_version": FORMAT_VERSION, **arguments}

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls: type[Model], source: str | Path, *, device: str | None = None,
        **options: Unpack[HubOptions],
    ) -> Model:  # fmt: skip
        """Load a model of this class from a folder or the Hub, in evaluation mode.

        Args:
            source: an existing folder, which wins, or a Hub id.
            device: where to put the model; None leaves it on the CPU.
            options: revision, token, cache_dir, local_files_only; see `hublatent.hub.snapshot`. The
                model's `commit` tells which revision it was.

        Raises:
            HubError: the source cannot be had.
            CheckpointError: it is another architecture's, or incomplete or damaged.
        """
        return cls.from_snapshot(snapshot(source, **options), device=device)

    @classmethod
    def from_snapshot(cls: type[Model], where: Snapshot, device: str | None = None) -> Model:
        """Load a model of this class from files that are already here."""
        config = checkpoint.read_config(where.folder)
        if config["architecture"] != cls.architecture:
            raise CheckpointError(
                f"{where.source} is of the architecture {config['architecture']!r}; "
                f"{cls.__name__} reads {cls.architecture!r}. hublatent.load() picks the class."
            )
        described = f"{where.source}/{CONFIG_NAME}"
        arguments = checkpoint.check_arguments(cls, config, described)
        model = checkpoint.build(cls, arguments, where.folder / WEIGHTS_NAME)  # type: ignore[type-var]
        model.commit = where.commit
        return model.eval().to(device)  # type: ignore[attr-defined]

    def save_pretrained(self, save_directory: str | Path) -> None:  # type: ignore[override]
        """Write config.json and model.safetensors into a folder, both or neither."""
        weights = self.state_dict()  # type: ignore[attr-defined]
        checkpoint.write_checkpoint(Path(save_directory), self.config, weights)

    def push_to_hub(  # type: ignore[override]
        self, repo_id: str, *, directions: Any = None, private: bool = False,
        revision: str | None = None, create_pr: bool = False, token: str | bool | None = None,
        commit_message: str = "Publish with hublatent",
    ) -> str:  # fmt: skip
        """Publish the model, and a DirectionSet beside it, in one commit; returns its URL.

        A repository without a card gets one, with samples; a card that is there stays as it is.

        Args:
            repo_id: the Hub id; made where it does not exist, private if asked for.
            directions: a DirectionSet measured on this model, or None.
            create_pr: open a pull request instead of committing to `revision`, a branch.
            token: a Hub token with write access; None takes the stored one.

        Raises:
            HubError: the Hub refused.
            DirectionError: the directions belong to another model.
        """
        return publisher().push_model(
            self, repo_id, directions=directions, private=private, revision=revision,
            create_pr=create_pr, token=token, message=commit_message,
        )  # fmt: skip
