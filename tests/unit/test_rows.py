"""Which rows parity is measured on, and in which batch each is run."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.parity import RUN_BATCHES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

STEPS = Path(__file__).parents[2] / "docker" / "steps"
SENTENCES = (STEPS / "sentences.txt").read_text(encoding="utf-8").splitlines()
PROGRAMS = (
    "rows",
    "verify",
    "reference",
    "arguments",
    "model",
    "operations",
    "published",
    "rounding",
    "said",
    "session",
)


@pytest.fixture(scope="module")
def programs() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(STEPS))
    try:
        yield {name: importlib.import_module(name) for name in PROGRAMS}
    finally:
        sys.path.remove(str(STEPS))
        for name in PROGRAMS:
            sys.modules.pop(name, None)


def test_the_rows_fill_the_batches_that_are_run_each_once(programs: dict[str, ModuleType]) -> None:
    rows = programs["rows"].texts(SENTENCES)
    first, *others = RUN_BATCHES
    dealt = programs["verify"].deal(len(rows), first, others)
    assert [len(dealt[batch]) for batch in RUN_BATCHES] == list(RUN_BATCHES)
    assert sorted(itertools.chain(*dealt.values())) == list(range(len(rows)))


def test_each_batch_begins_with_a_pair_and_the_pairs_hold_every_sentence(
    programs: dict[str, ModuleType],
) -> None:
    rows = programs["rows"].texts(SENTENCES)
    dealt = programs["verify"].deal(len(rows), RUN_BATCHES[0], list(RUN_BATCHES[1:]))
    assert all(rows[some[0]][1] is not None for some in dealt.values())
    pairs = [row for row in rows if row[1] is not None]
    assert {sentence for pair in pairs for sentence in pair} == set(SENTENCES)


@given(sentences=st.lists(st.text(min_size=1, max_size=3), min_size=2, max_size=40, unique=True))
def test_every_sentence_is_in_one_pair_or_alone_and_so_are_the_first_two(
    programs: dict[str, ModuleType], sentences: list[str]
) -> None:
    rows = programs["rows"].texts(sentences)
    paired = [sentence for row in rows if row[1] is not None for sentence in row]
    assert paired == sentences[: len(sentences) // 2 * 2]
    alone = [first for first, second in rows if second is None]
    assert alone == [*sentences[:2], *(sentences[-1:] if len(sentences) % 2 else [])]


@given(
    rows=st.integers(min_value=1, max_value=60),
    batch=st.integers(min_value=1, max_value=70),
    others=st.sets(st.integers(min_value=1, max_value=60), max_size=6),
)
def test_whatever_the_batches_are_every_row_is_run_in_one_and_each_is_as_large_as_it_says(
    programs: dict[str, ModuleType], rows: int, batch: int, others: set[int]
) -> None:
    run = sorted(other for other in others if other != batch and other <= rows)
    dealt = programs["verify"].deal(rows, batch, run)
    assert set(itertools.chain(*dealt.values())) == set(range(rows))
    assert all(len(dealt[other]) == other for other in run)
    assert len(dealt[batch]) >= min(batch, rows)


LENGTHS = st.lists(st.integers(min_value=1, max_value=24), min_size=1, max_size=40)


@given(lengths=LENGTHS)
def test_rows_that_run_together_are_at_most_twice_as_long_as_one_another_and_no_more_than_sixteen(
    programs: dict[str, ModuleType], lengths: list[int]
) -> None:
    groups = programs["reference"].alike(lengths)
    assert sorted(itertools.chain(*groups)) == list(range(len(lengths)))
    for group in groups:
        some = [lengths[place] for place in group]
        assert 0 < len(some) <= 16
        assert max(some) <= 2 * min(some)


@given(lengths=LENGTHS, by_token=st.booleans())
def test_what_a_row_gives_without_its_padding_stands_in_its_place(
    programs: dict[str, ModuleType], lengths: list[int], *, by_token: bool
) -> None:
    length = max(lengths) + 3
    mask = (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)
    ids = (1 + np.arange(len(lengths)))[:, None] * mask + 1000 * (1 - mask)
    seen: list[int] = []

    def run(columns: list[np.ndarray]) -> np.ndarray:
        given_ids, given_mask, _ = columns
        assert (
            given_mask.sum(axis=1) * 2 > given_mask.shape[1] - 1
        ).all()  # as little padding as there can be
        seen.append(len(given_ids))
        # The number of its sentence, which is said of padding too; or of the first token alone.
        said = np.repeat(given_ids[:, :1, None], given_ids.shape[1], axis=1).astype(np.float32)
        return said if by_token else said[:, 0]

    found = programs["reference"].run_without_padding(run, [ids, mask, np.zeros_like(ids)])
    numbers = (1 + np.arange(len(lengths), dtype=np.float32))[:, None]
    expected = (numbers * mask)[:, :, None] if by_token else numbers
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    assert sum(seen) == len(lengths)


# the twin, by which it is seen whether a model reads words

CLS, SEP, UNK, FIRST_WORD = 1, 2, 3, 5


class Tokenizer:
    """As much of google-research/bert's as rows need; ids of words begin with `FIRST_WORD`."""

    def __init__(self) -> None:
        special = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
        self.vocab = {word: place for place, word in enumerate(special)}

    def tokenize(self, text: str) -> list[str]:
        return [word if word in self.vocab else "[UNK]" for word in text.split()]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return [self.vocab[token] for token in tokens]


