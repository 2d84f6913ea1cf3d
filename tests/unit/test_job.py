"""The job image: what a CI job runs bertir in, over the step image, and nothing of the steps'."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packages import SITE, make_deb, make_wheel, member, small_intent

from bertir.apt import ResolvedPackage
from bertir.assemble import Materials, assemble_layers
from bertir.deb import STATUS
from bertir.digest import Digest
from bertir.errors import ConfigurationError, DigestMismatchError, ImageError, LockError, StaleLockError
from bertir.image import describe_image
from bertir.intent import File, Folder, load_intent
from bertir.job import Job, JobMaterials, assemble_job_layers, load_job
from bertir.job_intent import MARKER, STAMP, JobIntent, Link, load_job_intent, parse_job_intent
from bertir.job_lock import load_host_pins
from bertir.job_sbom import job_sbom
from bertir.lock import PRECOMPILE, ImageLock, load_image_lock
from bertir.requirements import Requirement, dump_requirements
from bertir.resolve_job import _refuse_changed, applicable, installed
from bertir.sbom import image_link, serialised
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bertir.image import Image
    from bertir.intent import ImageIntent
    from bertir.lock import LayerPin
    from bertir.store import Blob

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker" / "job.toml").read_text(encoding="utf-8")
LIB = "usr/lib/x86_64-linux-gnu"
VENV_SITE = "opt/bertir/lib/python3.11/site-packages"
HOST_LOCK = Digest("c" * 64)


# job.toml


def test_the_job_image_of_the_project_is_read() -> None:
    job, step = load_job_intent(ROOT / "docker"), load_intent(ROOT / "docker")
    assert {"git", "make"} <= set(job.packages)
    over = job.over(step)
    assert (over.platform, over.source_date_epoch) == (step.platform, step.source_date_epoch)
    assert over.python.site not in (step.python.site, *step.python.source_roots)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('workdir = "/"', 'workdri = "/"', "`workdir` is missing"),
        ('workdir = "/"', 'workdir = "/"\nentrypoint = "x"', "unknown `entrypoint`"),
        ("restore = [", "restores = [", r"\[debian\]: `restore` is missing"),
        ("[python]\n", '[python]\nversion = "3.12"\n', r"\[python\]: unknown `version`"),
        ('user = "0:0"', 'user = "root"', "`user` must be a string of the form"),
        ('"usr/bin/tar",', '"/usr/bin/tar",', "`restore` must be a list"),
        ('path = "usr/lib/ssl/cert.pem"', 'path = "../cert.pem"', "`path` must be"),
        ("[debian]\n", "[debian\n", "is not TOML"),
    ],
)
def test_what_is_wrong_in_job_toml_is_named(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationError, match=message):
        parse_job_intent(TEXT.replace(old, new))


def test_a_missing_job_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't read .*job\.toml: No such file"):
        load_job_intent(tmp_path)


# the locks


def load(root: Path) -> Job:
    step = load_intent(root / "docker")
    return load_job(root, step, load_image_lock(root / "docker", step))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_the_step_image_is_the_job_images_first_layers_and_lacks_its_packages() -> None:
    step, job = load_image_lock(ROOT / "docker"), load(ROOT)
    assert job.image.layers[: len(step.layers)] == step.layers
    assert [layer.name for layer in job.image.layers[len(step.layers) :]] == ["tools", "host"]
    assert job.image.id == job.lock.image_id != step.image_id
    packages = {package.name for package in job.lock.debian}
    assert {"git", "make", "coreutils"} <= packages
    assert packages.isdisjoint(package.name for package in step.debian)
    assert packages.isdisjoint(job.intent.without)


def test_the_jobs_wheels_are_pins_of_the_hosts_lock_and_all_that_hold_for_the_image() -> None:
    step, host = load_intent(ROOT / "docker"), load_host_pins(ROOT)
    known = {(pin.name, pin.version): pin.digests for pin in host.pins}
    job = load(ROOT)
    for pin in job.lock.wheels:
        assert pin.digest in known[pin.name, pin.version]
    held = applicable(host, step, load_image_lock(ROOT / "docker"))
    assert {pin.name for pin in job.lock.wheels} == {pin.name for pin in held}
    assert {"pywin32"} == {pin.name for pin in host.pins} - {pin.name for pin in held}


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("docker/job.toml", 'HOME = "/home/job"', 'HOME = "/root"', r"job\.lock is stale: .*job\.toml$"),
        ("docker/job.toml", '"make", ', '"make", "xz-utils",', r"job-debian\.lock is stale: \[debian\]"),
        ("docker/job.toml", '"perl", ', "", r"job-debian\.lock is stale: \[debian\]"),
        (
            "docker/job-debian.lock",
            '"version": "4.3-',
            '"version": "4.4-',
            r"job\.lock is stale: .*job-debian",
        ),
    ],
)
def test_a_stale_lock_is_refused_says_what_changed_and_the_step_images_is_not_stale(
    checkout: Path, file: str, old: str, new: str, message: str
) -> None:
    edit(checkout / file, old, new)
    with pytest.raises(StaleLockError, match=message) as caught:
        load(checkout)
    assert caught.value.advice == "Run: invoke lock --only job"
    load_image_lock(checkout / "docker")


def test_a_comment_in_job_toml_makes_no_lock_stale(checkout: Path) -> None:
    edit(checkout / "docker" / "job.toml", "[environment]", "# a comment\n[environment]")
    load(checkout)


def test_another_pin_of_the_host_makes_the_jobs_wheels_stale(checkout: Path) -> None:
    host = load_host_pins(checkout)
    changed = replace(host, pins=(replace(host.pins[0], version="99"), *host.pins[1:]))
    (checkout / "requirements" / "build.lock").write_text(dump_requirements(changed), encoding="utf-8")
    with pytest.raises(StaleLockError, match=r"job-requirements\.lock is stale: .*build\.lock changed"):
        load(checkout)


def test_another_step_image_makes_the_job_image_stale(checkout: Path) -> None:
    step = load_intent(checkout / "docker")
    lock = load_image_lock(checkout / "docker", step)
    with pytest.raises(StaleLockError, match=r"job\.lock is stale: .*image\.lock$"):
        load_job(checkout, step, replace(lock, image_id=lock.manifest))
    with pytest.raises(StaleLockError, match=r"job-debian\.lock is stale: .*the step image's packages"):
        load_job(checkout, step, replace(lock, debian=lock.debian[1:]))
    with pytest.raises(LockError, match="first layers are not those of the step image"):
        load_job(checkout, step, replace(lock, layers=lock.layers[::-1]))


def test_layers_that_make_another_id_than_the_locked_one_are_refused(checkout: Path) -> None:
    path = checkout / "docker" / "job.lock"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["layers"][-1]["digest"] = "sha256:" + "a" * 64
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ImageError, match="another image than the locked one") as caught:
        load(checkout)
    assert "invoke lock --only job" in caught.value.advice
    assert "docker/job.lock" in caught.value.advice


@pytest.mark.parametrize("name", ["job.toml", "job.lock", "job-debian.lock", "job-requirements.lock"])
def test_builds_and_the_step_image_know_nothing_of_the_job_image(checkout: Path, name: str) -> None:
    before = load_image_lock(checkout / "docker")
    (checkout / "docker" / name).unlink()
    assert load_image_lock(checkout / "docker") == before
    with pytest.raises((LockError, ConfigurationError), match=f"can't read .*{name}"):
        load(checkout)


# what is resolved


def test_apt_takes_the_step_images_packages_and_what_is_left_out_for_installed(tmp_path: Path) -> None:
    below = [make_deb(tmp_path, [], control="Depends: other\n")]
    text = installed(below, small_job(without=("perl",)))
    first, second = text.strip().split("\n\n")
    assert first.splitlines() == [
        "Package: small",
        "Status: install ok installed",
        "Version: 1:1.0-1",
        "Architecture: amd64",
        "Depends: other",
        "Description: small",
    ]
    assert second.splitlines()[:3] == [
        "Package: perl",
        "Status: install ok installed",
        "Version: 999:0",
    ]


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("", True),
        ("sys_platform == 'win32'", False),
        ("python_full_version < '3.13'", True),
        ("python_full_version >= '3.12'", False),
        ("platform_python_implementation != 'PyPy'", True),
        ("platform_release == ''", True),  # no machine's
    ],
)
def test_markers_are_those_of_the_image_whatever_runs_this(marker: str, holds: bool) -> None:
    pin = Requirement(name="small", version="1.0", marker=marker, digests=(HOST_LOCK,))
    host = replace(load_host_pins(ROOT), pins=(pin,))
    step = load_intent(ROOT / "docker")
    found = applicable(host, step, load_image_lock(ROOT / "docker"))
    assert found == ([replace(pin, marker="")] if holds else [])


def test_a_job_that_needs_another_version_of_the_step_images_is_refused(tmp_path: Path) -> None:
    package, path = make_deb(tmp_path, [])
    found = ResolvedPackage(package=package, path=path)
    _refuse_changed([found], [replace(package, name="another")])
    with pytest.raises(LockError, match=r"other versions of the step image's: small$") as caught:
        _refuse_changed([found], [replace(package, version="0.9")])
    assert "invoke lock --only image" in caught.value.advice


# the layers


def small_job(**changed: tuple[str, ...]) -> JobIntent:
    job = JobIntent(
        name="small-job",
        user="0:0",
        workdir="/",
        command=("/bin/sh",),
        labels={},
        environment={"HOME": "/home/job"},
        packages=("tool",),
        without=(),
        restore=(f"{LIB}/liba.so.*", "usr/lib/python3.11/*"),  # the second is there already
        exclude=("usr/share/*",),
        keep=("usr/share/doc/*/copyright",),
        wheels_exclude=(f"{VENV_SITE}/weight",),
        files=(File(path="etc/gitconfig", text="[safe]\n"),),
        folders=(Folder(path="home/job", mode=0o1777),),
        links=(Link(path="etc/bundle", target="/opt/bundle"),),
    )
    return replace(job, **changed)  # type: ignore[arg-type]


T = TypeVar("T")


@dataclass
class Parts:
    """A step image and what a job image has over it, of bytes alone; counts what was asked for."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    step: ImageIntent = field(default_factory=lambda: small_intent(exclude=[f"{LIB}/*"]))
    job: JobIntent = field(default_factory=small_job)
    pyc: str = f"{VENV_SITE}/__pycache__/own.cpython-311.pyc"

    def below(self, store: Store) -> ImageLock:
        deb = make_deb(
            self.folder,
            [
                member("./usr/lib/python3.11/os.py", b"x = 1"),
                member(f"./{LIB}/liba.so.1", b"a"),
                member(f"./{LIB}/libb.so.1", b"b"),
            ],
        )
        materials = Materials(
            packages=lambda: [deb],
            wheels=lambda: [make_wheel(self.folder, {"small.py": b"y = 1"})],
            precompile=lambda image, sources: self.compiled(
                image, sources, f"{SITE}/__pycache__/small.cpython-311.pyc"
            ),
        )
        layers = assemble_layers(store, self.step, materials)
        image = describe_image(self.step, layers)
        self.step_packages = [deb]
        return ImageLock(
            inputs={},
            platform="linux/amd64",
            debian=(deb[0],),
            wheels=(),
            layers=layers,
            image_id=image.id,
            manifest=image.manifest_digest,
        )

    @contextmanager
    def compiled(self, image: Image, sources: Blob, name: str) -> Iterator[Path]:
        assert [layer.name for layer in image.layers] == ["debian"], "the interpreter is the step image's"
        assert sources.size
        path = self.folder / "pyc.tar"
        with tarfile.open(path, "w") as tar:
            info, content = member(name, b"code")
            tar.addfile(info, io.BytesIO(content))
        yield path

    def assemble(self, store: Store, expected: tuple[LayerPin, ...] = ()) -> tuple[LayerPin, ...]:
        lock = self.below(store)
        self.tool = tool = make_deb(
            self.folder,
            [
                member("./bin/tool", b"#!/bin/sh", mode=0o755),
                member("./usr/share/man/tool.1", b"text"),
                member("./usr/share/doc/tool/copyright", b"free"),
                member("./home/job", kind=tarfile.DIRTYPE, mode=0o700),
            ],
            name="tool",
            control="Depends: small (>= 1:1.0), perl\n",
        )
        self.wheel = wheel = make_wheel(
            self.folder,
            {"own.py": b"z = 1", "weight": b"weight"},
            name="own",
            entry_points="[console_scripts]\nown = own:main\n",
        )

        def asked(what: str, value: T) -> T:
            self.asked.append(what)
            return value

        materials = JobMaterials(
            packages=lambda: asked("packages", [tool]),
            step_packages=lambda: asked("step packages", self.step_packages),
            wheels=lambda: asked("wheels", [wheel]),
            precompile=lambda image, sources: asked("precompile", self.compiled(image, sources, self.pyc)),
            host_lock=HOST_LOCK,
        )
        return assemble_job_layers(store, self.step, lock, self.job, materials, expected=expected)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def contents(store: Store, pin: LayerPin) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(store.path(pin.digest)) as tar:
        return {info.name: info for info in tar}


def text(store: Store, pin: LayerPin, name: str) -> str:
    with tarfile.open(store.path(pin.digest)) as tar:
        file = tar.extractfile(name)
        assert file
        return file.read().decode()


def test_the_layers_below_are_the_step_images_as_they_are(parts: Parts, store: Store) -> None:
    lock = parts.below(store)
    layers = parts.assemble(store)
    assert layers[:3] == lock.layers
    assert [pin.name for pin in layers] == ["debian", "wheels", "pyc", "tools", "host"]


def test_the_tools_are_the_jobs_packages_and_what_it_wants_back_of_the_step_images(
    parts: Parts, store: Store
) -> None:
    tools = parts.assemble(store)[3]
    found = contents(store, tools)
    files = {name for name, info in found.items() if not info.isdir()}
    assert files == {
        "etc/bundle",
        "etc/gitconfig",
        f"{LIB}/liba.so.1",
        "usr/bin/tool",
        "usr/share/doc/tool/copyright",
        f"{STATUS}/tool",
    }
    assert found["home/job"].mode == 0o1777
    assert (found["etc/bundle"].issym(), found["etc/bundle"].linkname) == (True, "/opt/bundle")
    assert {(info.uid, info.gid, info.mtime) for info in found.values()} == {
        (0, 0, parts.step.source_date_epoch)
    }


def test_the_host_layer_is_a_virtualenv_and_says_what_it_is_of(parts: Parts, store: Store) -> None:
    lock = parts.below(store)
    host = parts.assemble(store)[4]
    found = contents(store, host)
    info = f"{VENV_SITE}/own-1.0.dist-info"
    assert {name for name in found if name.startswith("opt/bertir/") and not found[name].isdir()} == {
        STAMP,
        "opt/bertir/bin/own",
        "opt/bertir/bin/python",
        "opt/bertir/bin/python3",
        "opt/bertir/pyvenv.cfg",
        parts.pyc,
        f"{VENV_SITE}/own.py",
        *(f"{info}/{name}" for name in ("INSTALLER", "METADATA", "RECORD", "WHEEL", "entry_points.txt")),
    }
    assert {name for name in found if not name.startswith("opt") and not found[name].isdir()} == {MARKER}
    assert json.loads(text(store, host, MARKER)) == {"image": str(lock.image_id)}
    assert text(store, host, STAMP) == f"{HOST_LOCK}\n"
    assert found["opt/bertir/bin/python"].linkname == "/usr/bin/python3.11"
    assert text(store, host, "opt/bertir/bin/own").startswith("#!/opt/bertir/bin/python\n")
    assert text(store, host, f"{info}/RECORD").startswith("../../../bin/own,sha256=")
    assert "include-system-site-packages = false\n" in text(store, host, "opt/bertir/pyvenv.cfg")


@pytest.mark.parametrize(
    "name", [f"{SITE}/__pycache__/os.cpython-311.pyc", "usr/lib/python3.11/__pycache__/os.pyc"]
)
def test_a_compiled_module_outside_of_the_virtualenv_is_refused(
    parts: Parts, store: Store, name: str
) -> None:
    parts.pyc = name
    with pytest.raises(ImageError, match="holds something else"):
        parts.assemble(store)


def test_made_elsewhere_it_is_the_same_and_made_again_it_is_found_in_the_store(
    parts: Parts, store: Store, tmp_path: Path
) -> None:
    layers = parts.assemble(store)
    (tmp_path / "other").mkdir()
    other = Parts(tmp_path / "other")
    assert other.assemble(Store(tmp_path / "other" / "store")) == layers
    assert sorted(parts.asked) == ["packages", "precompile", "step packages", "wheels"]
    parts.asked.clear()
    assert parts.assemble(store, expected=layers) == layers
    assert parts.asked == []


def test_a_layer_with_another_digest_is_refused_and_not_kept(
    parts: Parts, store: Store, tmp_path: Path
) -> None:
    layers = parts.assemble(store)
    for number in (3, 4):
        kept = Store(tmp_path / f"store-{number}")
        expected = [*layers]
        expected[number] = replace(layers[number], digest=Digest("d" * 64))
        with pytest.raises(DigestMismatchError, match=f"the layer {layers[number].name}"):
            parts.assemble(kept, expected=tuple(expected))
        assert not kept.has(layers[number].blob)


def test_another_tool_leaves_the_virtualenv_as_it_is_and_the_other_way_round(
    parts: Parts, store: Store
) -> None:
    before = parts.assemble(store)
    parts.job = small_job(exclude=())
    changed = parts.assemble(store)
    assert [one == other for one, other in zip(before, changed, strict=True)] == [
        True,
        True,
        True,
        False,
        True,
    ]
    parts.job = small_job(wheels_exclude=())
    changed = parts.assemble(store)
    assert [one == other for one, other in zip(before, changed, strict=True)] == [
        True,
        True,
        True,
        True,
        False,
    ]


# the bill of materials


def document_of(parts: Parts, store: Store) -> tuple[ImageLock, dict[str, Any]]:
    below, layers = parts.below(store), parts.assemble(store)
    image = describe_image(parts.job.over(parts.step), layers)
    lock = ImageLock(
        inputs={PRECOMPILE: HOST_LOCK},
        platform="linux/amd64",
        debian=(parts.tool[0],),
        wheels=(parts.wheel[0],),
        layers=layers,
        image_id=image.id,
        manifest=image.manifest_digest,
    )
    job = Job(intent=parts.job, lock=lock, image=image)
    value = job_sbom(
        parts.step,
        below,
        job,
        ["own>=1"],
        packages=[parts.tool],
        below=parts.step_packages,
        wheels=[parts.wheel],
    )
    return below, value


def test_the_document_lists_what_the_job_image_has_over_the_step_image_and_links_to_that_ones(
    parts: Parts, store: Store
) -> None:
    step, value = document_of(parts, store)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(serialised(value).decode()) is None
    listed = {component["bom-ref"]: component for component in value["components"]}
    tool, own = "pkg:deb/debian/tool@1:1.0-1?arch=amd64&distro=bookworm", "pkg:pypi/own@1.0"
    assert set(listed) == {tool, own, "file/etc/gitconfig", "layer/host", "step-image"}
    assert listed["step-image"]["externalReferences"] == [
        {"type": "bom", "url": image_link(step.image_id, step.manifest)}
    ]
    edges = {edge["ref"]: edge["dependsOn"] for edge in value["dependencies"]}
    assert set(edges["image"]) == set(listed)
    assert edges[tool] == ["step-image"], "its package below"
    facts = [(item["name"], item["value"]) for item in listed[tool]["properties"]]
    assert ("bertir:dependency:unmet", "perl") in facts
    assert value["metadata"]["component"]["name"] == "bertir-job"


def test_the_document_of_an_equal_image_is_the_same(parts: Parts, store: Store, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, one = document_of(parts, store)
    _, other = document_of(Parts(tmp_path / "other"), Store(tmp_path / "other" / "store"))
    assert serialised(one) == serialised(other)
