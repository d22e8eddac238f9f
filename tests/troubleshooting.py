"""The page of all error sentences, read from the source: `python tests/troubleshooting.py` writes it anew."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "addon" / "docs" / "troubleshooting.md"
# where a sentence comes up, in the order in which a user meets them; all other modules are about using the add-on
PARTS = {
    "In Blender": "addon/",
    "Videos, rigs and models": "backend/",
    "Training and measuring": "backend/train/",
}
HEAD = """# Troubleshooting

Every error sentence of AnyRig, and what helps. Words in *italics* stand for your own names and numbers. In Blender the sentence is at
the foot of the AnyRig tab; without a window it follows `Error:`. Made from the source by `python tests/troubleshooting.py`.
"""


def sentences(source: str) -> Iterator[str]:
    """What the source's UserErrors say, as Markdown, in its order; not those that pass another's sentence on."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError" and node.args:
            text = _text(node.args[0], constants)
            if re.search(r"\w+ \w+", re.sub(r"\*[^*]*\*", "", text)):
                yield text


def _text(node: ast.expr, constants: dict[str, ast.Constant]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value).replace("|", r"\|").replace("*", r"\*").replace("<", r"\<")
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, constants) for value in node.values)
    if isinstance(node, ast.FormattedValue):
        known = constants.get(node.value.id) if isinstance(node.value, ast.Name) else None
        return _text(known, constants) if known else f"*{_word(node.value)}*"
    if isinstance(node, ast.BinOp):
        return _text(node.left, constants) + _text(node.right, constants)
    return ""


def _word(node: ast.expr) -> str:
    """One word for what is put into a sentence: the outermost name in the expression that says what it is."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return (
                "number"
                if node.func.id in ("len", "max", "min", "sum", "round")
                else _word(node.args[0] if node.args else node.func)
            )
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("strip", "join", "get"):
            return _word(node.args[0] if node.func.attr != "strip" and node.args else node.func.value)
    parts = (part for part in ast.walk(node) if isinstance(part, ast.Attribute | ast.Name))
    names = [part.attr if isinstance(part, ast.Attribute) else part.id for part in parts]
    return (names[0] if names else "value").strip("_").replace("_", " ").lower()


def parted(sentence: str) -> tuple[str, str]:
    """What is wrong, and the remedy, which stands behind the last colon; '' if the sentence has none."""
    wrong, colon, remedy = sentence.rpartition(": ")
    return (wrong, remedy[:1].upper() + remedy[1:]) if colon else (sentence, "")


def page() -> str:
    """The whole page as Markdown."""
    lines = [HEAD]
    for title, folder in PARTS.items():
        inner = [other for other in PARTS.values() if other != folder and other.startswith(folder)]
        files = [path for path in sorted((ROOT / folder).rglob("*.py")) if not any(_under(path, other) for other in inner)]
        found = sorted({sentence for path in files for sentence in sentences(path.read_text(encoding="utf-8"))}, key=str.lower)
        lines += [f"## {title}\n", "| message | what helps |", "|---|---|"]
        lines += [f"| {wrong} | {remedy} |" for wrong, remedy in map(parted, found)]
        lines.append("")
    return "\n".join(lines)


def _under(path: Path, folder: str) -> bool:
    return path.is_relative_to(ROOT / folder)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
