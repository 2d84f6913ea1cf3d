"""The job image: what a CI job needs to run bertir in it is there, and what steps see is as in the step image."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import docker
import pytest
from checkout import ROOT, copy_checkout
from elsewhere import assembled_elsewhere
from job_container import run_script

from bertir.image import describe_image
from bertir.job import Job, assemble_job, load_job, load_job_image
from bertir.job_intent import MARKER
from bertir.lock import LayerPin
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

ROOT_USER, STEP_USER = "0:0", "65532:65532"


@pytest.fixture(scope="module")
def job(builder: Builder) -> Job:
    return load_job(ROOT, builder.intent, builder.lock)


@pytest.fixture(scope="module")
def run(builder: Builder, engine_environment: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Run a job's script in the image, with no network; give its output."""
    image = load_job_image(builder)
    client = docker.from_env(environment=engine_environment)

    def script(text: str, *, user: str = "", folder: Path | None = None, volumes: Sequence[str] = ()) -> str:
        return run_script(
            client,
            image,
            ["bash", "-ec"],
            text,
            user=user or None,
            volumes=[*volumes, *([f"{folder}:/builds/bertir"] if folder else [])],
            working_dir="/builds/bertir" if folder else "/",
        )

    yield script
    client.close()


def test_the_loaded_image_has_the_locked_id_and_suits_a_job(
    job: Job, run: Callable[..., str], engine_environment: dict[str, str]
) -> None:
    client = docker.from_env(environment=engine_environment)
    found = client.images.get(job.image.reference)
    client.close()
    assert found.id in (str(job.lock.image_id), str(job.lock.manifest))
    # What GitHub starts a job's container by, and what its and GitLab's scripts are run by and use.
    programs = [
        "tail",
        "sh",
        "bash",
        "env",
        "mkdir",
        "rm",
        "cat",
        "git",
        "make",
        "tar",
        "gzip",
        "id",
        "sed",
        "grep",
        "invoke",
        "pip",
        "python",
    ]
    assert len(run(f"command -v {' '.join(programs)}").split()) == len(programs)
    assert run("id -u").strip() == job.intent.user.partition(":")[0]


def test_a_job_is_run_in_a_container_that_does_nothing_as_github_does_it(
    builder: Builder, engine_environment: dict[str, str]
) -> None:
    client = docker.from_env(environment=engine_environment)
    container = client.containers.create(
        load_job_image(builder), ["-f", "/dev/null"], entrypoint="tail", network_mode="none"
    )
    try:
        container.start()
        script = "cat /etc/*release | grep ^ID; invoke --version; command -v python3"
        status, said = container.exec_run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script])
    finally:
        container.remove(force=True)
        client.close()
    assert isinstance(said, bytes)
    assert (status, said.decode().split("\n")[0]) == (0, "ID=debian")
    assert said.decode().split()[-1] == "/opt/bertir/bin/python3"


@pytest.mark.parametrize("user", [ROOT_USER, STEP_USER, "1001:121"])
def test_whoever_runs_it_has_git_make_and_what_bertir_imports(run: Callable[..., str], user: str) -> None:
    said = run(
        "git --version; make --version | head -1\n"
        'python -c "import invoke, docker, git, cryptography, debian, installer, sys; print(sys.prefix)"\n'
        "git init -q $HOME/one; cd $HOME/one; echo text > file; git add file\n"
        "git -c user.name=a -c user.email=b commit -qm first; git clone -q $HOME/one $HOME/two; cat $HOME/two/file\n"
        "tar -cz file | tar -tz",
        user=user,
    ).splitlines()
    assert [line.rpartition(" ")[0] for line in said[:2]] == ["git version", "GNU Make"]
    assert said[2:] == ["/opt/bertir", "text", "file"]


@pytest.mark.parametrize("user", [ROOT_USER, STEP_USER])
def test_the_steps_interpreter_sees_the_step_images_modules_and_none_of_bertirs(
    builder: Builder, run: Callable[..., str], user: str
) -> None:
    step = f"env -i {' '.join(f'{name}={value}' for name, value in builder.intent.environment.items())}"
    said = run(
        f"{step} python3 - <<'E'\n"
        "import importlib.metadata, importlib.util, json, sys\n"
        "found = len(list(importlib.metadata.distributions()))\n"
        "names = ('invoke', 'docker', 'git', 'pip', 'bertir')\n"
        "import tensorflow\n"  # first: who looks for pip changes what setuptools has it import
        "seen = [name for name in names if importlib.util.find_spec(name)]\n"
        "print(json.dumps([sys.executable, tensorflow.__version__, seen, found]))\n"
        "E",
        user=user,
    )
    # What went to standard error may come after it.
    [line] = [line for line in said.splitlines() if line.startswith("[")]
    assert json.loads(line) == ["/usr/bin/python3", "2.15.1", [], len(builder.lock.wheels)]


