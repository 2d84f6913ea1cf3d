from __future__ import annotations

import pytest

from bertir.errors import ConfigurationError
from bertir.mirror import debian_mirror, mirrors_of


def _line(origin: str, label: str, release: str, url: str, created_by: str = "Packages") -> str:
    return f"{created_by}\t{origin}\t{label}\t{release}\tmain\t{url}"


def test_the_variable_wins_and_loses_its_last_slash() -> None:
    assert (
        debian_mirror({"BERTIR_DEBIAN_MIRROR": "http://mirror.example/debian/"})
        == "http://mirror.example/debian"
    )


@pytest.mark.parametrize("value", ["mirror.example", "ftp://mirror.example", "http://a b"])
def test_a_variable_that_is_no_url_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="BERTIR_DEBIAN_MIRROR must be an http, https or file URL"):
        debian_mirror({"BERTIR_DEBIAN_MIRROR": value})


def test_a_machine_without_apt_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="no apt") as caught:
        debian_mirror({})
    assert "BERTIR_DEBIAN_MIRROR" in caught.value.advice


def test_the_security_archive_and_other_vendors_are_no_mirror() -> None:
    lines = [
        _line("Other", "Other", "stable", "https://vendor.example/apt/"),
        _line("Debian", "Debian-Security", "bookworm-security", "http://m.example/debian-security/"),
        _line("Debian", "Debian", "bookworm", "http://m.example/debian/", created_by="Translations"),
        _line("Debian", "Debian", "bookworm-updates", "http://m.example/debian/"),
    ]
    assert mirrors_of("\n".join(lines)) == ["http://m.example/debian"]


def test_before_the_first_update_the_address_must_do() -> None:
    lines = [
        _line("", "", "bookworm-security", "http://m.example/debian-security/"),
        _line("", "", "stable", "https://vendor.example/apt/"),
        _line("", "", "bookworm", "http://m.example/debian/"),
    ]
    assert mirrors_of("\n".join(lines)) == ["http://m.example/debian"]
