from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.errors import FetchError
from bertir.progress import Progress
from bertir.redact import printable, without_logins
from bertir.show import error_json, error_text

SECRET = "s3cret"  # noqa: S105 - the point of the test
URL = f"https://robot:{SECRET}@mirror.example/debian/pool/a_1_amd64.deb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URL, "https://mirror.example/debian/pool/a_1_amd64.deb"),
        (f"can't get {URL}: 404, nor {URL}", None),
        ("https://mirror.example/a@b", "https://mirror.example/a@b"),
        ("write to somebody@mirror.example", "write to somebody@mirror.example"),
    ],
)
def test_a_login_in_a_url_is_not_shown_and_the_rest_is(text: str, shown: str | None) -> None:
    found = without_logins(text)
    assert SECRET not in found
    assert shown is None or found == shown


def test_neither_errors_nor_progress_show_a_login() -> None:
    error = FetchError(f"{URL}: no answer", advice=f"see {URL}")
    stream = io.StringIO()
    Progress(stream=stream).say("fetch", URL)
    for text in (error_text(error), error_json(error), stream.getvalue()):
        assert "mirror.example" in text
        assert SECRET not in text


def test_what_is_not_printable_is_written_out() -> None:
    assert printable("a\x1b[31m\r\nb\udcff é 模") == r"a\x1b[31m\r\nb\udcff é 模"


@given(st.text())
def test_no_text_makes_a_line_of_its_own_or_moves_a_cursor(text: str) -> None:
    assert printable(text).isprintable()
