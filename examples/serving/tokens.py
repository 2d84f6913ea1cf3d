"""Sentences to token ids, as google-research/bert's run_classifier.py makes them of a task of single sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]

LONGEST_WORD = 200  # characters; a longer one is [UNK], in tokenization.py as here


class Tokens:
    """A vocabulary, and how long a row is.

    Raises:
        ValueError, OSError: the file can't be read, or lacks what every row has.
    """

    def __init__(self, vocab: Path, *, lower_case: bool, length: int) -> None:
        with vocab.open(encoding="utf-8", newline="\n") as file:
            ids = {line.strip(): number for number, line in enumerate(file)}
        if missing := [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in ids]:
            raise ValueError(f"{vocab} lacks {', '.join(missing)}")
        # Of its parts, and not BertWordPieceTokenizer: that takes "[SEP]" in somebody's sentence for the real one.
        self._tokenizer = Tokenizer(
            WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)  # noqa: S106
        )
        self._tokenizer.normalizer = BertNormalizer(lowercase=lower_case, strip_accents=lower_case)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        self._tokenizer.post_processor = BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=0)

    def rows(self, sentences: Sequence[str]) -> tuple[Ids, Ids, Ids]:
        """Give input ids, mask and segment ids, a row for each sentence; what is too long is cut."""
        encoded = self._tokenizer.encode_batch(list(sentences))
        ids = np.array([row.ids for row in encoded], np.int32)
        mask = np.array([row.attention_mask for row in encoded], np.int32)
        return ids, mask, np.zeros_like(ids)
