"""The rows that parity is measured on: sentences, cut into tokens as run_classifier.py does it.

Imported by the programs beside it, in the container.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from said import fail, one_line

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]")
NO_WORD = re.compile(r"\[.*\]")  # [UNK], [unused7]
MOST_WORDS = 256  # of a vocabulary, that take the place of those which it hasn't
SHORTEST = 3  # [CLS] [SEP] [SEP]: a pair of which nothing is left


def read_sentences(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path.name} cannot be read: {error}")
    sentences = [line for line in lines if line.strip()]
    if len(sentences) < 2:  # noqa: PLR2004 - the outputs of two are told apart
        fail(f"{path.name} has {len(sentences)} sentences, at least 2 are needed.")
    return sentences


def load_tokenizer(source: Path, vocab: Path, *, lower_case: bool) -> Any:  # noqa: ANN401
    """The FullTokenizer of google-research/bert's tokenization.py, which lies in the folder `source`."""
    import tensorflow.compat.v1 as tf

    sys.path.insert(0, str(source))
    import tokenization

    try:
        tokenizer = tokenization.FullTokenizer(str(vocab), do_lower_case=lower_case)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        fail(f"{vocab.name} cannot be read: {one_line(error)}")
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.vocab]
    if missing:
        fail(f"{vocab.name} lacks {', '.join(missing)}.", "Give the vocabulary of this model.")
    return tokenizer


def truncate_pair(first: list[str], second: list[str], length: int) -> None:
    """Shortens the longer one, a token at a time, as run_classifier.py's _truncate_seq_pair does."""
    while len(first) + len(second) > length:
        (first if len(first) > len(second) else second).pop()


def encode(tokenizer: Any, first: str, second: str | None, length: int) -> list[Ids]:  # noqa: ANN401
    """One row, as run_classifier.py's convert_single_example makes it; padding has id, mask and segment 0."""
    import numpy as np

    head, tail = tokenizer.tokenize(first), tokenizer.tokenize(second) if second else []
    truncate_pair(head, tail, length - (SHORTEST if second else SHORTEST - 1))
    tokens = ["[CLS]", *head, "[SEP]"]
    segments = [0] * len(tokens)
    if second:
        tokens += [*tail, "[SEP]"]
        segments += [1] * (len(tail) + 1)
    row = np.zeros((3, length), np.int32)
    row[0, : len(tokens)] = tokenizer.convert_tokens_to_ids(tokens)
    row[1, : len(tokens)] = 1
    row[2, : len(tokens)] = segments
    return list(row)


def texts(sentences: list[str]) -> list[tuple[str, str | None]]:
    """Neighbours as pairs, and two sentences alone: what a row holds. Every sentence is in one.

    verify.py deals the rows out to batches of 1, 2 and 4. A pair is the first of each, as only pairs are run by the
    exact weights too, if there are others.
    """
    pairs: list[tuple[str, str | None]] = list(zip(sentences[::2], sentences[1::2], strict=False))
    unpaired = sentences[2 * len(pairs) :]
    alone: list[tuple[str, str | None]] = [(sentence, None) for sentence in [*sentences[:2], *unpaired]]
    rows: list[tuple[str, str | None]] = []
    while alone:
        first_of_a_batch = (len(rows) + 1).bit_count() == 1
        rows.append((pairs if first_of_a_batch and pairs else alone).pop(0))
    return rows + pairs


def encode_all(tokenizer: Any, rows: list[tuple[str, str | None]], length: int) -> Ids:  # noqa: ANN401
    """The inputs of all rows: [3, rows, sequence].

    A vocabulary of another language, or of none, may lack the sentences' words. Rows of nothing but [UNK] would say nothing
    of all its others: so each is replaced by a word that it has, from its begin to its end.
    """
    import numpy as np

    encoded = [encode(tokenizer, first, second, length) for first, second in rows]
    columns: Ids = np.stack([np.stack(column) for column in zip(*encoded, strict=True)])
    words = [number for word, number in tokenizer.vocab.items() if not NO_WORD.fullmatch(word)]
    unknown = columns[0] == tokenizer.vocab["[UNK]"]
    if words:
        spread = words[:: -(-len(words) // MOST_WORDS)]
        columns[0, unknown] = np.resize(spread, np.count_nonzero(unknown))
    return columns


def with_other_words(tokenizer: Any, columns: Ids) -> tuple[int, Ids] | None:  # noqa: ANN401
    """A row of `columns`, [3, rows, tokens], and its twin, [3, 1, tokens]: the same, but for its words.

    A model that gives the same for both reads no words: there is nothing else that it could tell them apart by. Of the rows
    that hold words it is the shortest, as the twin is run too, and its words are those of the row that it differs most
    from, repeated if they are too few. None if no two rows have different ones, as the vocabulary has none.
    """
    import numpy as np

    ids, mask, _ = columns
    special = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
    places = (mask == 1) & ~np.isin(ids, special)
    for row in np.argsort(mask.sum(axis=1), kind="stable"):
        own = ids[row, places[row]]
        others = [
            np.resize(ids[other, places[other]], len(own)) for other in range(len(ids)) if places[other].any()
        ]
        words = max(others, key=lambda words: np.count_nonzero(words != own), default=own)
        if (words != own).any():
            twin: Ids = columns[:, [row]].copy()
            twin[0, 0, places[row]] = words
            return int(row), twin
    return None
