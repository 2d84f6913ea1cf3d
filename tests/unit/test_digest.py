from __future__ import annotations

import hashlib
import io
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.digest import CHUNK_BYTES, Digest, HashingWriter, canonical_json, tree_digest

if TYPE_CHECKING:
    import random
    from pathlib import Path

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
# No surrogates: they are no text (a test of their own below).
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        order.shuffle(keys)
        return {key: shuffled(value[key], order) for key in keys}
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    return value


def strictly_equal(one: Any, other: Any) -> bool:
    """As JSON has it: 1, 1.0 and true differ, which Python's == doesn't say."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(HEX)
def test_a_digest_reads_back_as_itself(digits: str) -> None:
    digest = Digest(digits)
    assert Digest.from_str(str(digest)) == digest
    assert Digest.from_str(digits) == digest
    assert str(digest) == f"sha256:{digits}"
    assert digest.short == digits[:12]


@given(st.text(max_size=80).filter(lambda text: len(text.removeprefix("sha256:")) != 64))
def test_text_of_another_length_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        Digest.from_str(text)


@pytest.mark.parametrize(
    "text",
    [
        "A" * 64,
        "g" * 64,
        "0" * 63 + "\n",
        "0" * 64 + "\n",
        "sha256:sha256:" + "0" * 64,
        "sha512:" + "0" * 64,
        " " + "0" * 64,
        "\N{ARABIC-INDIC DIGIT ZERO}" * 64,
    ],
)
def test_what_only_looks_like_a_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        Digest.from_str(text)


@given(st.binary())
def test_a_digest_of_bytes_is_their_sha256(data: bytes) -> None:
    assert Digest.of_bytes(data).hex == hashlib.sha256(data).hexdigest()


def test_a_file_longer_than_a_chunk_is_hashed_to_its_end(tmp_path: Path) -> None:
    data = b"\0" * CHUNK_BYTES + b"end"
    (tmp_path / "file").write_bytes(data)
    assert Digest.of_file(tmp_path / "file") == Digest.of_bytes(data)
    assert Digest.of_file(tmp_path / "file") != Digest.of_bytes(data[:CHUNK_BYTES])


@given(JSON, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_count(value: Any, order: random.Random) -> None:
    assert canonical_json(shuffled(value, order)) == canonical_json(value)


@given(JSON)
def test_canonical_json_says_the_value_and_nothing_else(value: Any) -> None:
    data = canonical_json(value)
    assert strictly_equal(json.loads(data), value)
    assert canonical_json(json.loads(data)) == data


@given(JSON, JSON)
def test_values_share_bytes_only_if_they_are_equal(one: Any, other: Any) -> None:
    assert (canonical_json(one) == canonical_json(other)) == strictly_equal(one, other)


def test_canonical_json_has_one_known_form() -> None:
    # Pinned: another form would change every key of every store.
    assert (
        canonical_json({"b": [1, 1.5, None, True], "a": "é\n"})
        == '{"a":"é\\n","b":[1,1.5,null,true]}'.encode()
    )
    assert canonical_json((1, 2)) == b"[1,2]"


@given(JSON, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_numbers_that_json_lacks_are_refused_at_any_depth(value: Any, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": [value, {"b": number}]})


@given(st.one_of(st.integers(), st.none(), st.booleans(), st.floats(allow_nan=False)), JSON)
def test_a_key_that_is_no_string_is_refused_at_any_depth(key: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="must be a string"):
        canonical_json([{"a": ({key: value},)}])


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, Digest("0" * 64)])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        canonical_json("\ud800")


def test_a_tree_digest_depends_on_names_and_contents_but_not_on_order() -> None:
    one, other = Digest.of_bytes(b"1"), Digest.of_bytes(b"2")
    known = tree_digest({"a": one, "b": other})
    assert tree_digest({"b": other, "a": one}) == known
    different = [{"a": one}, {"a": other, "b": one}, {"a": one, "c": other}, {}]
    assert known not in {tree_digest(files) for files in different}


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_hashing_writer_counts_and_hashes_what_it_passes_on(chunks: list[bytes]) -> None:
    file = io.BytesIO()
    writer = HashingWriter(file)
    for chunk in chunks:
        assert writer.write(memoryview(chunk)) == len(chunk)
    whole = b"".join(chunks)
    assert (file.getvalue(), writer.size, writer.digest) == (whole, len(whole), Digest.of_bytes(whole))
