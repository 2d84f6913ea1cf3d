"""What the reader of a page has at hand: a clone as `make all` leaves it, and what the page says beside it.

A page names in its comment (`<!-- commands: … -->`, documented.py) what of `AT_HAND` it is given, or `clone` for nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from checkout import Checkout, copy_checkout
from file_server import serve_files
from git_server import make_authority
from google_zip import google_models, models_toml, small_files, write_zip
from tiny_bert import HIDDEN, config, files, make_model, weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

CLONE, COMPANY = "clone", "company"
DEFAULT = "dist/all-minilm-l6-v2/reshapable-fp16"
# Google's own can't be fetched where these tests run; commands that name them get models of the same names, made by tests.
_NAMES = ("bert-base-cased", "bert-base-uncased")
_PROGRAMS = (
    ("invoke", "invoke.main", "program.run"),
    ("bertir", "bertir.program", "main"),
    ("pip", "pip._internal.cli.main", "main"),  # or a page's `pip` would be that of the machine
)
_PATHS = "of_the_tests.pth"
_LOCKS = ("requirements/build.lock", "requirements/dev.lock")


@contextlib.contextmanager
def clone(folder: Path, store: Path, things: Iterable[str]) -> Iterator[Checkout]:
    """Make a clone with its virtualenv, in a home of its own, and give what a page asks for, until the `with` block ends."""
    home, index = folder / "home", folder / "index"
    for empty in (home, index):
        empty.mkdir()
    checkout = copy_checkout(folder / "bertir")
    virtualenv = _virtualenv(checkout.root)
    models = [_without((checkout.root / "models.toml").read_text(encoding="utf-8"), _NAMES)]
    for name in _NAMES:
        (index / name).mkdir()
        # Of the same weights, each in a file of its own: what follows from them is built once.
        contents = files(configuration=config(_name_or_path=name))
        made_model = make_model(index / name, contents, name=name)
        models.append(made_model.models_toml.read_text(encoding="utf-8"))
    (folder / "models.toml").write_text("\n".join(models), encoding="utf-8")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BERTIR_", "PYTHON", "VIRTUAL_ENV"))
    } | {
        "HOME": str(home),
        "PATH": f"{virtualenv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "BERTIR_STORE": str(store),
        "BERTIR_MODELS": str(folder / "models.toml"),
        "PIP_FIND_LINKS": " ".join(str(index / name) for name in _NAMES),
        "COLUMNS": "200",  # nothing is wrapped
        "MAKEFLAGS": "",
    }
    made = Checkout(root=checkout.root, environment=environment)
    with contextlib.ExitStack() as stack:
        for thing in things:
            if thing == COMPANY:
                made.environment.update(stack.enter_context(_company(made.root, index)))
            elif thing != CLONE:
                AT_HAND[thing](made)
        yield made


@contextlib.contextmanager
def _company(root: Path, index: Path) -> Iterator[dict[str, str]]:
    """`company.pem`, and an index of the models' wheels with a certificate that only it vouches for."""
    (index / "keys").mkdir()
    authority, certificate = make_authority(index / "keys")
    shutil.copy2(authority, root / "company.pem")
    with serve_files(certificate) as server:
        server.lenient = True
        for wheel in index.glob("*/*.whl"):
            project = wheel.name.partition("-")[0].replace("_", "-")
            server.files[f"/{wheel.name}"] = wheel
            server.files[f"/simple/{project}/"] = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
        yield {
            "PIP_INDEX_URL": f"{server.url}/simple",
            "PIP_FIND_LINKS": "",
            "PIP_NO_CACHE_DIR": "1",
            "NO_PROXY": "localhost",
        }
        # Else the page shows nothing of certificates: what it builds was in the store.
        assert any(asked.path.endswith(".whl") for asked in server.asked)


def _without(models: str, names: Iterable[str]) -> str:
    """A models.toml without some of its models: each is a table, and those below it."""
    kept, keeps = [], True
    for line in models.splitlines():
        if line.startswith("["):
            keeps = line.strip("[]").partition(".")[0] not in names
        if keeps:
            kept.append(line)
    return "".join(f"{line}\n" for line in kept)


