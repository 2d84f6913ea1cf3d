"""Serve a published classifier over HTTP: `python serve.py FOLDER`, and see docs/tutorial.md.

It speaks the Open Inference Protocol: POST /v2/models/NAME/infer, GET /v2/models/NAME, /v2/health/live and /ready. It
has no TLS and asks nobody who they are: let it listen on a loopback address or behind something that does.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Route

from classifier import Classifier, UnfitFolderError
from protocol import RefusedError, answer, metadata, parse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_BODY_BYTES = 1 << 20
MOST_CONNECTIONS = 64
SECONDS_TO_END = 10


class Service:
    """What answers, under the model's name."""

    def __init__(self, name: str, classifier: Classifier) -> None:
        self._name = name
        self._classifier = classifier

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/health/live", self.live),
                Route("/v2/health/ready", self.ready),
                Route(f"/v2/models/{self._name}", self.metadata),
                Route(f"/v2/models/{self._name}/ready", self.model_ready),
                Route(f"/v2/models/{self._name}/infer", self.infer, methods=["POST"]),
            ],
            exception_handlers={HTTPException: refused},
        )

    # It listens only once the model is loaded: whoever gets an answer may go on.

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        return JSONResponse({"ready": True})

    async def model_ready(self, _: Request) -> Response:
        return JSONResponse({"name": self._name, "ready": True})

    async def metadata(self, _: Request) -> Response:
        return JSONResponse(metadata(self._name, self._classifier.classes))

    async def infer(self, request: Request) -> Response:
        body = await limited(request)
        try:
            asked = parse(body)
        except RefusedError as error:
            raise HTTPException(400, str(error)) from error
        # In a thread, so that health is answered meanwhile.
        rows = await run_in_threadpool(self._classifier.probabilities, asked.inputs[0].data)
        return JSONResponse(answer(self._name, asked, rows))


async def limited(request: Request) -> bytes:
    """Give the body, as long as it isn't larger than any that would be answered."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY_BYTES:
                raise HTTPException(413, f"the body has more than {MOST_BODY_BYTES} bytes")
    except ClientDisconnect as error:
        raise HTTPException(400, "the body ended too early") from error  # nobody hears it; nothing is logged
    return body


async def refused(_: Request, error: Exception) -> Response:
    """Answer as the protocol has it. Starlette's own errors, such as 404 and 405, come here too."""
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for that alone
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{number} is no port")
    return number


def model_name(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a URL; use letters, digits, - _ .")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="that `invoke build-ir --head classifier` has published")
    parser.add_argument(
        "--name", type=model_name, default="classifier", help="of the model, in URLs (default: classifier)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=port, default=8000, help="0 is a free one, which the log tells (default: 8000)"
    )
    arguments = parser.parse_args()
    # Once it has answered what it was asked before, uvicorn hands SIGTERM on to this; an orchestrator wants status 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        classifier = Classifier(arguments.folder)
    except UnfitFolderError as error:
        sys.exit(f"error: {error}")
    uvicorn.run(
        Service(arguments.name, classifier).application(),
        host=arguments.host,
        port=arguments.port,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_END,
        server_header=False,
    )


if __name__ == "__main__":
    main()
