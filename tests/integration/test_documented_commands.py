"""Every command that a page shows is typed, page by page, in one shell in a clone, and says what the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkout import ROOT
from documented import commands, given, name_of, pages
from hand import clone, is_kept
from not_typed import ELSEWHERE, NEVER
from typing_in import type_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

# Typed by test_tutorial.py, which looks at what they leave.
TUTORIAL = "docs/tutorial.md"
PAGES = {
    name_of(page): typed
    for page in pages()
    if name_of(page) != TUTORIAL
    and (typed := [one for one in commands(page) if one.command not in {**ELSEWHERE, **NEVER}])
}


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_do_what_it_says(
    name: str, engine_environment: dict[str, str], store_root: Path, tmp_path: Path
) -> None:
    del engine_environment  # asked for, so that there is an engine
    with clone(tmp_path, store_root, given(ROOT / name)) as made:
        ended = type_in(PAGES[name], made.root, made.environment)
        assert [one.objection for one in ended if one.objection] == []
        assert is_kept(made.root)
