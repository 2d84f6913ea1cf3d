from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING

import pytest
from damage import lie

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.hint import LARGE_BYTES
from bertir.local_checkpoint import Options, add_checkpoint, find_checkpoint
from bertir.store import StoreError
from bertir.weights import of_checkpoint, require_length

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertir.store import Blob, Store

    Make = Callable[..., Path]

CONFIG = {"max_position_embeddings": 64, "num_hidden_layers": 3, "vocab_size": 8}
GOOGLE_FILES = ("model.ckpt-343.data-00000-of-00001", "model.ckpt-343.index", "model.ckpt-343.meta")


def with_special_tokens(vocabulary: bytes) -> bytes:
    """Add those that every vocabulary must have, where the test says nothing of them."""
    missing = [token for token in (b"[UNK]", b"[CLS]", b"[SEP]") if token not in vocabulary]
    return vocabulary.removesuffix(b"\n") + b"\n" + b"".join(token + b"\n" for token in missing)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a directory of the given files; without a content, a file holds its own name."""

    def make(*names: str, **contents: str | bytes) -> Path:
        folder = tmp_path / "tuned"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).write_text(name, encoding="utf-8")
        for key, content in {
            "vocab.txt": "[PAD]\n[CLS]\n[SEP]\ncat\n",
            "bert_config.json": json.dumps(CONFIG),
            **{key.replace("__", "."): content for key, content in contents.items()},
        }.items():
            if content:
                data = content if isinstance(content, bytes) else content.encode()
                (folder / key).write_bytes(with_special_tokens(data) if key == "vocab.txt" else data)
        return folder

    return make


def refused(folder: Path, **options: object) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        find_checkpoint(Options(path=folder, **options))  # type: ignore[arg-type]
    return raised.value


def test_a_checkpoint_has_the_same_names_whatever_its_prefix_is(make: Make, store: Store) -> None:
    folder = make(*GOOGLE_FILES)
    found = find_checkpoint(Options(path=folder))
    assert (found.name, found.prefix) == ("tuned", "model.ckpt-343")
    assert (found.kind, found.layers, found.max_positions) == ("google", 3, 64)
    assert set(found.files) == {
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
        "bert_model.ckpt.meta",
        "bert_config.json",
        "vocab.txt",
    }
    stored = add_checkpoint(store, found)
    for item in folder.glob("model.ckpt-343*"):
        item.rename(folder / item.name.replace("model.ckpt-343", "other"))
    assert add_checkpoint(store, find_checkpoint(Options(path=folder))) == stored
    assert stored["bert_model.ckpt.index"].digest == Digest.of_bytes(b"model.ckpt-343.index")


@pytest.mark.parametrize("named", ["model.ckpt-7", "model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001"])
def test_one_of_several_is_chosen_by_its_prefix_or_one_of_its_files(make: Make, named: str) -> None:
    folder = make(*GOOGLE_FILES, "model.ckpt-7.index", "model.ckpt-7.data-00000-of-00001")
    found = find_checkpoint(Options(path=folder / named))
    assert found.files["bert_model.ckpt.index"].name == "model.ckpt-7.index"
    assert "bert_model.ckpt.meta" not in found.files  # that of the other one is none of it


@pytest.mark.parametrize(
    "state", ["model.ckpt-343", "/home/gone/tuned/model.ckpt-343", r"C:\\tuned\\model.ckpt-343"]
)
def test_of_several_the_one_that_the_state_file_names_is_taken(make: Make, state: str) -> None:
    text = f'model_checkpoint_path: "{state}"\nall_model_checkpoint_paths: "model.ckpt-0"\n'
    folder = make(*GOOGLE_FILES, "model.ckpt-0.index", "model.ckpt-0.data-00000-of-00001", checkpoint=text)
    assert find_checkpoint(Options(path=folder)).files["bert_model.ckpt.index"].name == "model.ckpt-343.index"


def test_several_candidates_are_named_with_what_to_pass(make: Make) -> None:
    folder = make(*GOOGLE_FILES, "model.ckpt-7.index")
    error = refused(folder)
    assert "several checkpoints: model.ckpt-343, model.ckpt-7" in str(error)
    assert f"--checkpoint {folder}/model.ckpt-7" in error.advice
    assert error.exit_status == 2


def test_a_state_file_that_names_what_is_gone_is_no_choice_of_what_is_left(make: Make) -> None:
    folder = make(*GOOGLE_FILES, checkpoint='model_checkpoint_path: "/home/gone/model.ckpt-9"')
    error = refused(folder)
    assert f"{folder}/checkpoint names model.ckpt-9, which isn't there; there are: model.ckpt-343" in str(
        error
    )
    assert f"--checkpoint {folder}/model.ckpt-343" in error.advice
    chosen = find_checkpoint(Options(path=folder / "model.ckpt-343"))
    assert chosen.files["bert_model.ckpt.index"].name == "model.ckpt-343.index"


def test_a_state_file_names_other_bytes_than_ascii_by_their_numbers(make: Make) -> None:
    # As protobuf's text format has it, with what TensorFlow wrote for the prefix 'modèle"1'.
    folder = make('mod\u00e8le"1.index', 'mod\u00e8le"1.data-00000-of-00001', "b.index")
    (folder / "checkpoint").write_text('model_checkpoint_path: "mod\\303\\250le\\"1"\n')
    assert find_checkpoint(Options(path=folder)).files["bert_model.ckpt.index"].name == 'mod\u00e8le"1.index'


def test_of_two_kinds_of_checkpoint_in_one_folder_neither_is_taken_unasked(make: Make) -> None:
    folder = make("model.safetensors", *GOOGLE_FILES, config__json=json.dumps(CONFIG))
    error = refused(folder)
    assert "holds model.safetensors and a checkpoint of TensorFlow: model.ckpt-343" in str(error)
    for name, kind in (("model.safetensors", "hugging-face"), ("model.ckpt-343", "google")):
        assert f"--checkpoint {folder}/{name}" in error.advice
        assert find_checkpoint(Options(path=folder / name)).kind == kind


def test_a_prefix_that_is_not_there_is_answered_with_those_that_are(make: Make) -> None:
    error = refused(make(*GOOGLE_FILES) / "model.ckpt-8")
    assert "neither a directory nor the prefix" in str(error)
    assert "There are: model.ckpt-343." in error.advice


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (("data-00000-of-00002", "data-00001-of-00002"), True),
        (("data-00001-of-00002",), False),
        (("data-00000-of-00001", "data-00000-of-00002", "data-00001-of-00002"), False),
        ((), False),
    ],
)
def test_all_parts_of_the_data_are_taken_or_none(make: Make, parts: tuple[str, ...], whole: bool) -> None:
    folder = make("model.index", *(f"model.{part}" for part in parts))
    if whole:
        found = find_checkpoint(Options(path=folder)).files
        assert {f"bert_model.ckpt.{part}" for part in parts} <= set(found)
    else:
        assert "don't make up a whole" in str(refused(folder))


def test_one_of_several_is_published_under_its_prefix_and_an_only_one_under_its_folder(
    make: Make, store: Store
) -> None:
    folder = make(*GOOGLE_FILES)
    names = {path: find_checkpoint(Options(path=path)).name for path in (folder, folder / "model.ckpt-343")}
    assert list(names.values()) == ["tuned", "tuned-model.ckpt-343"]
    make(
        "model.ckpt-0.index",
        "model.ckpt-0.data-00000-of-00001",
        checkpoint='model_checkpoint_path: "model.ckpt-343"',
    )
    chosen, other = (find_checkpoint(Options(path=path)) for path in (folder, folder / "model.ckpt-0.index"))
    assert (chosen.name, other.name) == ("tuned-model.ckpt-343", "tuned-model.ckpt-0")
    assert of_checkpoint(other, add_checkpoint(store, other)).facts["prefix"] == "model.ckpt-0"


def test_vocabulary_and_configuration_that_are_missing_are_named_at_once(make: Make) -> None:
    folder = make(*GOOGLE_FILES, vocab__txt="", bert_config__json="")
    error = refused(folder)
    assert f"no {folder}/vocab.txt and no {folder}/bert_config.json" in str(error)
    assert "--vocab-file FILE --bert-config FILE" in error.advice


def test_vocabulary_and_configuration_may_lie_elsewhere(make: Make, tmp_path: Path) -> None:
    folder = make(*GOOGLE_FILES, vocab__txt="", bert_config__json="")
    (tmp_path / "v").write_text("[UNK]\n[CLS]\n[SEP]\nCat\n")
    (tmp_path / "c").write_text(json.dumps(CONFIG))
    found = find_checkpoint(Options(path=folder, vocab_file=tmp_path / "v", bert_config=tmp_path / "c"))
    assert (found.files["vocab.txt"], found.files["bert_config.json"]) == (tmp_path / "v", tmp_path / "c")


def test_a_hugging_face_directory_is_known_by_its_safetensors(make: Make) -> None:
    folder = make("model.safetensors", "pytorch_model.bin", config__json=json.dumps(CONFIG))
    for path in (folder, folder / "model.safetensors"):
        found = find_checkpoint(Options(path=path))
        assert (found.name, found.prefix, found.kind) == ("tuned", "", "hugging-face")
        assert set(found.files) == {"model.safetensors", "config.json", "vocab.txt"}


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("roberta", "RobertaModel"), ("distilbert", "DistilBertModel"), ("electra", "ElectraForPreTraining")],
)
def test_another_architecture_is_named_before_anything_of_it_is_missed(
    make: Make, kind: str, architecture: str
) -> None:
    # No vocab.txt, as RoBERTa has none, and DistilBERT's own names for the sizes.
    config = json.dumps({"model_type": kind, "architectures": [architecture], "n_layers": 6})
    folder = make("model.safetensors", vocab__txt="", bert_config__json="", config__json=config)
    for error in (refused(folder), refused(folder, bert_config=folder / "config.json")):
        assert f"its model_type is '{kind}' (architectures: ['{architecture}'])" in str(error)
        assert error.exit_status == 2


@pytest.mark.parametrize("said", [{"model_type": "bert"}, {}])
def test_a_bert_and_what_does_not_say_what_it_is_are_for_the_container_to_look_at(
    make: Make, said: dict[str, str]
) -> None:
    folder = make("model.safetensors", config__json=json.dumps(CONFIG | said))
    assert find_checkpoint(Options(path=folder)).kind == "hugging-face"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.pkl"])
def test_pickled_weights_are_refused_with_the_reason(make: Make, name: str) -> None:
    folder = make(name, config__json=json.dumps(CONFIG))
    for path in (folder, folder / name):
        error = refused(path)
        assert f"{name} is pickled" in str(error)
        assert "run whatever program" in str(error)
        assert "safetensors" in error.advice


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertModel"])
def test_who_has_pickled_weights_is_told_the_class_that_saved_them(make: Make, name: str) -> None:
    folder = make("pytorch_model.bin", config__json=json.dumps(CONFIG | {"architectures": [name]}))
    for path in (folder, folder / "pytorch_model.bin"):
        assert f" {name}.from_pretrained(DIR)" in refused(path).advice


@pytest.mark.parametrize(
    "config",
    [
        *(
            json.dumps({"architectures": value})
            for value in (None, [], ["A", "B"], [1], ["x; y"], "BertModel")
        ),
        "[]",
        "{",
        "[" * 100_000,
        b"\xff",
        "",
    ],
    ids=["null", "none", "two", "number", "program", "text", "list", "cut", "nested", "bytes", "absent"],
)
def test_a_configuration_that_names_no_class_gives_no_class_to_follow(
    make: Make, config: str | bytes
) -> None:
    advice = refused(make("pytorch_model.bin", config__json=config)).advice
    assert "the class of transformers that it was saved by" in advice
    assert "from_pretrained" not in advice


def test_safetensors_in_parts_and_a_folder_of_nothing_are_refused(make: Make) -> None:
    folder = make()
    assert "holds no checkpoint" in str(refused(folder))
    (folder / "model.safetensors.index.json").touch()
    assert "several parts" in str(refused(folder))


@pytest.mark.parametrize(
    ("vocabulary", "case", "decision"),
    [
        ("[CLS]\n[UNK]\ncat\n##at\n", "", (True, "vocab.txt")),
        ("[CLS]\nCat\ncat\n", "", (False, "vocab.txt")),
        ("[CLS]\nÉté\n", "", (False, "vocab.txt")),
        ("[CLS]\n[PAD]\n\u732b\n", "", (True, "vocab.txt")),
        ("[CLS]\nCat\n", "uncased", (True, "--case")),
        ("[CLS]\ncat\n", "cased", (False, "--case")),
    ],
)
def test_a_vocabulary_is_uncased_if_no_token_has_an_upper_case_letter_unless_it_is_said(
    make: Make, store: Store, vocabulary: str, case: str, decision: tuple[bool, str]
) -> None:
    found = find_checkpoint(Options(path=make(*GOOGLE_FILES, vocab__txt=vocabulary), case=case))
    facts = of_checkpoint(found, add_checkpoint(store, found)).facts
    assert (facts["lower_case"], facts["lower_case_from"]) == decision


@pytest.mark.parametrize(
    ("vocabulary", "case", "told"),
    [
        ("[CLS]\ncat\n", "", "uncased, as vocab.txt has no upper-case letter; --case cased overrules"),
        ("[CLS]\ncat\nCat\nDog\n", "", "cased, by the token 'Cat' of vocab.txt; --case uncased overrules"),
        ("X\x1b[1m" + "x" * 1000, "", r"cased, by the token 'X\x1b[1m" + "x" * 35 + "' of vocab.txt"),
        ("Cat\n", "uncased", "uncased, as --case says"),
        ("cat\n", "cased", "cased, as --case says"),
    ],
)
def test_the_case_is_told_with_what_decided_on_it(make: Make, vocabulary: str, case: str, told: str) -> None:
    found = find_checkpoint(Options(path=make(*GOOGLE_FILES, vocab__txt=vocabulary), case=case))
    assert found.case.startswith(told)


def test_a_byte_order_mark_is_part_of_no_text(make: Make, store: Store) -> None:
    text, configuration = b"[PAD]\ncat\n", json.dumps(CONFIG).encode()
    plain = add_checkpoint(
        store,
        find_checkpoint(Options(path=make(*GOOGLE_FILES, vocab__txt=text, bert_config__json=configuration))),
    )
    marked = make(
        *GOOGLE_FILES, vocab__txt=b"\xef\xbb\xbf" + text, bert_config__json=b"\xef\xbb\xbf" + configuration
    )
    found = find_checkpoint(Options(path=marked))
    assert found.lower_case  # "\ufeff[PAD]" would be a token with upper-case letters
    assert add_checkpoint(store, found) == plain


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "its max_position_embeddings is None"),
        (json.dumps(CONFIG | {"vocab_size": True}), "its vocab_size is True"),
        (json.dumps(CONFIG | {"max_position_embeddings": 0}), "its max_position_embeddings is 0"),
        (json.dumps(CONFIG | {"num_hidden_layers": "12"}), "its num_hidden_layers is '12'"),
        (b"\xff", "is not UTF-8 text"),
        (" " * (1 << 20) + "{}", "has more than 1048576 bytes"),
    ],
    ids=["cut", "nested", "list", "true", "zero", "text", "bytes", "long"],
)
def test_a_configuration_that_is_none_is_one_message(make: Make, config: str | bytes, said: str) -> None:
    assert said in str(refused(make(*GOOGLE_FILES, bert_config__json=config)))


def test_a_vocabulary_longer_than_the_embedding_table_is_refused(make: Make) -> None:
    error = refused(make(*GOOGLE_FILES, vocab__txt="a\n" * 9))
    assert "has 12 lines, and the model embeds 8 tokens" in str(error)
    assert "--vocab-file" in error.advice


def test_a_sequence_has_no_more_tokens_than_the_model_has_positions(make: Make, store: Store) -> None:
    found = find_checkpoint(Options(path=make(*GOOGLE_FILES)))
    weights = of_checkpoint(found, add_checkpoint(store, found))
    require_length(weights, 64)
    with pytest.raises(ConfigurationError, match="tuned has 64 positions, and --seq-len is 65") as raised:
        require_length(weights, 65)
    assert "--seq-len 64" in raised.value.advice


def test_what_is_in_the_store_already_is_not_written_again(make: Make, store: Store) -> None:
    found = find_checkpoint(Options(path=make(*GOOGLE_FILES)))
    stored = add_checkpoint(store, found)
    before = {path: path.stat().st_ino for path in (store.root / "objects").rglob("*") if path.is_file()}
    assert add_checkpoint(store, found) == stored
    after = {path: path.stat().st_ino for path in (store.root / "objects").rglob("*") if path.is_file()}
    assert after == before


def test_a_file_that_can_not_be_read_is_one_message(make: Make, store: Store) -> None:
    folder = make(*GOOGLE_FILES)
    found = find_checkpoint(Options(path=folder))
    (folder / "model.ckpt-343.index").unlink()
    with pytest.raises(ConfigurationError, match=r"can't read .*model\.ckpt-343\.index: No such file"):
        add_checkpoint(store, found)


@pytest.mark.parametrize("another_of_its_size", [True, False])
def test_a_fault_of_what_begins_before_a_copy_is_not_the_checkpoints(
    make: Make, store: Store, *, another_of_its_size: bool
) -> None:
    data = bytes(LARGE_BYTES)
    if another_of_its_size:
        store.add_bytes(b"!" + data[1:])
    folder = make(GOOGLE_FILES[0], **{GOOGLE_FILES[1].replace(".", "__"): data})

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        add_checkpoint(store, find_checkpoint(Options(path=folder)), full)


@pytest.mark.parametrize("size", [1, LARGE_BYTES])
def test_a_fault_of_the_store_is_not_the_checkpoints(
    make: Make, store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    data = b"x" * size
    folder = make(GOOGLE_FILES[1], **{GOOGLE_FILES[0].replace(".", "__"): data})
    stored = store.add_bytes(data)
    if size == LARGE_BYTES:
        lie(store, folder / GOOGLE_FILES[0], stored.digest)
    found = find_checkpoint(Options(path=folder))

    find = store.find

    def broken(digest: Digest) -> Blob | None:
        if digest == stored.digest:
            raise OSError(errno.EIO, "Input/output error")
        return find(digest)

    monkeypatch.setattr(store, "find", broken)
    with pytest.raises((OSError, StoreError), match="Input/output error") as raised:
        add_checkpoint(store, found)
    assert str(folder) not in str(raised.value)


def test_the_published_folder_needs_a_name(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(*GOOGLE_FILES)
    monkeypatch.chdir(folder)
    from pathlib import Path

    assert find_checkpoint(Options(path=Path())).name == "tuned"
    hidden = folder.rename(folder.with_name(".tuned"))
    assert "into a folder with a name" in refused(hidden).advice


@pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_token_that_every_row_has_is_refused(make: Make, token: str) -> None:
    folder = make(*GOOGLE_FILES)
    text = (folder / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text(text.replace(token, "other"), encoding="utf-8")
    assert f"vocab.txt lacks {token}" in str(refused(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**9}, "its num_hidden_layers is 1000000000"),
        ({"num_hidden_layers": 501}, "its num_hidden_layers is 501"),
        ({"vocab_size": 10**100}, "its vocab_size is an integer of more than 31 bits"),
        ({"max_position_embeddings": -1}, "its max_position_embeddings is -1"),
        ({"hidden_size": 0}, "its hidden_size is 0"),
        ({"hidden_size": 128.0}, "its hidden_size is 128.0"),
        ({"hidden_size": True}, "its hidden_size is True"),
        (
            {"hidden_size": 128, "num_attention_heads": 3},
            "hidden_size 128 is not a multiple of its num_attention_heads 3",
        ),
        ({"num_attention_heads": "x" * 100_000}, "its num_attention_heads is 'xxx"),
        ({"intermediate_size": None}, "its intermediate_size is None"),
        ({"type_vocab_size": []}, "its type_vocab_size is []"),
        ({"hidden_dropout_prob": "0.1"}, "its hidden_dropout_prob is '0.1'"),
        ({"attention_probs_dropout_prob": float("inf")}, "its attention_probs_dropout_prob is inf"),
        ({"initializer_range": float("nan")}, "its initializer_range is nan"),
        ({"hidden_act": "swish"}, "its hidden_act is 'swish', none of gelu"),
        ({"hidden_act": None}, "its hidden_act is None"),
    ],
)
def test_a_configuration_that_no_graph_can_be_made_of_is_refused_before_one_is_begun(
    make: Make, changes: dict[str, object], said: str
) -> None:
    error = refused(make(*GOOGLE_FILES, bert_config__json=json.dumps(CONFIG | changes)))
    assert said in str(error)
    assert len(str(error)) < 1000
