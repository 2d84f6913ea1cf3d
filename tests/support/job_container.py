"""Run a CI job's script in a container to its end, and give all that it printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from docker.errors import ContainerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import DockerClient

END = "-- the script has ended --"
SECONDS = 20.0


def run_script(client: DockerClient, image: str, shell: Sequence[str], script: str, **options: Any) -> str:
    """Run it; `shell` takes the script as its last argument.

    Docker 20.10 may tell of a container's end before it has the last that the container printed. So the script's end is
    printed too, and waited for.

    Raises:
        ContainerError: the script ended with another status than 0.
    """
    outer = ["sh", "-c", f'"$@"; status=$?; echo "{END}"; exit $status', "sh", *shell, script]
    container = client.containers.run(image, outer, detach=True, network_mode="none", **options)
    try:
        status = container.wait()["StatusCode"]
        until = time.monotonic() + SECONDS
        while END not in (said := container.logs().decode()) and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        container.remove(force=True)
    assert END in said
    said = said.partition(f"{END}\n")[0]
    if status:
        raise ContainerError(container, status, script, image, said)
    return said
