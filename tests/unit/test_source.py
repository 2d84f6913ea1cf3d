from __future__ import annotations

import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from bertir.digest import Digest
from bertir.errors import PatchError, SourceError
from bertir.source import clone, patched, rebuild, upstream_url
from bertir.upstream import Mirror, Patch, Upstream, load_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.unit.conftest import Repository

    MakeRepository = Callable[[Mapping[str, bytes | Path]], Repository]
    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]

MODELING = b"".join(b"line %d\n" % number for number in range(1, 41))
FILES: dict[str, bytes | Path] = {"modeling.py": MODELING, "LICENSE": b"free\n"}
CONTENTS = {"modeling.py": MODELING, "LICENSE": b"free\n"}
# What `git hash-object` says of the same bytes; the tree id below is `git write-tree`'s.
EPOCH = 1583939994


@pytest.fixture
def repository(make_repository: MakeRepository) -> Repository:
    return make_repository(FILES)


def patch(folder: Path, text: str | bytes, name: str = "0001-it.patch") -> Patch:
    folder.mkdir(exist_ok=True)
    path = folder / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(data)
    return Patch(name=name, path=path, digest=Digest.of_bytes(data))


def diff(first: int, *lines: str, file: str = "modeling.py") -> str:
    old = sum(line[0] in " -" for line in lines)
    new = sum(line[0] in " +" for line in lines)
    head = f"diff --git a/{file} b/{file}\n--- a/{file}\n+++ b/{file}\n@@ -{first},{old} +{first},{new} @@\n"
    return head + "".join(f"{line}\n" for line in lines)


GOOD = diff(9, " line 9", "-line 10", "+line ten", " line 11")


# cloning


def test_a_clone_gives_the_files_of_the_full_commit(repository: Repository, tmp_path: Path) -> None:
    assert clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone") == CONTENTS
    url = f"file://{repository.path}"
    assert clone(url, repository.commit, repository.blobs, tmp_path / "again") == CONTENTS


def test_a_commit_that_no_branch_points_to_any_more_is_cloned_all_the_same(
    repository: Repository, tmp_path: Path
) -> None:
    (repository.path / "modeling.py").write_bytes(b"moved on\n")
    repository.git("commit", "--quiet", "--all", "--message=later")
    assert clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone") == CONTENTS


def test_a_commit_that_is_not_there_is_a_source_error(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="could not clone") as raised:
        clone(str(repository.path), "0" * 39 + "1", repository.blobs, tmp_path / "clone")
    assert "0" * 39 + "1" in str(raised.value)
    assert str(repository.path) in str(raised.value)


def test_a_branch_named_like_the_commit_has_no_say(repository: Repository, tmp_path: Path) -> None:
    (repository.path / "modeling.py").write_bytes(b"evil\n")
    repository.git("commit", "--quiet", "--all", "--message=evil")
    repository.git("update-ref", f"refs/heads/{repository.commit}", "HEAD")
    assert clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone") == CONTENTS


def test_a_tag_is_no_commit(repository: Repository, tmp_path: Path) -> None:
    repository.git("tag", "--annotate", "--message=tagged", "v1")
    tag = repository.git("rev-parse", "v1")
    assert tag != repository.commit
    with pytest.raises(SourceError):
        clone(str(repository.path), tag, repository.blobs, tmp_path / "clone")


def test_a_file_of_another_blob_id_is_refused_with_both_ids(repository: Repository, tmp_path: Path) -> None:
    pinned = dict(repository.blobs) | {"LICENSE": "0" * 40}
    with pytest.raises(SourceError, match=r"LICENSE at .* isn't the pinned file") as raised:
        clone(str(repository.path), repository.commit, pinned, tmp_path / "clone")
    assert f"expected blob {'0' * 40}" in str(raised.value)
    assert repository.blobs["LICENSE"] in str(raised.value)


