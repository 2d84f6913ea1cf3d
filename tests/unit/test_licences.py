"""What packages say of their licences, and that nothing is made of what they don't say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.licenses import canonicalize_license_expression
from packaging.metadata import parse_email

from bertir.licences import LONGEST_NAME, Declared, Licence, of_copyright, of_metadata

PATH = "usr/share/doc/small/copyright"
FORMAT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
UNREAD = [("file", f"/{PATH}")]
PYTHON_LICENCE = "License :: OSI Approved :: Python Software Foundation License"


def copyright_of(*names: str, extra: str = "") -> str:
    """A machine-readable file with a paragraph for each licence."""
    paragraphs = "".join(
        f"\nFiles: {number}/*\nCopyright: somebody\nLicense: {name}\n" for number, name in enumerate(names)
    )
    return f"{FORMAT}{paragraphs}{extra}"


def found(declared: Declared) -> list[tuple[str, str]]:
    return [(licence.kind, licence.value) for licence in declared.licences]


def debian(*names: str) -> list[tuple[str, str]]:
    return found(of_copyright(copyright_of(*names), PATH))


def metadata(text: str) -> dict[str, Any]:
    raw, _ = parse_email(f"Metadata-Version: 2.1\nName: small\nVersion: 1\n{text}\n")
    return {**raw}


def wheel(text: str, *files: str) -> list[tuple[str, str]]:
    return found(of_metadata(metadata(text), files))


# Debian


@pytest.mark.parametrize(
    ("name", "spdx"),
    [
        ("GPL-2", "GPL-2.0-only"),
        ("GPL-2.0", "GPL-2.0-only"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("gpl-3+", "GPL-3.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("LGPL-2+", "LGPL-2.0-or-later"),
        ("AGPL-3+", "AGPL-3.0-or-later"),
        ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
        ("Expat", "MIT"),
        ("BSD-3-clause", "BSD-3-Clause"),
        ("BSD-3-Clause", "BSD-3-Clause"),
        ("Apache-2", "Apache-2.0"),
        ("zlib", "Zlib"),
    ],
)
def test_a_name_that_debian_defines_and_spdx_has_is_that_id(name: str, spdx: str) -> None:
    assert debian(name) == [("id", spdx)]


@pytest.mark.parametrize(
    "name",
    [
        "MIT",  # many texts
        "X11",
        "BSD",
        "BSD-4-clause",  # SPDX knows two
        "GPL",  # of no version
        "LGPL",
        "GPL-9",
        "GPL-2.1",
        "GFDL-1.3",  # with or without invariant sections?
        "Artistic",
        "public-domain",
        "Apache",
        "BSD-3-clause-Cambridge",
        "GPL-2+-autoconf-exception",
        "GPL-2+ with OpenSSL exception",
        "GPL-2+ with OpenSSL exception or Expat",
        "GPL-2+, or Expat, and ISC",
        "MIT or GPL-2",
    ],
)
def test_a_name_that_leaves_a_choice_stays_that_name(name: str) -> None:
    assert debian(name) == [("name", name)]


def test_a_choice_between_certain_licences_is_an_expression() -> None:
    assert debian("GPL-2+ or Expat") == [("expression", "GPL-2.0-or-later OR MIT")]


def test_a_choice_beside_other_certain_licences_is_one_expression_over_all() -> None:
    assert debian("ISC", "GPL-2 or BSD-3-clause", "Zlib") == [
        ("expression", "(BSD-3-Clause OR GPL-2.0-only) AND ISC AND Zlib")
    ]


def test_a_choice_beside_an_uncertain_licence_keeps_its_words() -> None:
    # CycloneDX takes one expression or a list, and an expression with an uncertain part would be no SPDX.
    assert debian("GPL-2 or BSD-3-clause", "MIT", "ISC") == [
        ("id", "ISC"),
        ("name", "GPL-2 or BSD-3-clause"),
        ("name", "MIT"),
    ]


def test_both_of_two_licences_are_listed() -> None:
    assert debian("Expat and Sleepycat") == [("id", "MIT"), ("name", "Sleepycat")]


def test_each_licence_is_listed_once_and_a_text_alone_is_none() -> None:
    text = copyright_of("GPL-2+", "GPL-2+", extra="\nLicense: ISC\n the text, that no file has\n")
    assert found(of_copyright(text, PATH)) == [("id", "GPL-2.0-or-later")]


def test_that_files_have_no_licence_is_not_a_licence() -> None:
    assert debian("none", "ISC") == [("id", "ISC")]


def test_the_licence_of_the_whole_is_among_them() -> None:
    text = f"{FORMAT}License: ISC\n\nFiles: *\nCopyright: somebody\nLicense: Zlib\n"
    assert found(of_copyright(text, PATH)) == [("id", "ISC"), ("id", "Zlib")]


def test_the_format_by_its_older_address_is_read() -> None:
    text = copyright_of("Zlib").replace("https:", "http:")
    assert found(of_copyright(text, PATH)) == [("id", "Zlib")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "This is free software; see /usr/share/common-licenses/GPL-2.\n",
        "Format: https://example.org/another/\n\nFiles: *\nCopyright: somebody\nLicense: ISC\n",
        "Files: *\nCopyright: somebody\nLicense: ISC\n",
        FORMAT,
        copyright_of("none"),
        copyright_of("ISC", extra="\nthis is no field\n"),
    ],
    ids=["empty", "for people", "another format", "no format", "no paragraphs", "no licence", "damaged"],
)
def test_any_other_file_stands_for_itself(text: str) -> None:
    assert found(of_copyright(text, PATH)) == UNREAD


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_no_text_is_too_odd_for_a_copyright_file(text: str, headed: bool) -> None:
    declared = of_copyright(FORMAT + text if headed else text, PATH)
    assert declared.licences
    assert_sound(declared)


NAMES = st.lists(
    st.sampled_from(["GPL-2+", "Expat", "MIT", "ISC or GPL-3", "zlib and X11", "none", "Artistic-2.0"]),
    min_size=1,
)


@given(NAMES, st.randoms())
def test_the_order_of_paragraphs_does_not_matter(names: list[str], random: Any) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    assert debian(*names) == debian(*shuffled)


# wheels


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("License-Expression: Apache-2.0", "Apache-2.0"),
        ("License-Expression: mit", "MIT"),
        ("License: BSD-3-Clause", "BSD-3-Clause"),
        ("License: MIT", "MIT"),
        ("License: Apache 2.0", "Apache-2.0"),
        ("License: Apache License, Version 2.0", "Apache-2.0"),
        ("License: 3-Clause BSD License", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT"),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: ISC License (ISCL)", "ISC"),
        (
            "License: \nClassifier: License :: OSI Approved\nClassifier: License :: OSI Approved :: MIT License",
            "MIT",
        ),
        ("License-Expression: ISC\nLicense: MIT", "ISC"),
        ("License: ISC\nClassifier: License :: OSI Approved :: BSD License", "ISC"),
    ],
)
def test_metadata_that_leaves_no_choice_gives_an_id(text: str, spdx: str) -> None:
    assert wheel(text) == [("id", spdx)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("License: BSD", "BSD"),
        ("License: Apache", "Apache"),
        ("License: PSFL", "PSFL"),
        ("License: GPL-2.0", "GPL-2.0"),  # only, or any later one?
        ("License: LGPL-2.1+", "LGPL-2.1+"),
        ("License: Intel", "Intel"),  # SPDX has it, as the name of an old licence
        ("License: mit", "mit"),
        ("License: MIT and BSD", "MIT and BSD"),
        ("License: MIT/Apache-2.0", "MIT/Apache-2.0"),
        ("License: OSI Approved :: Apache Software License", "OSI Approved :: Apache Software License"),
        ("Classifier: License :: OSI Approved :: Apache Software License", "Apache Software License"),
        ("Classifier: License :: OSI Approved :: BSD License", "BSD License"),
        (f"Classifier: {PYTHON_LICENCE}", "Python Software Foundation License"),
        ("License-Expression: my own", "my own"),
    ],
)
def test_metadata_that_leaves_a_choice_keeps_its_words(text: str, name: str) -> None:
    assert wheel(text) == [("name", name)]


@pytest.mark.parametrize("field", ["License-Expression", "License"])
def test_an_expression_of_spdx_is_one(field: str) -> None:
    assert wheel(f"{field}: Apache-2.0 OR BSD-3-Clause") == [("expression", "Apache-2.0 OR BSD-3-Clause")]
    assert wheel(f"{field}: LicenseRef-Own-1") == [("expression", "LicenseRef-Own-1")]


def test_a_long_expression_is_no_text() -> None:
    expression = " AND ".join(["Apache-2.0 WITH LLVM-exception"] * 8)
    assert len(expression) > LONGEST_NAME
    assert wheel(f"License-Expression: {expression}") == [("expression", expression)]


def test_what_several_classifiers_mean_together_is_not_inferred() -> None:
    text = "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: ISC License (ISCL)"
    assert wheel(text) == [("name", "ISC License (ISCL)"), ("name", "MIT License")]


@pytest.mark.parametrize(
    "text",
    ["License: Copyright (c) somebody.\n        All rights reserved.", f"License: {'Redistribution ' * 20}"],
    ids=["lines", "long"],
)
def test_a_whole_text_is_not_taken_for_a_name(text: str) -> None:
    assert wheel(text) == [("file", "METADATA, field License")]
    named = f"{text}\nClassifier: License :: OSI Approved :: BSD License"
    assert wheel(named) == [("name", "BSD License")]


def test_without_any_word_the_files_are_named() -> None:
    declared = of_metadata(metadata("Summary: small"), ["b/LICENSE", "a/COPYING"])
    assert found(declared) == [("file", "a/COPYING"), ("file", "b/LICENSE")]
    assert declared.source == "License-File"


def test_a_wheel_that_says_nothing_is_unknown() -> None:
    assert of_metadata(metadata("Summary: small")) == Declared(licences=(), source="")


def assert_sound(declared: Declared) -> None:
    """What holds whatever was read: ids and expressions are SPDX's, names are short, an expression stands alone."""
    for licence in declared.licences:
        if licence.kind in {"id", "expression"}:
            assert canonicalize_license_expression(licence.value) == licence.value
        assert (licence.kind == "id") <= (" " not in licence.value)
        assert licence.value.strip()
    assert sum(licence.kind == "expression" for licence in declared.licences) in {0, len(declared.licences)}
    assert len({*declared.licences}) == len(declared.licences)


