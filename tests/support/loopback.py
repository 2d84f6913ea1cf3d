"""HTTP on loopback, in threads of the test's own process."""

from __future__ import annotations

import contextlib
import ssl
import threading
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path


@contextlib.contextmanager
def serving(
    handler: type[BaseHTTPRequestHandler], certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Give the URL, without a slash at its end; by https, if a certificate and its key are given."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        scheme, host = ("https", "localhost") if certificate else ("http", "127.0.0.1")
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"{scheme}://{host}:{httpd.server_address[1]}"
        finally:
            httpd.shutdown()
            thread.join()
