"""A watch over a connection: requests has a limit for silence, and none for a server that says a little now and then."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from bertir.web import Patience


class Watch:
    """Shuts a connection down over which too little comes."""

    def __init__(self, patience: Patience) -> None:
        self.tripped = ""
        self._patience = patience
        self._socket: socket.socket | None = None
        self._came = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="bertir-watch", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def hold(self, connected: socket.socket) -> None:
        """Watch this connection from now on."""
        self._socket = connected
        if self._thread.ident is None:
            self._thread.start()

    def came(self, count: int) -> None:
        self._came += count

    def _look(self) -> None:
        patience = self._patience
        while not self._over.wait(patience.window):
            came, self._came = self._came, 0
            if came < patience.slowest * patience.window and self._socket is not None:
                self.tripped = f"the server sent {came} bytes in {patience.window:g} s, less than {patience.slowest:g} a second"
                # Not SSLSocket's own: it would take the TLS away under whoever reads. A read ends as at an end.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
                return
