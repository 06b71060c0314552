"""A stand-in for the Hugging Face Hub on 127.0.0.1, for the real huggingface_hub client.

It keeps model repositories in memory and answers the requests that the client makes to create,
list, download and commit: https://huggingface.co/docs/hub/api, and the client's own source where
that page is silent. Misbehaviour is asked for by name, so that a test says what goes wrong:

    @pytest.fixture
    def hub(tmp_path):
        with HubStandIn() as hub, connected(hub, tmp_path):
            yield hub

    def test_something(hub):
        hub.create("user/model", files={"config.json": b"{}"})
        hub.fail("*/resolve/*/config.json", status=429, times=2, retry_after=5)
        ...

`connected` points the client of this process at the stand-in (HF_ENDPOINT is read at import, too
late for a test) and replaces the client's retry sleeps; `run_python` starts a fresh interpreter
with HF_ENDPOINT set. Where the client takes an endpoint (`HfApi(endpoint=hub.url)`,
`snapshot_download(endpoint=hub.url)`), neither is needed.
"""

from __future__ import annotations

from tests.hub_standin.client import ClientState, connected, run_python
from tests.hub_standin.hub import HubStandIn
from tests.hub_standin.repository import Account, Commit, etag

__all__ = ["Account", "ClientState", "Commit", "HubStandIn", "connected", "etag", "run_python"]