def encoded(rows: list[tuple[list[int], list[int] | None]], length: int) -> np.ndarray:
    """Rows of words, as `encode` lays them out: [3, rows, tokens]."""
    columns = np.zeros((3, len(rows), length), np.int32)
    for place, (first, second) in enumerate(rows):
        head, tail = [CLS, *first, SEP], [*second, SEP] if second is not None else []
        tokens = len(head) + len(tail)
        columns[0, place, :tokens] = head + tail
        columns[1, place, :tokens] = 1
        columns[2, place, len(head) : tokens] = 1
    return columns


WORDS = st.lists(st.integers(min_value=UNK, max_value=FIRST_WORD + 2), max_size=5)


@given(rows=st.lists(st.tuples(WORDS, st.none() | WORDS), min_size=1, max_size=6))
def test_a_twin_differs_in_its_words_alone_and_there_is_one_if_there_can_be(
    programs: dict[str, ModuleType], rows: list[tuple[list[int], list[int] | None]]
) -> None:
    columns = encoded(rows, 14)
    before = columns.copy()
    found = programs["rows"].with_other_words(Tokenizer(), columns)
    assert np.array_equal(columns, before)
    spoken = [words for words in ([*first, *(second or [])] for first, second in rows) if words]
    if found is None:  # every row says the same word, as often as it may
        said = {tuple(np.resize(other, len(own))) == tuple(own) for own in spoken for other in spoken}
        assert said <= {True}
        return
    row, twin = found
    assert twin.shape == (3, 1, 14)
    assert np.array_equal(twin[1:, 0], columns[1:, row])
    own, other = columns[0, row], twin[0, 0]
    fixed = (columns[1, row] == 0) | (own == CLS) | (own == SEP)
    assert np.array_equal(own[fixed], other[fixed])
    assert set(other[~fixed]) <= set(itertools.chain(*spoken))
    assert (own != other).any()


@pytest.mark.parametrize("words", [0, 1, 2, 10, 1000])
def test_a_word_that_the_vocabulary_lacks_is_replaced_by_one_that_it_has(
    programs: dict[str, ModuleType], words: int
) -> None:
    tokenizer = Tokenizer()
    tokenizer.vocab |= {f"[unused{number}]": 5 + number for number in range(3)}
    first = len(tokenizer.vocab)
    tokenizer.vocab |= {f"w{number}": first + number for number in range(words)}
    sentences = [("w0 is not in it", "nor is w0"), ("w0", None), ("one more that is not", None)]
    ids, mask, segments = programs["rows"].encode_all(tokenizer, sentences, 16)
    known = np.arange(first, first + words)
    placed = (mask == 1) & ~np.isin(ids, [CLS, SEP])
    assert placed.sum() == 14
    assert np.isin(ids[placed], known if words else [UNK]).all()
    assert mask.sum(axis=1).tolist() == [11, 3, 7]
    assert segments.sum(axis=1).tolist() == [4, 0, 0]
    if words > 1:
        assert programs["rows"].with_other_words(tokenizer, np.stack([ids, mask, segments])) is not None
    if words == 1000:  # those of its end, too
        many = programs["rows"].encode_all(tokenizer, [("x " * 300, None)], 302)[0]
        assert max(np.diff(sorted({*many.ravel()} & {*known.tolist()}))) == 4
        assert many.max() > first + words - 5