def test_a_file_that_is_not_there_is_named(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no tokenization\.py at"):
        clone(str(repository.path), repository.commit, {"tokenization.py": "0" * 40}, tmp_path / "clone")


def test_a_symbolic_link_in_the_tree_is_refused(
    make_repository: MakeRepository, tmp_path: Path, root: Path
) -> None:
    linked = make_repository({"modeling.py": root / "etc" / "passwd"})
    with pytest.raises(SourceError, match=r"(?s)modeling\.py .* mode 120000"):
        clone(str(linked.path), linked.commit, linked.blobs, tmp_path / "clone")


def test_a_folder_or_a_program_in_place_of_a_file_is_refused(
    make_repository: MakeRepository, tmp_path: Path
) -> None:
    folder = make_repository({"modeling.py/inner": b"x"})
    tree = folder.git("rev-parse", "HEAD:modeling.py")
    with pytest.raises(SourceError, match="isn't the pinned file"):
        clone(str(folder.path), folder.commit, {"modeling.py": tree}, tmp_path / "clone")
    plain = make_repository(FILES)
    (plain.path / "modeling.py").chmod(0o755)
    plain.git("commit", "--quiet", "--all", "--message=a program")
    with pytest.raises(SourceError, match="mode 100755"):
        clone(str(plain.path), plain.git("rev-parse", "HEAD"), plain.blobs, tmp_path / "clone-2")


@pytest.mark.parametrize(
    "url",
    [
        "ext::sh -c 'touch RAN'",
        "ssh://git@localhost/repo",
        "git@localhost:repo",
        "http://127.0.0.1:9/repo",
        "git://127.0.0.1:9/repo",
        "--upload-pack=touch RAN",
        "-oProxyCommand=touch RAN",
        "file://host/share",
        "relative/path",
        "HTTPS://127.0.0.1:9/x",
        "",
    ],
)
def test_other_urls_are_refused_before_git_sees_them(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no git here to see anything
    with pytest.raises(SourceError, match="won't clone from") as raised:
        clone(url, "0" * 40, {}, tmp_path / "clone")
    assert "BERTIR_BERT_URL" in raised.value.advice
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["insteadOf", "pushInsteadOf"])
def test_a_rewritten_url_runs_no_program(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[url "ext::touch {tmp_path}/RAN %S "]\n  {key} = {repository.path}\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    if key == "insteadOf":
        with pytest.raises(SourceError, match="ext"):
            clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone")
    else:
        clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone")
    assert not (tmp_path / "RAN").exists()


def test_a_host_that_does_not_answer_is_a_source_error_without_a_question(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"could not clone https://127.0.0.1:9/bert at") as raised:
        clone("https://127.0.0.1:9/bert", "1" * 40, {}, tmp_path / "clone")
    assert "127.0.0.1" in str(raised.value).splitlines()[-1]


def test_a_folder_that_is_no_repository_is_a_source_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="could not clone"):
        clone(str(tmp_path / "empty"), "1" * 40, {}, tmp_path / "clone")


def test_without_git_the_error_says_how_to_get_it(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="there is no git") as raised:
        clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone")
    assert "apt-get install git" in raised.value.advice


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "https://pinned"), ({"BERTIR_BERT_URL": ""}, "https://pinned"), ({"BERTIR_BERT_URL": "/a"}, "/a")],
)
def test_the_place_to_clone_from_can_be_named(root: Path, environment: dict[str, str], expected: str) -> None:
    pinned = load_upstream(root / "patches")
    upstream = Upstream(
        url="https://pinned",
        commit=pinned.commit,
        commit_time=0,
        files={},
        mirror=pinned.mirror,
        series=(),
    )
    assert upstream_url(upstream, environment) == expected


# the machine's own settings


def everything_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_all(repository: Repository, folder: Path) -> tuple[dict[str, bytes], str, dict[str, bytes]]:
    """Clone, and patch what was cloned."""
    folder.mkdir()
    cloned = clone(str(repository.path), repository.commit, repository.blobs, folder / "clone")
    tree, files = patched(cloned, [patch(folder, GOOD)], folder / "patched")
    return cloned, tree, files


@pytest.mark.parametrize(
    "variables",
    [
        ("GIT_DIR",),
        ("GIT_DIR", "GIT_WORK_TREE"),
        ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"),
        ("GIT_INDEX_FILE",),
        ("GIT_OBJECT_DIRECTORY",),
        ("GIT_COMMON_DIR",),
        ("GIT_NAMESPACE",),
    ],
    ids="+".join,
)
def test_the_repository_whose_hook_bertir_runs_in_is_left_alone(
    repository: Repository,
    make_repository: MakeRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: tuple[str, ...],
) -> None:
    expected = run_all(repository, tmp_path / "plain")
    callers = make_repository({"modeling.py": b"the caller's own\n"})
    values = {
        "GIT_DIR": callers.path / ".git",
        "GIT_WORK_TREE": callers.path,
        "GIT_INDEX_FILE": callers.path / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": callers.path / ".git" / "objects",
        "GIT_COMMON_DIR": callers.path / ".git",
        "GIT_NAMESPACE": "theirs",
    }
    for name in variables:
        monkeypatch.setenv(name, str(values[name]))
    before = everything_under(callers.path)
    assert run_all(repository, tmp_path / "in-a-hook") == expected
    assert everything_under(callers.path) == before


