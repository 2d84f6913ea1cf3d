"""MRPC's files as they are published, in small: a byte order mark, CR LF, quotation marks that belong to sentences."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.builder import Builder, Layout
from bertir.digest import Digest
from bertir.errors import ConfigurationError, FetchError
from bertir.fetch import Fetcher
from bertir.materials import split_task_data, task_rows, write_task_data
from bertir.origin import Origin
from bertir.progress import SILENT
from bertir.task_data import load_mrpc, mrpc_dev_tsv, read_dev_tsv, split_mrpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bertir.store import Store

HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
ROWS = [
    (
        "1",
        "702876",
        "702977",
        'Amrozi accused his brother , whom he called " the witness " .',
        "Referring to him",
    ),
    ("0", "2108705", "2108831", '"Yucaipa owned', "Yucaipa bought\u2028Dominick 's"),
    ("1", "1330381", "1330521", "They had published", 'On June 10 , the ship " s owners"'),
    ("0", "3344667", "3344648", "Around 0335 GMT \u00a0", "Tab shares jumped \x85 cents"),
]


def as_published(rows: Sequence[tuple[str, ...]], header: str = HEADER) -> bytes:
    return "\r\n".join(["\ufeff" + header, *("\t".join(row) for row in rows), ""]).encode()


TRAIN = as_published(ROWS)
TEST = as_published(ROWS[:2])
DEV_IDS = b"2108705\t2108831\n3344667\t3344648\n"


def rows_of(data: bytes) -> list[list[str]]:
    """As run_classifier.py's DataProcessor._read_tsv reads them."""
    return list(csv.reader(io.StringIO(data.decode(), newline="\n"), delimiter="\t", quotechar=None))


def test_train_is_split_by_the_ids_of_dev() -> None:
    split = split_mrpc(TRAIN, TEST, DEV_IDS)
    assert set(split) == {"train.tsv", "dev.tsv", "test.tsv"}
    assert [row[1] for row in rows_of(split["train.tsv"])[1:]] == ["702876", "1330381"]
    assert [row[1] for row in rows_of(split["dev.tsv"])[1:]] == ["2108705", "3344667"]


def test_headers_are_those_that_glue_writes_and_have_no_byte_order_mark() -> None:
    split = split_mrpc(TRAIN, TEST, DEV_IDS)
    assert split["train.tsv"].decode().splitlines()[0] == HEADER
    assert split["dev.tsv"].decode().splitlines()[0] == HEADER
    assert split["test.tsv"].decode().splitlines()[0] == HEADER.replace("Quality", "index")


def test_rows_of_test_are_numbered_in_place_of_their_labels() -> None:
    rows = rows_of(split_mrpc(TRAIN, TEST, DEV_IDS)["test.tsv"])[1:]
    assert [row[0] for row in rows] == ["0", "1"]
    assert [row[3] for row in rows] == [ROWS[0][3], ROWS[1][3]]


def test_quotation_marks_and_odd_line_ends_stay_in_their_sentences() -> None:
    split = split_mrpc(TRAIN, TEST, DEV_IDS)
    assert b"\r" not in b"".join(split.values())
    dev = rows_of(split["dev.tsv"])
    assert dev[1][3:] == ['"Yucaipa owned', "Yucaipa bought\u2028Dominick 's"]
    assert dev[2][3] == "Around 0335 GMT \u00a0"
    assert rows_of(split["train.tsv"])[2][4] == 'On June 10 , the ship " s owners"'


def test_ids_are_a_pair_and_their_order_counts() -> None:
    split = split_mrpc(TRAIN, TEST, b"2108831\t2108705\r\n702876\t1330521\r\n")
    assert len(rows_of(split["dev.tsv"])) == 1


IDS = st.integers(1, 30).map(str)


@given(
    st.lists(st.tuples(st.sampled_from("01"), IDS, IDS, st.just('a "b'), st.just("c")), max_size=20),
    st.lists(st.tuples(IDS, IDS), max_size=20),
)
def test_every_row_is_in_train_or_dev_and_in_one_alone(
    rows: list[tuple[str, ...]], ids: list[tuple[str, str]]
) -> None:
    split = split_mrpc(as_published(rows), TEST, "".join(f"{one}\t{other}\n" for one, other in ids).encode())
    train, dev = (rows_of(split[name])[1:] for name in ("train.tsv", "dev.tsv"))
    assert sorted(train + dev) == sorted(list(row) for row in rows)
    assert all((row[1], row[2]) in ids for row in dev)
    assert not any((row[1], row[2]) in ids for row in train)


@pytest.mark.parametrize(
    ("train", "ids", "message"),
    [
        (TRAIN + b"1\t2\t3\n", DEV_IDS, r"msr_paraphrase_train\.txt, line 6: expected 5 fields, found 3"),
        (TRAIN + b"1\t2\t3\ta\tb\tc\n", DEV_IDS, "line 6: expected 5 fields, found 6"),
        (TRAIN, b"1\n", r"mrpc_dev_ids\.tsv, line 1: expected 2 fields, found 1"),
        (b"\xff\xfe", DEV_IDS, r"msr_paraphrase_train\.txt is not UTF-8"),
    ],
)
def test_a_line_of_another_form_is_named(train: bytes, ids: bytes, message: str) -> None:
    with pytest.raises(FetchError, match=message):
        split_mrpc(train, TEST, ids)


# what the user gives


