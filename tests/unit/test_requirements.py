from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.digest import Digest
from bertir.errors import LockError
from bertir.requirements import Requirement, Requirements, dump_requirements, parse_pins, parse_requirements

ROOT = Path(__file__).parents[2]
HASH = "sha256:" + "a" * 64
HEADER = f"# Written by `invoke lock`; don't edit. Made from: {HASH}\n"

digests = st.binary(max_size=8).map(Digest.of_bytes)
requirements = st.builds(
    Requirement,
    name=st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True),
    version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}(rc1|\.post2|\+cpu)?", fullmatch=True),
    marker=st.sampled_from(
        ["", "sys_platform == 'win32'", "python_full_version < '3.12' and os_name == 'nt'"]
    ),
    digests=st.lists(digests, min_size=1, max_size=4).map(tuple),
)
files = st.builds(
    Requirements,
    made_from=digests,
    pins=st.lists(requirements, unique_by=lambda pin: (pin.name, pin.marker), max_size=5).map(tuple),
)


@given(files)
def test_what_was_dumped_is_parsed_back(value: Requirements) -> None:
    assert parse_requirements(dump_requirements(value), name="x.lock") == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("numpy==1.26.4", "no sha256"),
        ("numpy>=1.26.4 --hash=" + HASH, "not a pin"),
        ("numpy==1.26.4 --hash=md5:" + "a" * 32, "not a pin"),
        ("numpy==1.26.4 --hash=sha256:abc", "not a pin"),
        ("--index-url https://mirror.example/simple", "not a pin"),
        ("numpy @ https://mirror.example/numpy.whl --hash=" + HASH, "not a pin"),
        (f"a==1 --hash={HASH}\na==2 --hash={HASH}", "something twice"),
    ],
)
def test_anything_but_a_pin_with_a_sha256_is_refused(line: str, message: str) -> None:
    with pytest.raises(LockError, match=message):
        parse_pins(line, name="x.lock")


def test_a_lock_must_say_what_it_was_made_from() -> None:
    with pytest.raises(LockError, match=r"x\.lock doesn't begin with"):
        parse_requirements(f"a==1 --hash={HASH}\n", name="x.lock")


def test_what_uv_writes_is_read() -> None:
    text = (
        f"colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash={HASH} \\\n    --hash=sha256:{'b' * 64}\n"
    )
    (pin,) = parse_pins(text, name="x.lock")
    assert (pin.name, pin.marker, len(pin.digests)) == ("colorama", "sys_platform == 'win32'", 2)


@pytest.mark.parametrize("folder", ["docker", "requirements"])
def test_no_lock_names_a_host(folder: str) -> None:
    locks = sorted((ROOT / folder).glob("*.lock"))
    assert locks
    for path in locks:
        assert "://" not in path.read_text(encoding="utf-8"), path
