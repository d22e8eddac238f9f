"""What the two halves may import, and what neither may do, read from the source itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BACKEND = sorted((ROOT / "backend").rglob("*.py"))
ADDON = sorted((ROOT / "addon").rglob("*.py"))
BLENDER = {"bpy", "mathutils", "bmesh", "gpu", "gpu_extras", "bpy_extras", "bl_math", "addon_utils", "rna_prop_ui"}
NUMPY_ONLY = (
    "arrays", "errors", "capture_settings", "geometry.rotations", "geometry.camera", "rig.rig", "rig.skeleton", "rig.point_cloud", "video.clip",
    "motion.motion", "motion.bvh", "segmentation.isnet_files", "train.evaluation.metrics",
)  # fmt: skip
BROAD = {"Exception", "BaseException"}
LONGEST_FUNCTION = 50  # lines


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that importing the module runs: not the bodies of functions, not what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if is_type_checking(child):
            yield from (inner for other in child.orelse for inner in (other, *run_at_import(other)))
            continue
        yield child
        yield from run_at_import(child)


def imports(nodes: Iterator[ast.AST], path: Path) -> Iterator[str]:
    """Dotted names of what is imported; relative ones become `anyrig.folder.module`."""
    here = ("anyrig", *path.relative_to(ROOT).with_suffix("").parts)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) - node.level]] if node.level else []
            base += (node.module or "").split(".") if node.module else []
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)


@cache
def file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def imported_at_once(path: Path) -> frozenset[str]:
    """What running this module's own lines imports."""
    return frozenset(imports(run_at_import(tree_of(path)), path))


@cache
def loaded_by(path: Path) -> set[str]:
    """Everything that importing this module imports, through our own modules too."""
    seen: set[str] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        for module in imported_at_once(current) - seen:
            seen.add(module)
            parts = module.split(".")
            packages = [".".join(parts[: i + 1]) for i in range(1, len(parts))] if parts[0] == "anyrig" else []
            todo += [file for file in map(file_of, packages) if file is not None]
    return seen


def top_names(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize("path", BACKEND, ids=name_of)
def test_the_backend_never_imports_blender(path: Path):
    every = set(imports(ast.walk(tree_of(path)), path))
    assert not top_names(every) & BLENDER
    assert not any(module.startswith("anyrig.addon") for module in every)


@pytest.mark.parametrize("path", ADDON, ids=name_of)
def test_importing_the_addon_never_imports_torch(path: Path):
    direct = top_names(set(imported_at_once(path)))
    assert "torch" not in direct
    through = {module for module in loaded_by(path) if module.split(".")[0] in ("torch", "torchvision")}
    culprits = [module for module in loaded_by(path) if (file := file_of(module)) and "torch" in top_names(loaded_by(file))]
    assert not through, f"torch is loaded by {culprits}: import them inside functions"


@pytest.mark.parametrize(
    "path", [p for p in BACKEND + ADDON if p.stem not in ("__main__", "cli", "commands", "console", "progress")], ids=name_of
)
def test_only_command_lines_print(path: Path):
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not lines, f"print on lines {lines}"


@pytest.mark.parametrize("path", [p for p in BACKEND + ADDON if name_of(p) != "addon/tasks/task.py"], ids=name_of)
def test_only_the_job_catches_everything(path: Path):
    """A handler that undoes something and raises again swallows nothing, so it may catch all."""
    lines = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue
            caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)} if node.type else BROAD
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = {part.id for argument in node.args for part in ast.walk(argument) if isinstance(part, ast.Name)}
        else:
            continue
        lines += [node.lineno] if caught & BROAD else []
    assert not lines, f"a broad except on lines {lines}"


@pytest.mark.parametrize("path", BACKEND + ADDON, ids=name_of)
def test_opencv_opens_no_images(path: Path):
    """On Windows it does not find those whose names, or whose user's name, are outside the code page: see image_sequence.decode_image."""
    found = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert not found & {"imread", "imwrite", "imreadmulti", "imwritemulti"}


@pytest.mark.parametrize("path", BACKEND + ADDON, ids=name_of)
def test_our_own_modules_are_imported_relatively(path: Path):
    """The extension's package has another name in every repository, so only relative imports find it."""
    absolute = {node.module for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom) and not node.level}
    absolute |= {alias.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.Import) for alias in node.names}
    assert not {module for module in absolute if module and module.split(".")[0] in ("anyrig", "backend", "addon")}


def untyped(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Its parameters without a type, and "return" if what it returns has none."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    names = [each.arg for each in every if each.annotation is None and each.arg not in ("self", "cls")]
    return names + ["return"] * (function.returns is None)


@pytest.mark.parametrize("path", BACKEND + ADDON, ids=name_of)
def test_every_function_is_typed(path: Path):
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert not {f"{each.name}, line {each.lineno}": found for each in functions if (found := untyped(each))}


@pytest.mark.parametrize("path", BACKEND + ADDON, ids=name_of)
def test_functions_are_short(path: Path):
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {f"{each.name}, line {each.lineno}": (each.end_lineno or each.lineno) - each.lineno + 1 for each in functions}
    assert not {name: count for name, count in lines.items() if count > LONGEST_FUNCTION}


BLOCKED = """
import importlib.util, sys
from importlib.machinery import ModuleSpec

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
spec = ModuleSpec("anyrig", None, is_package=True)
spec.submodule_search_locations = [{root!r}]
sys.modules["anyrig"] = importlib.util.module_from_spec(spec)
for module in {modules!r}:
    importlib.import_module("anyrig.backend." + module)
"""


def run_blocked(blocked: set[str], modules: tuple[str, ...], then: str = "") -> subprocess.CompletedProcess[str]:
    """Import the modules of the backend, and run the lines `then`, in a Python that has none of the `blocked` packages."""
    code = BLOCKED.format(blocked=blocked, root=str(ROOT), modules=modules) + then
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_the_values_need_neither_blender_nor_torch():
    done = run_blocked(BLENDER | {"torch"}, NUMPY_ONLY)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks():
    done = run_blocked({"numpy"}, ("geometry.rotations",))
    assert done.returncode != 0 and "numpy is blocked" in done.stderr


def test_the_checks_see_what_they_look_for():
    (function,) = ast.parse("def f(self, a: int, /, b, *c: int, d, **e): ...").body
    assert isinstance(function, ast.FunctionDef) and untyped(function) == ["b", "d", "e", "return"]
    source = "import torch.nn\nif TYPE_CHECKING:\n    import bpy\ndef f():\n    import cv2\nclass A:\n    from ..rig import Rig\n"
    found = set(imports(run_at_import(ast.parse(source)), ROOT / "backend" / "train" / "x.py"))
    assert found == {"torch.nn", "anyrig.backend.rig", "anyrig.backend.rig.Rig"}
    assert "torch" in top_names(loaded_by(ROOT / "backend" / "model" / "network.py"))