@pytest.mark.parametrize(
    "settings",
    [
        "[core]\n  autocrlf = true\n",
        "[core]\n  eol = crlf\n  attributesFile = {folder}/attributes\n",
        "[apply]\n  whitespace = fix\n",
        "[init]\n  defaultObjectFormat = sha256\n",
        "[commit]\n  gpgSign = true\n[user]\n  signingKey = none\n",
    ],
)
def test_the_users_settings_do_not_change_the_bytes(
    make_repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    # Normalising ends of lines would change the second file when it is added, and the first when it is written.
    repository = make_repository(FILES | {"odd.txt": b"one\r\ntwo\r\n"})
    expected = run_all(repository, tmp_path / "plain")
    (tmp_path / "attributes").write_text("* text=auto eol=crlf ident\n")
    (tmp_path / "gitconfig").write_text(settings.format(folder=tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert run_all(repository, tmp_path / "with-settings") == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GIT_CONFIG_PARAMETERS", "'core.autocrlf=true'"),
        ("GIT_DEFAULT_HASH", "sha256"),
        ("GIT_CONFIG", "/nonexistent"),
        ("GIT_LITERAL_PATHSPECS", "1"),
        ("GIT_ICASE_PATHSPECS", "1"),
    ],
)
def test_settings_in_the_environment_do_not_change_the_bytes(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    expected = run_all(repository, tmp_path / "plain")
    monkeypatch.setenv(name, value)
    assert run_all(repository, tmp_path / "with-settings") == expected


@pytest.mark.parametrize("by", ["template", "hooks path"])
def test_the_users_hooks_are_not_run(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    hooks = tmp_path / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in (
        "reference-transaction",
        "post-checkout",
        "post-index-change",
        "post-commit",
        "applypatch-msg",
    ):
        hook = hooks / name
        hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/RAN-{name}\n")
        hook.chmod(0o755)
    line = (
        f"[init]\n  templateDir = {hooks.parent}\n"
        if by == "template"
        else f"[core]\n  hooksPath = {hooks}\n"
    )
    (tmp_path / "gitconfig").write_text(line)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hooks.parent))
    run_all(repository, tmp_path / "with-hooks")
    # The same settings do run a hook when nobody forbids it, or this test would say nothing.
    assert list(tmp_path.glob("RAN-*")) == []
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "own")], check=True)
    commit = [
        "git",
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@localhost",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        "x",
    ]
    subprocess.run(commit, cwd=tmp_path / "own", check=True)
    assert (tmp_path / "RAN-reference-transaction").exists()


def test_the_blobs_and_the_tree_are_those_that_git_computes(repository: Repository, tmp_path: Path) -> None:
    tree, _ = patched(CONTENTS, [], tmp_path / "patched")
    assert tree == repository.git("rev-parse", "HEAD^{tree}")


# patching


def test_a_patch_changes_its_lines_and_nothing_else(tmp_path: Path) -> None:
    tree, files = patched(CONTENTS, [patch(tmp_path, GOOD)], tmp_path / "patched")
    assert files == CONTENTS | {"modeling.py": MODELING.replace(b"line 10\n", b"line ten\n")}
    assert tree != patched(CONTENTS, [], tmp_path / "unpatched")[0]


def test_each_patch_fits_what_the_one_before_it_left(tmp_path: Path) -> None:
    second = diff(9, " line 9", "-line ten", "+line 10 again", " line 11")
    series = [patch(tmp_path, GOOD), patch(tmp_path, second, "0002-again.patch")]
    _, files = patched(CONTENTS, series, tmp_path / "patched")
    assert b"line 10 again\n" in files["modeling.py"]
    with pytest.raises(PatchError, match=r"0002-again\.patch does not apply"):
        patched(CONTENTS, series[::-1], tmp_path / "wrong-order")