def _virtualenv(root: Path) -> Path:
    """A virtualenv as `make dev` makes it, of the packages of the tests, so that nothing is installed anew."""
    folder = root / ".venv"
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (folder / "bin").mkdir()
    python = Path(sys.executable).resolve()
    (folder / "pyvenv.cfg").write_text(f"home = {python.parent}\n", encoding="utf-8")
    for name in ("python", "python3"):
        (folder / "bin" / name).symlink_to(python)
    paths = (root / "src", sysconfig.get_path("purelib"))
    (packages / _PATHS).write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    for name, module, function in _PROGRAMS:
        script = folder / "bin" / name
        imported = function.partition(".")[0]
        # Guarded, as what a build starts by itself (multiprocessing's spawn) imports it again.
        lines = (
            f"#!{folder / 'bin' / 'python'}",
            f"from {module} import {imported}",
            f'if __name__ == "__main__":\n    {function}()\n',
        )
        script.write_text("\n".join(lines), encoding="utf-8")
        script.chmod(0o755)
    activate = f"export PATH='{folder / 'bin'}':\"$PATH\"\n"
    (folder / "bin" / "activate").write_text(activate, encoding="utf-8")
    for kind, number in (("build", 1), ("dev", 2)):
        (folder / f"{kind}.stamp").write_text(_fingerprint(root, _LOCKS[:number]) + "\n", encoding="ascii")
    return folder


def is_kept(root: Path) -> bool:
    """Whether the virtualenv is still this one: bootstrap.sh makes it anew if it doesn't take it for its own."""
    return any((root / ".venv").rglob(_PATHS))


def _fingerprint(root: Path, locks: Iterable[str]) -> str:
    """As bootstrap.sh takes it."""
    facts = [sys.version, os.path.realpath(sys.executable), os.path.realpath(root)]
    facts += [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in ("pyproject.toml", *locks)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _published(made: Checkout) -> None:
    """The default model, built and published."""
    done = made.invoke("build-ir")
    assert done.status == 0, done.stderr
    assert (made.root / DEFAULT / "model.xml").is_file()


def _my_bert(made: Checkout) -> None:
    """`my-bert`: a fine-tuned checkpoint of one's own, that tells three labels apart."""
    random = np.random.default_rng(3)
    tensors = {f"bert.{name}": tensor for name, tensor in weights().items()} | {
        "classifier.weight": random.normal(0.0, 0.5, (3, HIDDEN)).astype(np.float32),
        "classifier.bias": random.normal(0.0, 0.5, 3).astype(np.float32),
    }
    folder = made.root / "my-bert"
    folder.mkdir()
    for name, data in files(tensors, config(architectures=["BertForSequenceClassification"])).items():
        (folder / name).write_bytes(data)


def _received(made: Checkout) -> None:
    """`received`: a published folder and the public key of who signed it, as somebody sent them."""
    folder = made.root / "received"
    shutil.copytree(made.root / DEFAULT, folder)
    for arguments in (("keygen", "--key", "release.key"), ("sign", str(folder), "--key", "release.key")):
        done = made.invoke(*arguments)
        assert done.status == 0, done.stderr
    (made.root / "release.key").unlink()


def _mirror(made: Checkout) -> None:
    """`mirror`: a folder with a zip of Google's, with small files in it in place of the model's own."""
    name = _NAMES[1]
    contents = small_files(name)
    address = google_models()[name]["zip"]["url"]
    (made.root / "mirror").mkdir()
    write_zip(made.root / "mirror" / address.rpartition("/")[2], contents)
    models = Path(made.environment["BERTIR_MODELS"])
    kept = _without(models.read_text(encoding="utf-8"), [name])
    models.write_text(kept + models_toml("https://publisher.example", {name: contents}), encoding="utf-8")


def _port(made: Checkout) -> None:
    """A port of the loopback address that nobody listens on, as PORT: others may be running these tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        made.environment["PORT"] = str(free.getsockname()[1])


AT_HAND: Mapping[str, Callable[[Checkout], None]] = {
    "published": _published,
    "received": _received,
    "my-bert": _my_bert,
    "mirror": _mirror,
    "port": _port,
}
