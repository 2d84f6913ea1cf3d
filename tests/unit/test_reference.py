"""References to registries, by the grammar of the distribution."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.reference import Reference

HEX = "0123456789abcdef" * 4
LABELS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
HOSTS = st.one_of(
    st.builds(".".join, st.lists(LABELS, min_size=2, max_size=4)),
    st.builds("{}:{}".format, LABELS, st.integers(min_value=1, max_value=65535)),
    st.sampled_from(["localhost", "localhost:5000", "127.0.0.1", "[::1]:5000", "[2001:db8::1]"]),
)
PARTS = st.from_regex(r"[a-z0-9]{1,6}(([._]|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
REFERENCES = st.builds(
    Reference,
    host=HOSTS,
    repository=st.builds("/".join, st.lists(PARTS, min_size=1, max_size=4)),
    tag=st.one_of(st.just(""), TAGS),
    digest=st.one_of(st.none(), st.builds(Digest.of_bytes, st.binary(max_size=4))),
)


@given(REFERENCES)
def test_what_is_written_is_read_as_the_same(reference: Reference) -> None:
    assert Reference.from_str(str(reference)) == reference


def nearly(text: str) -> st.SearchStrategy[str]:
    changed = [f"{text}\n", f" {text}", f"{text}/", f"{text}:", f"{text}@", text.replace("/", "//", 1)]
    return st.sampled_from([*changed, f"https://{text}"])


@given(st.one_of(st.text(max_size=60), REFERENCES.map(str).flatmap(nearly)))
def test_whatever_is_written_is_a_reference_that_reads_the_same_or_one_error(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert str(Reference.from_str(text)) == text


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("localhost/a", "localhost", "a", "", None),
        ("localhost:5000/a/b:T", "localhost:5000", "a/b", "T", None),
        ("127.0.0.1:5000/a:1@sha256:" + HEX, "127.0.0.1:5000", "a", "1", Digest(HEX)),
        ("[::1]:5000/a", "[::1]:5000", "a", "", None),
        ("Example.org/a__b/c--d.e:v1.0_x-", "Example.org", "a__b/c--d.e", "v1.0_x-", None),
        ("host:1/a@sha256:" + HEX, "host:1", "a", "", Digest(HEX)),
    ],
)
def test_each_part_is_found(text: str, host: str, repository: str, tag: str, digest: Digest | None) -> None:
    expected = Reference(host=host, repository=repository, tag=tag, digest=digest)
    assert Reference.from_str(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a:1",
        "library/a",
        "library/a:1",
        "example.org",
        "example.org/",
        "example.org/A",
        "example.org/a..b",
        "example.org/a___b",
        "example.org/-a",
        "example.org/a:",
        "example.org/a:.x",
        f"example.org/a:{'x' * 129}",
        f"example.org/{'x' * 250}",
        "example.org/a@sha256:abc",
        f"example.org/a@sha512:{HEX}",
        f"example.org/a@sha256:{HEX.upper()}",
        "user:secret@example.org/a",
        "-x.org/a",
        "example.org:port/a",
        "example.org/../a",
        "example.org/a?x",
        "--plain-http",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Reference.from_str(text)


def test_a_name_without_a_host_is_told_so_and_sent_to_nobody() -> None:
    with pytest.raises(ConfigurationError, match="library is no host"):
        Reference.from_str("library/debian:12")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.0.1", True),
        ("[::1]:5000", True),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org:80", False),
        ("example.org:5000", False),
        ("[2001:db8::1]", False),
    ],
)
def test_only_this_machine_is_spoken_to_by_http(host: str, loopback: bool) -> None:
    assert Reference.from_str(f"{host}/a").is_loopback is loopback


def test_the_digest_decides_where_there_is_a_tag_too() -> None:
    reference = Reference.from_str(f"localhost/a:1@sha256:{HEX}")
    assert reference.wanted == f"sha256:{HEX}"
    assert str(reference.at(Digest(HEX))) == f"localhost/a@sha256:{HEX}"