def test_what_bertir_shows_itself_could_be_a_users(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes(mrpc_dev_tsv())
    assert read_dev_tsv(tmp_path) == mrpc_dev_tsv()
    (tmp_path / "dev.tsv").write_bytes(split_mrpc(TRAIN, TEST, DEV_IDS)["dev.tsv"])
    assert read_dev_tsv(tmp_path)


@pytest.mark.parametrize("folder", ["absent", "empty", "file", "a\0b", "x" * 5000])
def test_a_folder_without_a_dev_tsv_is_status_2(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"dev\.tsv") as raised:
        read_dev_tsv(tmp_path / folder)
    assert "or mrpc" in raised.value.advice


def test_a_field_may_be_as_long_as_the_reader_of_the_step_takes_it(tmp_path: Path) -> None:
    longest = "\u00e9" * 131_072
    data = f'{HEADER}\n1\t1\t2\t"a\u2028a\t{longest}\r\n'.encode()
    (tmp_path / "dev.tsv").write_bytes(data)
    assert read_dev_tsv(tmp_path) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no row below its header"),
        (HEADER.encode() + b"\n", "no row below its header"),
        (HEADER.encode() + b"\n2\t1\t2\ta\tb\n", "line 2: expected a label, 0 or 1"),
        (HEADER.encode() + b"\n1\t1\t2\ta\tb\n1\t1\t2\ta\n", "line 3: expected a label"),
        (HEADER.encode() + b"\n1\t1\t2\ta\tb\n\n", "line 3: expected a label"),
        (HEADER.encode() + b"\n1\t1\t2\ta\t" + b"b" * 131_073 + b"\n", "line 2: field larger than"),
        (b"h" * 131_073 + b"\n1\t1\t2\ta\tb\n", "line 1: field larger than"),
        (HEADER.encode() + b"\n1\t1\t2\ta\rz\tb\n", "line 2: new-line character seen"),
        (b"\xff\n", "is not UTF-8"),
    ],
)
def test_a_dev_tsv_that_run_classifier_would_stop_at_is_status_2(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "dev.tsv").write_bytes(data)
    with pytest.raises(ConfigurationError, match=message):
        read_dev_tsv(tmp_path)


# the pins


def test_the_pins_are_those_that_were_published(root: Path) -> None:
    pins = {pin.name: pin for pin in load_mrpc(root / "task_data.toml")}
    assert {name: pin.size for name, pin in pins.items()} == {
        "msr_paraphrase_train.txt": 1_047_044,
        "msr_paraphrase_test.txt": 441_275,
        "mrpc_dev_ids.tsv": 6_222,
    }
    assert all(pin.url.startswith("https://") and pin.url.endswith(f"/{name}") for name, pin in pins.items())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size = 6222", "size = -1"),
        ("size = 6222", "size = true"),
        ("size = 6222", ""),
        ('sha256 = "971d', 'sha256 = "971D'),
        ('sha256 = "971d', 'sha256 = 1 # "'),
        ('url = "https://dl.fbaipublicfiles.com/glue', 'url = "file:///glue'),
        ('[mrpc."mrpc_dev_ids.tsv"]', "[mrpc.x]"),
        ("[mrpc.", "[other."),
        ('[mrpc."mrpc_dev_ids.tsv"]', "[mrpc"),
    ],
)
def test_malformed_pins_are_one_configuration_error(root: Path, tmp_path: Path, old: str, new: str) -> None:
    text = (root / "task_data.toml").read_text()
    assert old in text
    path = tmp_path / "task_data.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError, match=r"task_data\.toml"):
        load_mrpc(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        load_mrpc(tmp_path / "absent.toml")


# in the pipeline


@pytest.fixture
def builder(tmp_path: Path, store: Store) -> Iterator[Builder]:
    """A builder without an engine, with small MRPC files in a folder that is its mirror."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    published = {
        "msr_paraphrase_train.txt": TRAIN,
        "msr_paraphrase_test.txt": TEST,
        "mrpc_dev_ids.tsv": DEV_IDS,
    }
    lines = []
    for name, data in published.items():
        (mirror / name).write_bytes(data)
        lines.append(f'[mrpc."{name}"]\nurl = "http://127.0.0.1:9/{name}"\nsize = {len(data)}')
        lines.append(f'sha256 = "{Digest.of_bytes(data).hex}"')
    (tmp_path / "task_data.toml").write_text("\n".join(lines))
    fetcher = Fetcher(store=store, environment={}, progress=SILENT, origin=Origin(folder=mirror))
    with Builder(
        layout=Layout(root=tmp_path, models=tmp_path / "models.toml"),
        store=store,
        fetcher=fetcher,
        environment={},
        progress=SILENT,
    ) as opened:
        yield opened


def test_freeze_is_shown_what_was_asked_for(builder: Builder, tmp_path: Path) -> None:
    def shown(task_data: str) -> bytes:
        return builder.store.checked(task_rows(builder, task_data), what="dev.tsv").read_bytes()

    assert shown("") == mrpc_dev_tsv()
    assert shown("mrpc") == split_mrpc(TRAIN, TEST, DEV_IDS)["dev.tsv"]
    (tmp_path / "dev.tsv").write_bytes(
        split_mrpc(TRAIN, TEST, b"702876\t702977\n1330381\t1330521\n")["dev.tsv"]
    )
    assert shown(str(tmp_path)) == (tmp_path / "dev.tsv").read_bytes()


def test_mrpc_is_split_once_and_written_where_it_is_wanted(builder: Builder, tmp_path: Path) -> None:
    expected = split_mrpc(TRAIN, TEST, DEV_IDS)
    assert not split_task_data(builder).cached
    for path in (tmp_path / "mirror").iterdir():
        path.unlink()
    again = split_task_data(builder)
    assert again.cached
    for _ in range(2):  # over what is there
        write_task_data(builder, again.artifact, tmp_path / "new" / "glue")
        assert {path.name: path.read_bytes() for path in (tmp_path / "new" / "glue").iterdir()} == expected
    with pytest.raises(ConfigurationError, match="can't write to"):
        write_task_data(builder, again.artifact, tmp_path / "task_data.toml")