FIELD = st.one_of(
    st.text(),
    st.sampled_from(
        ["MIT", "UNKNOWN", "Apache-2.0 OR MIT", "GPL-2.0", "(MIT", "BSD\nBSD", "Fair", "LicenseRef-"]
    ),
    st.lists(st.sampled_from(["MIT", "OR", "AND", "WITH", "(", ")", "Apache-2.0", "x", "+"])).map(" ".join),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "license": FIELD,
            "license_expression": FIELD,
            "classifiers": st.lists(FIELD.map("License :: {}".format)),
        },
    ),
    st.lists(st.sampled_from(["LICENSE", "COPYING"]), unique=True),
)
def test_no_metadata_is_too_odd(raw: dict[str, Any], files: list[str]) -> None:
    declared = of_metadata(raw, files)
    assert_sound(declared)
    assert bool(declared.licences) == bool(declared.source)
    for licence in declared.licences:
        if licence.kind == "name":
            assert len(licence.value) <= LONGEST_NAME
            assert licence.value.isprintable()


@given(st.binary())
def test_bytes_that_are_no_metadata_give_no_error(data: bytes) -> None:
    raw, _ = parse_email(b"License: " + data)
    assert_sound(of_metadata({**raw}))


def test_licences_sort_by_how_certain_they_are() -> None:
    listed = [Licence(kind="name", value="a"), Licence(kind="id", value="z")]
    assert [licence.kind for licence in sorted(listed)] == ["id", "name"]
