"""A loopback service with OSV's interface that knows what it is told: what pip-audit asks when it is asked `--online`."""

from __future__ import annotations

import contextlib
import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from loopback import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@contextlib.contextmanager
def osv_server(known: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Serve records by name and version; give the URL to ask."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            records = known.get((asked["package"]["name"], asked["version"]), ())
            body = json.dumps({"vulns": list(records)} if records else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield f"{url}/v1/query"
