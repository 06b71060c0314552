"""Who may see and change what on the stand-in Hub, and how the Hub words a refusal."""

from __future__ import annotations

from tests.hub_standin.repository import Commit, Repository
from tests.hub_standin.server import Call, Refused


def readable(call: Call, name: str) -> Repository:
    """A repository that the caller may see."""
    found = call.hub.repositories.get(name)
    if found is None or (found.private and not (call.account and call.account.owns(name))):
        # To the anonymous the Hub does not tell a private repository from a missing one.
        if call.account is None:
            raise Refused(401, "Invalid username or password.", "RepoNotFound")
        raise Refused(404, "Repository not found", "RepoNotFound")
    if found.disabled:
        raise Refused(403, "Access to this resource is disabled.")
    return found


def writable(call: Call, name: str, *, pull_request: bool = False) -> Repository:
    """A repository that the caller may change, or open a pull request on."""
    if call.account is None:
        raise Refused(401, "Invalid username or password.", "RepoNotFound")
    found = readable(call, name)
    if not call.account.write:
        raise Refused(403, "This token is read-only: a write token is needed")
    if not pull_request and not call.account.owns(name):
        raise Refused(403, "pass `create_pr=1` as a query parameter to create a Pull Request")
    return found


def commit_at(repository: Repository, revision: str) -> Commit:
    """The commit of a revision, or the Hub's way to say that there is none."""
    try:
        return repository.commits[repository.resolve(revision)]
    except KeyError:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound") from None


def check_gate(call: Call, repository: Repository) -> None:
    if not repository.gated:
        return
    if call.account is None:
        raise Refused(401, f"Access to model {repository.id} is restricted.", "GatedRepo")
    if not (call.account.owns(repository.id) or call.account.user in repository.allowed):
        raise Refused(403, f"Access to model {repository.id} is restricted.", "GatedRepo")


def namespaced(call: Call) -> str:
    """The repository that a create or delete request names, in a namespace of the caller's."""
    asked = call.json()
    if call.account is None:
        raise Refused(401, "Invalid username or password.")
    name = f"{asked.get('organization') or call.account.user}/{asked['name']}"
    if asked.get("type", "model") != "model":
        raise Refused(400, "The stand-in has models only")
    if not (call.account.write and call.account.owns(name)):
        raise Refused(
            403,
            "You don't have the rights to create a model under the namespace "
            f'"{name.split("/")[0]}"',
        )
    return name