def test_bytes_that_are_no_utf8_and_odd_ends_of_lines_come_through(tmp_path: Path) -> None:
    odd = {"modeling.py": b"\xff\xfe\r\nlast without an end"}
    assert patched(odd, [], tmp_path / "patched")[1] == odd


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (diff(9, " line 9", "-line X", "+line ten", " line 11"), "does not apply"),
        (diff(9, " line 8", "-line 10", "+line ten", " line 11"), "does not apply"),
        (diff(6, " line 9", "-line 10", "+line ten", " line 11"), "at other lines than it names"),
        (diff(10, " line 9", "-line 10", "+line ten", " line 11"), "at other lines than it names"),
        (GOOD[:-10], "does not apply"),
        ("", "does not apply"),
        ("Subject: only words\n", "does not apply"),
        (diff(1, "-secret", "+x", file="../outside.py"), "does not apply|touches"),
        (diff(1, "-secret", "+x", file=".git/config"), "does not apply|touches"),
        (diff(1, "-other", "+x", file="other.py"), r"touches 'other\.py'"),
        (diff(1, "-other", "+x", file="sub/modeling.py"), r"touches 'sub/modeling\.py'"),
        (
            "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x\n",
            "creates, removes",
        ),
        (
            "diff --git a/LICENSE b/LICENSE\ndeleted file mode 100644\n--- a/LICENSE\n+++ /dev/null\n@@ -1 +0,0 @@\n-free\n",
            "creates, removes",
        ),
        (
            "diff --git a/LICENSE b/modeling2.py\nsimilarity index 100%\nrename from LICENSE\nrename to modeling2.py\n",
            "creates, removes, renames",
        ),
        (
            "diff --git a/LICENSE b/modeling2.py\nsimilarity index 100%\ncopy from LICENSE\ncopy to modeling2.py\n",
            "creates, removes, renames",
        ),
        ("diff --git a/LICENSE b/LICENSE\nold mode 100644\nnew mode 100755\n", "changes a mode"),
        ("diff --git a/LICENSE b/LICENSE\nold mode 100644\nnew mode 120000\n", "changes a mode"),
        (GOOD + "diff --git a/LICENSE b/LICENSE\nold mode 100644\nnew mode 100755\n", "changes a mode"),
    ],
    ids=[
        "other line",
        "other context",
        "earlier place",
        "later place",
        "cut",
        "empty",
        "no diff",
        "outside",
        "git's own",
        "another file",
        "another folder",
        "new file",
        "deleted file",
        "rename",
        "copy",
        "mode",
        "link",
        "diff and mode",
    ],
)
def test_what_a_patch_may_not_do_is_refused_by_its_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PatchError, match=message) as raised:
        patched(CONTENTS, [patch(tmp_path, text)], tmp_path / "patched")
    assert "0001-it.patch" in str(raised.value)
    assert not (tmp_path / "outside.py").exists()


def test_a_binary_patch_is_refused(repository: Repository, tmp_path: Path) -> None:
    (repository.path / "LICENSE").write_bytes(b"\0\1\2" * 50)
    repository.git("commit", "--quiet", "--all", "--message=binary")
    text = repository.git("diff", "--binary", "HEAD~", "HEAD") + "\n\n"
    assert "GIT binary patch" in text
    with pytest.raises(PatchError, match="binary"):
        patched(CONTENTS, [patch(tmp_path, text)], tmp_path / "patched")


def test_a_patch_without_context_is_refused(repository: Repository, tmp_path: Path) -> None:
    (repository.path / "modeling.py").write_bytes(MODELING.replace(b"line 10\n", b"line ten\n"))
    text = repository.git("diff", "-U0") + "\n"
    with pytest.raises(PatchError, match="does not apply"):
        patched(CONTENTS, [patch(tmp_path, text)], tmp_path / "patched")


def test_a_patch_named_like_an_option_is_a_file(tmp_path: Path) -> None:
    odd = patch(tmp_path, GOOD, "--reverse.patch")
    _, files = patched(CONTENTS, [odd], tmp_path / "patched")
    assert b"line ten\n" in files["modeling.py"]


# the mirror


def mirror(wheel: Path, *series: Patch, members: Mapping[str, str] | None = None) -> Mirror:
    return Mirror(
        name="bert-mirror",
        version="1.0",
        digest=Digest.of_file(wheel),
        members=members or {"modeling.py": "bert/modeling.py", "LICENSE": "LICENSE"},
        series=series,
    )


OLDER = MODELING.replace(b"line 10\n", b"line X\n")
TO_PINNED = diff(9, " line 9", "-line X", "+line 10", " line 11")


def test_a_mirror_gives_the_same_files_by_the_same_code(
    repository: Repository, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "bert-mirror", "1.0", {"bert/modeling.py": OLDER, "LICENSE": b"free\n"})
    pinned = mirror(wheel, patch(tmp_path, TO_PINNED))
    commit = rebuild(pinned, wheel, repository.blobs, EPOCH, tmp_path / "mirror")
    assert clone(str(tmp_path / "mirror"), commit, repository.blobs, tmp_path / "clone") == CONTENTS
    # Its own commit follows from the files alone: not from the user, the time or the machine.
    assert rebuild(pinned, wheel, repository.blobs, EPOCH, tmp_path / "again") == commit


