"""Every relative link, anchor, image and path that the documents name leads somewhere."""

import itertools
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

# A path of the tree in backquotes or in running text: `edge_agent/app.py`, docs/training.md.
_PATH = re.compile(
    r"(?<![\w/.-])((?:edge_agent|coordinator|trainer|firmware_images|systemd|tests|benchmarks|docs)/[\w./-]*\w)(?![\w*<{])"
)


def documents(repository: Path) -> list[Path]:
    tops = [repository / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*tops, *sorted((repository / "docs").rglob("*.md"))]


def tokens(text: str) -> list[Token]:
    """Blocks and what is in them, in one list."""
    found: list[Token] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        found += [token, *(token.children or [])]
    return found


def anchors(text: str) -> set[str]:
    """Ids that GitHub gives to the headings."""
    seen: Counter[str] = Counter()
    result = set()
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    for heading, inline in itertools.pairwise(blocks):
        if heading.type == "heading_open":
            words = "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            result.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
            seen[slug] += 1
    return result


def broken_links(page: Path, repository: Path, tracked: set[Path] | None) -> list[str]:
    """Links and images of one page that lead nowhere, or out of the repository, or to a file that git does not know."""
    broken = []
    for token in tokens(page.read_text(encoding="utf-8")):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if not target or re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(repository):
            broken.append(f"{target}: nothing there")
        elif tracked is not None and path.is_file() and path not in tracked:
            broken.append(f"{target}: not in git")
        elif anchor and (path.suffix != ".md" or anchor not in anchors(path.read_text(encoding="utf-8"))):
            broken.append(f"{target}: no such heading")
    return broken


@pytest.fixture(scope="module")
def tracked(repository: Path) -> set[Path] | None:
    """What git knows; None outside a clone."""
    if shutil.which("git") is None or not (repository / ".git").exists():
        return None
    # Added but not yet committed counts too: documents and what they name are committed together.
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    return {(repository / name).resolve() for name in listed.stdout.split("\0") if name}


def test_links_lead_somewhere(repository: Path, tracked: set[Path] | None) -> None:
    repository = repository.resolve()
    broken = {
        str(page.relative_to(repository)): broken_links(page, repository, tracked) for page in documents(repository)
    }
    assert {page: links for page, links in broken.items() if links} == {}


def is_there(name: str, repository: Path) -> bool:
    """Whether a path leads somewhere; benchmarks/fleet and docs/decisions/0004 lack an end, systemd/UNIT is any."""
    last = name.rsplit("/", 1)[-1]
    if "." in last:
        return (repository / name).exists()
    return last.isupper() or any(repository.glob(f"{name}*"))


def test_paths_in_the_documents_exist(repository: Path) -> None:
    missing = [
        f"{page.relative_to(repository)}: {name}"
        for page in documents(repository)
        for token in tokens(page.read_text(encoding="utf-8"))
        if token.type in ("text", "code_inline")
        for name in _PATH.findall(token.content)
        if not is_there(name, repository)
    ]
    assert missing == []


def test_the_architecture_page_names_each_package_and_both_ways(repository: Path) -> None:
    text = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(_PATH.findall(text))
    assert len(named) > 60
    for package in ("edge_agent", "coordinator", "trainer", "firmware_images"):
        assert any(name.startswith(f"{package}/") for name in named), package
    assert {f"trainer/stages/{path.name}" for path in (repository / "trainer/stages").glob("[a-z]*.py")} <= named
    assert "(images/architecture.svg)" in text


def test_every_module_has_a_place_on_the_architecture_page(repository: Path) -> None:
    text = (repository / "docs/architecture.md").read_text(encoding="utf-8")
    placed, folder = set(_PATH.findall(text)), ""
    for word in re.findall(r"`([a-z0-9_/]+)`", text.partition("## Every other module")[2].partition("## ")[0]):
        if word.endswith("/"):
            folder = word
        else:
            placed.add(f"{folder}{word}.py")
            assert (repository / f"{folder}{word}.py").is_file(), f"{folder}{word}.py"
    packages = ("edge_agent", "coordinator", "trainer")
    modules = {
        str(path.relative_to(repository)) for name in packages for path in (repository / name).rglob("[a-z]*.py")
    }
    assert modules - placed == set()


def test_the_map_and_the_site_name_every_page(repository: Path) -> None:
    site = (repository / ".ci/site/conf.py").read_text(encoding="utf-8")
    page_map = (repository / "docs/README.md").read_text(encoding="utf-8")
    for page in (repository / "docs").glob("*.md"):
        assert f'"docs/{page.stem}"' in site, page.name
        assert page.name == "README.md" or f"({page.name})" in page_map, page.name


def test_the_checker_finds_what_is_broken(tmp_path: Path, repository: Path) -> None:
    assert _PATH.findall("see `edge_agent/gone.py`, docs/training.md.") == ["edge_agent/gone.py", "docs/training.md"]
    names = ("edge_agent/gone.py", "docs/training.md", "docs/decisions/0004", "tests/gone", "edge_agent/mailbox.p")
    assert [is_there(name, repository) for name in names] == [False, True, True, False, False]
    (tmp_path / "there.md").write_text("# One `two`, three\n\n## Again\n\n## Again\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md) [b](there.md#one-two-three) [c](there.md#again-1) [d](https://example.org/x)\n"
        "[e](gone.md) [f](there.md#four) [g](../outside.md) ![h](gone.svg) `[i](code.md)`\n"
    )
    found = broken_links(page, tmp_path, None)
    assert [line.split(":")[0] for line in found] == ["gone.md", "there.md#four", "../outside.md", "gone.svg"]
    assert broken_links(page, tmp_path, {page})[0] == "there.md: not in git"
