"""The documentation: links, quoted sentences, the headings that the code cites. Needs neither bpy nor torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = sorted(path for folder in ("addon", "backend") for path in (ROOT / folder).rglob("*.py"))
LONGEST_README = 150
HOLE = "\0"  # a part of a string that is only known at run time
FIXED = 12  # letters that a string needs outside its holes, or it would match any sentence
QUOTE = "> "


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- Markdown


def without_code(text: str) -> str:
    """The page without code blocks and code spans, whose brackets are no links and whose # begin no headings."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL))


def links(text: str) -> list[str]:
    """Targets of links and pictures, those to other sites left out."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [target for target in found if not re.match(r"\w+:", target)]


@cache
def headings(page: Path) -> tuple[str, ...]:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return tuple(re.findall(r"^#+ (.+?) *$", text, flags=re.MULTILINE))


def anchor_of(heading: str) -> str:
    """The heading as an address, by GitHub's rule: lower case, no punctuation but hyphens, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def flaw_of_link(page: Path, target: str) -> str:
    """Why a link leads nowhere; '' if it leads somewhere."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(ROOT) or not file.exists():
        return f"{name_of(page)}: '{target}' does not exist"
    if anchor and anchor not in map(anchor_of, headings(file)):
        return f"{name_of(page)}: '{target}' names no heading of that page"
    return ""


def files(text: str) -> list[str]:
    """Files and folders of the repository that a page names in code spans."""
    return re.findall(r"`((?:addon|backend|docs|tests)/[\w/.-]*)`", text)


def quotes(text: str) -> list[str]:
    """The sentences of the program that a page quotes: each line of a block quote is one."""
    return [line.removeprefix(QUOTE).strip() for line in text.splitlines() if line.startswith(QUOTE)]


# ---- the code


def text_of(node: ast.expr) -> str:
    """A string, an f-string or a sum of them, with HOLE for what is only known at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return HOLE


def strings(source: str) -> Iterator[str]:
    """All strings of a source with enough fixed text."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
            text = text_of(node)
            if sum(map(str.isalpha, text)) >= FIXED:
                yield text


def pattern_of(text: str) -> re.Pattern[str]:
    """What a string may say at run time."""
    return re.compile("(.+?)".join(map(re.escape, re.split(f"{HOLE}+", text))), re.DOTALL)


@cache
def patterns() -> tuple[re.Pattern[str], ...]:
    return tuple({pattern_of(text) for path in CODE for text in strings(path.read_text(encoding="utf-8"))})


def is_said(sentence: str, known: Iterable[re.Pattern[str]]) -> bool:
    return any(pattern.fullmatch(sentence) for pattern in known)


def cited(source: str) -> list[tuple[str, str]]:
    """The pages of docs/ that a source names, each with the text after its comma, which may go on in the next line of a comment."""
    return re.findall(r"docs/([\w-]+\.md)(?:, (.{1,80}))?", re.sub(r"\s*\n[ \t]*#?\s*|\s+", " ", source))


def flaw_of_citation(page: str, after: str) -> str:
    """Why a citation is wrong, or ''. What follows the comma is a heading if it begins with a capital."""
    path = ROOT / "docs" / page
    if not path.is_file():
        return f"docs/{page} does not exist"
    if after[:1].isupper() and not any(after.startswith(heading) for heading in headings(path)):
        return f"docs/{page} has no heading that '{after[:40]}' begins with"
    return ""


# ---- tests


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_pictures_exist(page: Path) -> None:
    flaws = [flaw_of_link(page, target) for target in links(page.read_text(encoding="utf-8"))]
    assert not list(filter(None, flaws))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page: Path) -> None:
    assert not [file for file in files(page.read_text(encoding="utf-8")) if not (ROOT / file).exists()]


@pytest.mark.parametrize("sentence", quotes((ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")))
def test_quoted_sentences_are_the_programs(sentence: str) -> None:
    if not is_said(sentence, patterns()):  # an assert would print every pattern
        pytest.fail(f"docs/troubleshooting.md quotes a sentence that no string of the code can give: {sentence}")


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_cited_headings_exist(path: Path) -> None:
    assert not list(filter(None, (flaw_of_citation(*each) for each in cited(path.read_text(encoding="utf-8")))))


def test_the_checks_see_what_they_look_for() -> None:
    source = (
        'raise UserError(f"Bone \'{name}\' is odd" + (more if more else "") + f" ({error}): mend " "it.")\nx = f"{a}: {b}"\n'
        "# as docs/network.md, Attention\n#   blocks say\n"
    )
    known = [pattern_of(text) for text in strings(source)]
    assert is_said("Bone 'Shin.L' is odd, very (bent): mend it.", known)
    assert not is_said("Bone 'Shin.L' is odd (bent): throw it away.", known)
    assert cited(source) == [("network.md", "Attention blocks say ")]
    assert not flaw_of_citation("network.md", "Attention blocks say ") and flaw_of_citation("network.md", "Attention of sorts")
    assert flaw_of_citation("nothing.md", "") and not flaw_of_citation("network.md", "and others")
    assert links("[a](b.md#c) ![d](e/f.jpg) [g](https://h) `[i](j)`") == ["b.md#c", "e/f.jpg"]
    assert anchor_of("Training and the data set's layout") == "training-and-the-data-sets-layout"
    assert files("`addon/rig/` and `tests/test_docs.py`, not `python3 build.py` or docs/a.md") == [
        "addon/rig/",
        "tests/test_docs.py",
    ]
    assert quotes("> Bone.\ntext\n\n> Frame.\n") == ["Bone.", "Frame."]