def test_the_twin_is_of_the_shortest_row_that_can_have_other_words(programs: dict[str, ModuleType]) -> None:
    a, b, c, d = range(FIRST_WORD, FIRST_WORD + 4)
    with_words = programs["rows"].with_other_words
    row, twin = with_words(
        Tokenizer(), encoded([([a, b], [c, c]), ([], None), ([a, b, c], None), ([b], [])], 8)
    )
    assert row == 3
    assert twin[0, 0].tolist() == [CLS, a, SEP, SEP, 0, 0, 0, 0]
    # Where the shortest says what every other begins with, the next one; words are said again where they are too few.
    row, twin = with_words(Tokenizer(), encoded([([a], None), ([a, b], None), ([a, b, c], None)], 8))
    assert row == 1
    assert twin[0, 0].tolist() == [CLS, a, a, SEP, 0, 0, 0, 0]
    # Of several rows it is the one that differs most, also if it comes late.
    row, twin = with_words(Tokenizer(), encoded([([a, b], None), ([a, c, c], None), ([c, d, d], None)], 8))
    assert row == 0
    assert twin[0, 0].tolist() == [CLS, c, d, SEP, 0, 0, 0, 0]
    assert with_words(Tokenizer(), encoded([([a], None), ([a, a], None)], 8)) is None


# what verify.py says of TensorFlow's numbers


def reference(programs: dict[str, ModuleType], folder: Path, **arrays: object) -> Any:
    given = {"sentences": np.array(2), "paired": np.array([True, False])} | arrays
    np.savez(
        folder / "reference.npz",
        **{name.replace("__", "/"): np.array(array) for name, array in given.items()},  # type: ignore[arg-type]
    )
    return programs["verify"].Reference(folder / "reference.npz")


NUMBERS, INFINITE = np.ones((2, 3), np.float32), np.array([[1, np.inf, 0], [np.nan, 1, 1]], np.float32)


@pytest.mark.parametrize(
    ("arrays", "finite", "rounded"),
    [
        ({"4__outputs": NUMBERS}, True, None),
        ({"4__outputs": NUMBERS, "8__outputs": INFINITE}, False, None),
        ({"4__outputs": NUMBERS, "4__exact": NUMBERS}, True, True),
        ({"4__outputs": INFINITE, "4__exact": NUMBERS}, True, False),
        (
            {"4__outputs": NUMBERS, "4__exact": NUMBERS, "8__outputs": INFINITE, "8__exact": NUMBERS},
            True,
            False,
        ),
        ({"4__outputs": INFINITE, "4__exact": INFINITE}, False, False),
    ],
)
def test_it_is_told_whether_numbers_are_finite_by_the_weights_as_they_are_and_by_rounded_ones(
    programs: dict[str, ModuleType],
    tmp_path: Path,
    arrays: dict[str, np.ndarray],
    *,
    finite: bool,
    rounded: bool | None,
) -> None:
    found = reference(programs, tmp_path, **arrays)
    assert (found.finite(), found.rounded_finite()) == (finite, rounded)


def test_discrimination_is_how_far_a_row_is_from_its_twin_and_none_without_one(
    programs: dict[str, ModuleType], tmp_path: Path
) -> None:
    columns = encoded([([5], None), ([5, 6], None), ([6, 5], None)], 4)
    outputs = np.array([[0, 0], [1, 2], [1.25, 1]], np.float32)
    told = programs["verify"].discrimination
    found = reference(programs, tmp_path, **{"4__columns": columns, "4__outputs": outputs}, twin=1)
    assert told(found.rows(4), "pooled") == 1.0
    alone = reference(programs, tmp_path, **{"4__columns": columns[:, :2], "4__outputs": outputs[:2]})
    assert told(alone.rows(4), "pooled") is None
    # Of the last layer, what is said of padding doesn't count: the twin has as much of it as its row.
    layers = np.array([[[0]] * 4, [[1]] * 4, [[1], [3], [1], [9]]], np.float32)
    columns[1, 1:, 3] = 0
    found = reference(programs, tmp_path, **{"4__columns": columns, "4__outputs": layers}, twin=1)
    assert told(found.rows(4), "sequence") == 2.0
