from __future__ import annotations

from pathlib import Path

import pytest

from bertir.errors import ConfigurationError
from bertir.intent import load_intent, parse_intent

DOCKER = Path(__file__).parents[2] / "docker"
TEXT = (DOCKER / "image.toml").read_text(encoding="utf-8")


def test_the_image_of_the_project_is_read() -> None:
    intent = load_intent(DOCKER)
    assert (intent.os, intent.architecture, intent.user) == ("linux", "amd64", "65532:65532")
    assert "tensorflow-cpu==2.15.1" in intent.python.requirements


def test_a_comment_does_not_change_the_digest() -> None:
    assert parse_intent(f"# a comment\n{TEXT}").digest == parse_intent(TEXT).digest


def test_a_changed_value_changes_the_digest() -> None:
    changed = parse_intent(TEXT.replace('TZ = "UTC"', 'TZ = "CET"'))
    assert changed.digest != parse_intent(TEXT).digest
    assert changed.debian.resolution == parse_intent(TEXT).debian.resolution


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('workdir = "/"', 'workdri = "/"', "`workdir` is missing"),
        ('workdir = "/"', 'workdir = "/"\nentrypoint = "x"', "unknown `entrypoint`"),
        ('suite = "bookworm"', "suite = 12", r"\[debian\]: `suite` must be a string, and is 12"),
        ('user = "65532:65532"', 'user = "nobody"', "`user` must be a string of the form"),
        ("source_date_epoch = 1583939994", "source_date_epoch = true", "must be an integer"),
        ("source_date_epoch = 1583939994", "source_date_epoch = -1", "must be an integer from 0"),
        ('"numpy==1.26.4"', '"--index-url=x"', "`requirements` must be a list"),
        ('"numpy==1.26.4"', '"protobuf==4.25.9"', "list of different strings"),
        ('path = "etc/passwd"', 'path = "../etc/passwd"', "`path` must be"),
        ('path = "etc/passwd"', 'path = "/etc/passwd"', "`path` must be"),
        ("[debian]\n", "[debian\n", "is not TOML"),
    ],
)
def test_what_is_wrong_in_image_toml_is_named(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigurationError, match=message):
        parse_intent(TEXT.replace(old, new))


def test_a_missing_image_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"can't read .*image\.toml: No such file"):
        load_intent(tmp_path)