def test_nothing_of_the_step_image_is_hidden_or_changed(builder: Builder, job: Job) -> None:
    assemble_job(builder)
    below: dict[str, tuple[bytes, int | None]] = {}
    above: dict[str, tuple[bytes, int | None]] = {}
    for pin in job.image.layers:
        into = above if pin.name in ("tools", "host") else below
        with tarfile.open(builder.store.path(pin.digest)) as tar:
            for member in tar:
                into[member.name] = (member.type, member.mode if member.isdir() else None)
    both = below.keys() & above.keys()
    assert {name for name in both if above[name][0] != tarfile.DIRTYPE} == set()
    assert {name for name in both if above[name] != below[name]} == set(), "a folder's mode is as it was"
    assert not {name for name in above if name.rpartition("/")[2].startswith(".wh.")}
    assert len(above) > 2000


LOOK = """
import os, subprocess
looked, missed = 0, []
for top in ("/usr/bin", "/usr/lib", "/opt/bertir"):
    for folder, _, files in os.walk(top):
        for path in (f"{folder}/{name}" for name in files):
            if os.path.islink(path):
                continue
            with open(path, "rb") as file:
                if file.read(4) != b"\\x7fELF":
                    continue
            looked += 1
            if subprocess.run(["/lib64/ld-linux-x86-64.so.2", "--list", path], capture_output=True).returncode:
                missed.append(path)
print(looked > 100, missed)
"""


def test_every_program_and_library_finds_what_it_links_to_and_no_distribution_lacks_a_file(
    job: Job, run: Callable[..., str]
) -> None:
    assert run(f"python - <<'E'\n{LOOK}\nE").strip() == "True []"
    said = run(
        "python - <<'E'\n"
        "import importlib.metadata\n"
        "found = list(importlib.metadata.distributions())\n"
        "print(len(found), [str(file) for one in found for file in one.files if not one.locate_file(file).exists()])\n"
        "E"
    )
    assert said.strip() == f"{len(job.lock.wheels)} []"


def test_the_marker_names_the_step_image_below(builder: Builder, run: Callable[..., str]) -> None:
    assert json.loads(run(f"cat /{MARKER}")) == {"image": str(builder.lock.image_id)}


def test_git_and_python_trust_the_same_authorities_and_a_mounted_bundle_replaces_them(
    run: Callable[..., str], tmp_path: Path
) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    look = (
        f"readlink -f {bundle}; readlink -f /usr/lib/ssl/cert.pem\n"
        'python -c "import certifi, ssl; print(certifi.where(), len(ssl.create_default_context().get_ca_certs()))"'
    )
    git, openssl, python = run(look).splitlines()
    where, number = python.split()
    assert git == openssl == where == "/opt/bertir/lib/python3.11/site-packages/certifi/cacert.pem"
    assert int(number) > 100
    end = "-----END CERTIFICATE-----\n"
    first = Path(certifi.where()).read_text(encoding="utf-8").partition(end)[0] + end
    (tmp_path / "company.pem").write_text(first, encoding="utf-8")
    mounted = run(look, volumes=[f"{tmp_path / 'company.pem'}:{bundle}:ro"])
    assert mounted.splitlines() == [git, git, f"{git} 1"]


def test_make_in_a_checkout_of_somebody_elses_needs_no_network_and_installs_nothing(
    run: Callable[..., str], tmp_path: Path
) -> None:
    checkout = copy_checkout(tmp_path / "bertir").root
    tmp_path.chmod(0o755)
    run("git init -q . && chown -R 1001:121 .", folder=checkout)  # a runner's, which isn't the job's user
    said = run(
        "git rev-parse --show-toplevel; make build; readlink .venv; .venv/bin/python -m invoke lock --check\n"
        "BERTIR_STORE=/tmp/store invoke models --format json | head -1; make clean; test ! -e .venv",
        folder=checkout,
    ).splitlines()
    assert said[0] == "/builds/bertir"
    assert "/opt/bertir" in said
    assert "locks of source, image, host, job, bench: fresh" in said


def test_assembled_elsewhere_it_has_the_locked_bits(builder: Builder, job: Job, tmp_path: Path) -> None:
    """In a store with the step image's layers and what was fetched: other umask, zone, seed, folder, user's home."""
    builder.assemble_image()
    builder.fetcher.debian_packages([*job.lock.debian, *builder.lock.debian])
    builder.fetcher.wheels(job.lock.wheels, builder.intent.python)
    digests = [layer.digest for layer in builder.lock.layers]
    digests += [package.digest for package in (*job.lock.debian, *builder.lock.debian)]
    digests += [pin.digest for pin in job.lock.wheels]
    target = tmp_path / "job.tar"
    folder = tmp_path / "some where else"
    folder.mkdir()
    done = assembled_elsewhere(builder, digests, folder, target, "--job")
    said = json.loads(done.stdout)
    assert (said["image"], said["reference"]) == (str(job.lock.image_id), job.image.reference)
    with tarfile.open(target) as tar:
        names = tar.getnames()
    assert f"blobs/sha256/{job.lock.image_id.hex}" in names
    for layer in job.lock.layers[-2:]:
        assert Store(folder / "store").has(layer.blob)
        assert f"blobs/sha256/{layer.digest.hex}" in names


def test_one_changed_byte_in_a_layer_makes_another_image(builder: Builder, job: Job) -> None:
    over = job.intent.over(builder.intent)
    changed = (*job.lock.layers[:-1], LayerPin(name="host", digest=job.lock.manifest, size=1))
    assert describe_image(over, job.lock.layers).id == job.lock.image_id
    assert describe_image(over, changed).id != job.lock.image_id
