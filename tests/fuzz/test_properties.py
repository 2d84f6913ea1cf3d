"""Hypothesis on what reads text and archives of strangers: it is read, or one error of the documented kind."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from packages import small_intent
from raw_zip import DEFLATED, DESCRIPTOR, RawEntry, raw_zip, unicode_path, zip64_extra

from bertir.apt import parse_uris, transport_settings
from bertir.archive import Limits, take_files
from bertir.digest import Digest
from bertir.errors import (
    BertirError,
    ConfigurationError,
    FetchError,
    ImageError,
    LockError,
)
from bertir.intent import parse_intent
from bertir.lock import parse_debian_lock, parse_image_lock
from bertir.requirements import parse_pins, parse_requirements
from bertir.signature import SignatureError, _envelope
from bertir.store import Store
from bertir.task_data import split_mrpc
from bertir.tree import checked_path
from bertir.upstream import load_series
from bertir.wheel import opened_wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Count = Callable[[int], None]

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
examples = settings(max_examples=EXAMPLES, database=None, suppress_health_check=[*HealthCheck], deadline=None)
ODD = st.sampled_from(
    ["\0", "\n", "\r", "\x1b[2J", "..", "/", "--x", "\u202e", "é", "{", "[", '"', "'", "\\", " ", "="]
)
TEXT = st.lists(ODD | st.text(max_size=8), max_size=40).map("".join)


def refused(read: Callable[[], object], *kinds: type[BertirError]) -> None:
    said = ""
    try:
        read()
    except kinds as error:
        said = f"{error}\n{error.advice}"
    assert all(line.isprintable() for line in said.split("\n"))


def like(whole: str) -> st.SearchStrategy[str]:
    """A text that is right, with pieces of it replaced."""

    def spliced(edits: list[tuple[int, int, str]]) -> str:
        text = whole
        for place, length, new in edits:
            text = text[:place] + new + text[place + length :]
        return text

    edit = st.tuples(st.integers(0, len(whole)), st.integers(0, 40), ODD | TEXT)
    return st.lists(edit, max_size=4).map(spliced) | TEXT


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def series(text: str, folder: Path) -> object:
    (folder / "series").write_bytes(text.encode(errors="surrogatepass"))
    return load_series(folder)


URIS = (
    "'https://m/pool/main/b/base/base_12%2b1_amd64.deb' base_1%3a12+1_amd64.deb 70936 SHA256:"
    + "a" * 64
    + "\n"
) * 2
READERS: dict[str, tuple[str, Callable[[str, Path], object], tuple[type[BertirError], ...]]] = {
    "apt's list": (URIS, lambda text, _: parse_uris(text, "https://m"), (LockError,)),
    "apt's settings": ('Acquire::http::Proxy "x";\n', lambda text, _: transport_settings(text), ()),
    "image.toml": (text_of("docker/image.toml"), lambda text, _: parse_intent(text), (ConfigurationError,)),
    "debian.lock": (text_of("docker/debian.lock"), lambda text, _: parse_debian_lock(text), (LockError,)),
    "image.lock": (
        text_of("docker/image.lock"),
        lambda text, _: parse_image_lock(text, debian=(), wheels=()),
        (LockError,),
    ),
    "requirements.lock": (
        text_of("docker/requirements.lock"),
        lambda text, _: parse_requirements(text, name="x"),
        (LockError,),
    ),
    "pins as uv writes them": (
        text_of("docker/requirements.lock"),
        lambda text, _: parse_pins(text, name="x"),
        (LockError,),
    ),
    "series": (text_of("patches/series"), series, (ConfigurationError,)),
    "an envelope": (
        '{"payload": "eA==", "payloadType": "x", "signatures": [{"keyid": "", "sig": "eA=="}]}',
        lambda text, _: _envelope(text.encode(errors="surrogatepass"), numbered=True),
        (SignatureError,),
    ),
    "MRPC": (
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t1\t2\tone\ttwo\r\n",
        lambda text, _: split_mrpc(text.encode(errors="surrogatepass"), b"", b""),
        (FetchError,),
    ),
    "a path of an archive": (
        "usr/lib/x",
        lambda text, _: inside(checked_path(text, what="x")),
        (ImageError,),
    ),
}


def inside(path: str) -> None:
    assert not path.startswith("/")
    assert ".." not in path.split("/")


@pytest.mark.parametrize("name", READERS)
def test_a_text_of_strangers_is_read_or_one_error(tmp_path: Path, name: str, count: Count) -> None:
    whole, read, kinds = READERS[name]

    @seed(1)
    @examples
    @given(like(whole))
    def run(text: str) -> None:
        count(1)
        refused(lambda: read(text, tmp_path), *kinds)

    run()


# zips

FILES = {"vocab.txt": b"[PAD]\n" * 40, "bert_config.json": b"{}\n"}
WANTED = {name: Digest.of_bytes(data) for name, data in FILES.items()}
NAMES = st.sampled_from(
    [b"vocab.txt", b"bert/vocab.txt", b"bert/VOCAB.TXT", b"../x", b"/x", b"C:/x", b"a/../b", b"bert", b"bert/", b"./", b"",
     b".", b"x\0", b"\xff", "é".encode(), b"a\\b", b"nul", b"x" * 3000]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 2, 30, 255, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
FIELDS = st.dictionaries(st.sampled_from(["crc", "packed", "unpacked"]), NUMBERS, max_size=2)
EXTRAS = st.sampled_from([b"", b"\1", b"\1\0\xff\xff", unicode_path(b"x", b"../x")]) | st.builds(
    zip64_extra, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)
)


@st.composite
def entries(draw: st.DrawFn) -> RawEntry:
    data = draw(st.sampled_from([*FILES.values(), b"", bytes(2_000_000), b"words " * 50]))
    entry = RawEntry(name=draw(NAMES), data=data, method=draw(st.sampled_from([0, 8, DEFLATED, 14, 99])))
    local, central = draw(FIELDS), draw(FIELDS)
    odd: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        odd = {"central": {**central, "extra": draw(EXTRAS)}}
    if draw(st.integers(0, 3)) == 0:
        odd |= {"local": {**local, "extra": draw(EXTRAS), "name": draw(NAMES)}}
    if draw(st.integers(0, 5)) == 0:
        odd |= {
            "flags": draw(st.sampled_from([1, DESCRIPTOR, 0x800, 0x2000])),
            "descriptor": draw(st.binary(max_size=24)),
        }
    if draw(st.integers(0, 7)) == 0:
        odd |= {"central": {"offset": draw(NUMBERS)}}
    if draw(st.integers(0, 7)) == 0:
        odd |= {"mode": draw(st.sampled_from([0o120777, 0o020666, 0o010666, 0o040755, 0o100644]))}
    if draw(st.integers(0, 7)) == 0:
        odd |= {"packed": draw(st.binary(max_size=40))}
    return replace(entry, **odd)


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    good = [
        RawEntry(name=f"bert/{name}".encode(), data=data, method=DEFLATED) for name, data in FILES.items()
    ]
    made = [*good, *draw(st.lists(entries(), max_size=3))]
    odd: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        odd["comment"] = draw(st.sampled_from([b"x", b"PK\5\6" + bytes(18), raw_zip(good)]))
    if draw(st.integers(0, 5)) == 0:
        odd |= {"before": draw(st.sampled_from([b"#!", raw_zip(good)])), "shifted": draw(st.booleans())}
    if draw(st.integers(0, 5)) == 0:
        odd["zip64"] = draw(
            st.dictionaries(st.sampled_from(["entries", "here", "size", "offset", "at"]), NUMBERS)
        )
    if draw(st.integers(0, 5)) == 0:
        small = st.sampled_from([0, 1, 2, 3, 255, 0xFFFF])
        odd["end"] = draw(
            st.dictionaries(st.sampled_from(["entries", "here", "size", "offset", "disk"]), small)
        )
    return raw_zip(draw(st.permutations(made)), **odd)


def test_a_hostile_zip_gives_the_pinned_files_or_one_error(tmp_path: Path, count: Count) -> None:
    store, path = Store(tmp_path / "store"), tmp_path / "a.zip"
    given_ = [0, 0]
    said: list[str] = []

    @seed(1)
    @settings(examples, max_examples=4 * EXAMPLES)
    @given(zips())
    def run(data: bytes) -> None:
        count(1)
        path.write_bytes(data)
        try:
            taken = take_files(store, path, WANTED, what="a.zip", limits=Limits(bytes=10_000_000))
        except FetchError as error:
            given_[0] += 1
            said.append(str(error))
        else:
            given_[1] += 1
            assert {
                name: store.checked(blob, what=name).read_bytes() for name, blob in taken.items()
            } == FILES
        kept = {item.read_bytes() for item in (store.root / "objects").rglob("*") if item.is_file()}
        assert kept <= set(FILES.values())

    run()
    assert min(given_) > EXAMPLES // 5  # both happen
    assert all(line.isprintable() for text in said for line in text.split("\n"))


def test_a_hostile_zip_in_place_of_a_wheel_is_one_error(tmp_path: Path, count: Count) -> None:
    from bertir.lock import WheelPin as Pin

    path, pin = tmp_path / "w.whl", Pin(name="small", version="1.0", digest=Digest.of_bytes(b""))
    python = small_intent().python
    texts = st.sampled_from(
        ["", "\0", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n",
         "Wheel-Version: 99\n", "small.py,sha256=AA,1\n", "small.py,shake_128=AA,1\n", "../../x,,\n", 'a,"\n', "[console_scripts]\nx",
         "[console_scripts]\n../x = a:b\n", "[a]\n[a]\n", "\ud800"]
    ) | TEXT  # fmt: skip

    @seed(1)
    @examples
    @given(st.lists(texts, min_size=5, max_size=5), st.lists(entries(), max_size=1))
    def run(written: list[str], more: list[RawEntry]) -> None:
        count(1)
        files = ["METADATA", "WHEEL", "RECORD", "entry_points.txt"]
        held = [
            RawEntry(name=f"small-1.0.dist-info/{name}".encode(), data=text.encode(errors="surrogatepass"))
            for name, text in zip(files, written, strict=False)
        ]
        held[0] = replace(held[0], data=b"Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        if len(written[4]) % 2:
            held[1] = replace(held[1], data=b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            names = [*(entry.name.decode() for entry in held), "small.py"]
            record = "".join(f"{name},sha256=AAAA,1\n" for name in names if not name.endswith("RECORD"))
            held[2] = replace(held[2], data=(record + "small-1.0.dist-info/RECORD,,\n").encode())
        path.write_bytes(raw_zip([*held, RawEntry(name=b"small.py", data=b"x"), *more]))

        def read() -> None:
            with opened_wheel(pin, path, python) as found:
                for entry in found:
                    inside(entry.path)
                    assert entry.path.startswith("usr/local/")

        refused(read, ImageError)

    run()
