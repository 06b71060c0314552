"""The app: one face, one attribute, one slider, several models. Run: python app.py

What it shows is in hublatent/demo/, which tells the way from an upload to an edited picture.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# Waiting threads give their core back after some microseconds. Where other programs want it too,
# on a laptop or a shared Space, their usual patience makes everything slow: beside one busy process
# on two cores the app opened after 54 s instead of 9.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from hublatent.errors import HublatentError

IN_USE = "Port {} is in use; choose another with --port."
CARDS = Path(__file__).resolve().parent / "model_cards"


@dataclass(frozen=True)
class Arguments:
    """Edit faces in several generative models, side by side, in the browser.

    Attributes:
        port: where the app listens; the first free one from 7860 unless given.
        share: also open a temporary public address; implies --public.
        models: further model folders or Hub ids, beside those in model_cards/.
        public: serve strangers: no local paths, small uploads and downloads. On a Space always so.
        prepare: find the sample faces in models without an encoder beforehand, store their latents
            beside the weights, and stop.
        mcp: also serve the endpoints as tools of the Model Context Protocol, at /gradio_api/mcp/.
    """

    port: Annotated[int | None, arg(metavar="PORT")] = None
    share: bool = False
    models: Annotated[tuple[str, ...], arg(metavar="MODEL...")] = ()
    public: bool = False
    prepare: bool = False
    mcp: bool = False


def main(arguments: Arguments) -> None:
    """Open the models, then serve."""
    # What is heavy comes now, so that --help answers at once.
    from hublatent.demo.faces import store_sample_latents
    from hublatent.demo.shelf import LOCAL, PUBLIC, ModelShelf, collect_models

    public = arguments.public or arguments.share or bool(os.environ.get("SPACE_ID"))
    if arguments.port is not None and not arguments.prepare:
        check_port(arguments.port)
    catalogue = collect_models(arguments.models, CARDS)
    print(f"loading {len(catalogue)} models ...", flush=True)
    shelf = ModelShelf(catalogue, limits=PUBLIC if public else LOCAL, cards=CARDS)
    for name, source in catalogue.items():
        if source in arguments.models:
            shelf.open(name)
    if arguments.prepare:
        for path in store_sample_latents(shelf, shelf.names, print):
            print(f"wrote {path}")
        return
    opening = threading.Thread(target=shelf.open_all, args=(shelf.names,))
    opening.start()
    from hublatent.demo.page import launch
    from hublatent.evaluation.report import read_summary

    folder = CARDS / "comparison"
    comparison = read_summary(folder)
    opening.join()
    try:
        launch(
            shelf, comparison, folder, server_port=arguments.port, share=arguments.share,
            mcp_server=arguments.mcp,
        )  # fmt: skip
    except ImportError as error:
        raise HublatentError(
            "--mcp needs the package mcp: pip install 'gradio[mcp]', or leave it out."
        ) from error
    except OSError as error:
        if "empty port" not in str(error):
            raise
        raise HublatentError(IN_USE.format(arguments.port or "7860 and those after it")) from error


def check_port(port: int) -> None:
    """Refuse a port that cannot be had, before the models are loaded; serving binds it later."""
    if not 0 < port < 1 << 16:
        raise HublatentError(f"--port {port}; expected 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port))
        except OSError as error:
            why = IN_USE if error.errno == errno.EADDRINUSE else "Port {} cannot be had: {}."
            raise HublatentError(why.format(port, error.strerror)) from error


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments, config=(FlagCreatePairsOff,)))
    except (HublatentError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