def test_a_mirror_whose_file_is_another_is_refused_with_both_ids(
    repository: Repository, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "bert-mirror", "1.0", {"bert/modeling.py": OLDER, "LICENSE": b"free\n"})
    with pytest.raises(
        SourceError, match=r"bert-mirror 1\.0: modeling\.py isn't the pinned commit's"
    ) as raised:
        rebuild(mirror(wheel), wheel, repository.blobs, EPOCH, tmp_path / "mirror")
    assert repository.blobs["modeling.py"] in str(raised.value)


def test_a_mirror_whose_patch_does_not_apply_is_a_patch_error(
    repository: Repository, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "bert-mirror", "1.0", {"bert/modeling.py": MODELING, "LICENSE": b"free\n"})
    with pytest.raises(PatchError, match=r"0001-it\.patch does not apply"):
        rebuild(
            mirror(wheel, patch(tmp_path, TO_PINNED)), wheel, repository.blobs, EPOCH, tmp_path / "mirror"
        )


def test_a_member_that_the_wheel_lacks_is_named(
    repository: Repository, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path, "bert-mirror", "1.0", {"LICENSE": b"free\n"})
    with pytest.raises(SourceError, match=r"the wheel has no bert/modeling.py"):
        rebuild(mirror(wheel), wheel, repository.blobs, EPOCH, tmp_path / "mirror")


@pytest.mark.parametrize("damage", ["no zip", "cut", "deflate", "crc", "encrypted", "method"])
def test_a_wheel_that_can_not_be_read_is_a_source_error(
    repository: Repository, tmp_path: Path, damage: str
) -> None:
    wheel = damaged_zip(tmp_path / "w.whl", {"bert/modeling.py": OLDER, "LICENSE": b"free\n"}, damage)
    with pytest.raises(SourceError, match="wheel"):
        rebuild(mirror(wheel), wheel, repository.blobs, EPOCH, tmp_path / "mirror")


def test_a_member_too_large_for_a_source_file_is_not_read(
    repository: Repository, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    bomb = {"bert/modeling.py": b"\0" * (5 << 20), "LICENSE": b"free\n"}
    wheel = make_wheel(tmp_path, "bert-mirror", "1.0", bomb)
    assert wheel.stat().st_size < 100_000
    with pytest.raises(SourceError, match="larger than any source file"):
        rebuild(mirror(wheel), wheel, repository.blobs, EPOCH, tmp_path / "mirror")


def damaged_zip(path: Path, files: Mapping[str, bytes], damage: str) -> Path:
    """A zip whose first member can't be read, each time for another reason."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        first = archive.infolist()[0]
        place = first.header_offset + 30 + len(first.filename)
    data = bytearray(path.read_bytes())
    if damage == "no zip":
        data[:] = b"not a zip"
    elif damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "deflate":
        data[place : place + 4] = b"\xff\xff\xff\xff"
    elif damage == "crc":
        directory = data.index(b"PK\x01\x02")
        data[directory + 16 : directory + 20] = b"\0\0\0\0"
    elif damage == "encrypted":
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    elif damage == "method":
        data[8] = 99
        data[data.index(b"PK\x01\x02") + 10] = 99
    path.write_bytes(data)
    return path


# the project's own patches


def test_each_patch_of_the_project_says_why_it_exists(root: Path) -> None:
    upstream = load_upstream(root / "patches")
    for item in (*upstream.series, *upstream.mirror.series):
        head, marker, _ = item.path.read_text(encoding="utf-8").partition("\n---\n")
        assert marker, item.name
        subject, blank, *reason = head.splitlines()
        assert subject.startswith("Subject: "), item.name
        assert blank == "", item.name
        assert len(" ".join(reason)) > 60, item.name


def test_the_patches_of_the_project_touch_only_pinned_files_and_follow_each_other(root: Path) -> None:
    """Each index line names the blob that a patch starts from: the pinned one, or the one before it left."""
    upstream = load_upstream(root / "patches")
    for series, start in (
        (upstream.series, dict(upstream.files)),
        (upstream.mirror.series, None),
    ):
        at = dict(start or {})
        for item in series:
            name = ""
            for line in item.path.read_text(encoding="utf-8").splitlines():
                if line.startswith("diff --git "):
                    name = line.split(" b/")[1]
                    assert name in upstream.files, item.name
                if line.startswith("index "):
                    before, _, after = line.split()[1].partition("..")
                    if start is not None:
                        assert at[name] == before, f"{item.name}: {name}"
                    at[name] = after
        if start is None:
            assert {name: upstream.files[name] for name in at} == at
