"""build.py: finding Python, environments, judging test runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from anyrig.tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]


build = load_script("build")
Counts = build.Counts


# ---- Python and environments


def test_the_first_python_that_works_is_taken(tmp_path: Path):
    false = tmp_path / "python3.11"
    false.write_text("#!/bin/sh\nexit 1\n")
    false.chmod(0o755)
    assert build.find_python([["no-such-python"], [str(false)], [sys.executable]]) == [sys.executable]


def test_no_python_at_all_is_one_clear_sentence():
    with pytest.raises(build.BuildError, match=r"Python 3\.11 with its venv module was not found"):
        build.find_python([["no-such-python"]])


def test_this_python_is_a_candidate_first_and_one_from_the_path_next():
    candidates = list(build.python_candidates())
    assert candidates[:2] == [[sys.executable], ["python3.11"]]


@pytest.mark.parametrize("version", build.VERSIONS)
def test_every_environment_is_pinned(version: str):
    wanted = build.requirements(version)
    assert all("==" in requirement for requirement in wanted)
    assert any(requirement.startswith(f"bpy=={version}.") for requirement in wanted)
    assert {"torch", "scipy", "opencv-python-headless", "safetensors", "numpy", "pytest"} <= {w.split("==")[0] for w in wanted}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have run, in a repository of its own."""
    made: list[list[str]] = []

    def run(command: list[str], env: dict[str, str] | None = None) -> None:
        made.append(list(command))
        if command[-3:-1] == ["-m", "venv"]:
            python = build.environment_python(Path(command[-1]))
            python.parent.mkdir(parents=True)
            python.touch()

    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "run", run)
    monkeypatch.setattr(build, "ensure_libraries", lambda: None)
    monkeypatch.setattr(build, "check_bpy", lambda python, version: None)
    return made


def test_an_environment_is_made_once_and_again_when_its_list_changes(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    build.environment("4.5")
    assert [call[-3:-1] == ["-m", "venv"] for call in calls] == [True, False]
    assert calls[1][1:4] == ["-m", "pip", "install"] and "bpy==4.5.15" in calls[1]
    build.environment("4.5")
    assert len(calls) == 2
    monkeypatch.setattr(build, "requirements", lambda version: ["bpy==4.5.16"])
    build.environment("4.5")
    assert len(calls) == 3 and calls[2][-1] == "bpy==4.5.16"


def test_an_install_that_fails_is_tried_again(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch):
    def broken(python: Path, version: str) -> None:
        raise build.BuildError("bpy does not start")

    with monkeypatch.context() as patch:
        patch.setattr(build, "check_bpy", broken)
        with pytest.raises(build.BuildError):
            build.environment("4.5")
    build.environment("4.5")
    assert sum(call[1:4] == ["-m", "pip", "install"] for call in calls) == 2


def test_a_bpy_that_does_not_start_is_named(tmp_path: Path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libSM.so.6: cannot open' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(build.BuildError, match=r"Blender 4\.2 does not start .*libSM\.so\.6"):
        build.check_bpy(python, "4.2")


def test_missing_libraries_become_the_command_to_run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(build, "loads", lambda library: library != "libXi.so.6")
    monkeypatch.setattr(build, "found", lambda pattern: "egl_vendor" not in pattern)
    assert build.missing_packages() == ["libxi6", "libegl-mesa0"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(build.BuildError, match="sudo apt-get install -y --no-install-recommends libxi6 libegl-mesa0"):
        build.ensure_libraries()


def test_a_library_that_is_not_there_does_not_load():
    assert not build.loads("libno-such-library.so.1")
    assert not build.found("/no/such/*.json")


def test_a_command_that_fails_raises():
    with pytest.raises(build.BuildError, match="exit code 3"):
        build.run([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_shim_runs_a_module_of_the_package():
    code = [sys.executable, "-c", build.SHIM, str(ROOT), "anyrig.backend.__main__", "--help"]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "capture" in done.stdout


# ---- test runs


REPORT = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


@pytest.mark.parametrize(
    ("code", "report", "expected"),
    [
        (0, REPORT.format(5, 0, 0, 1), Counts(4, 0, 1)),
        (1, REPORT.format(5, 1, 1, 0), Counts(3, 2, 0)),
        (-11, REPORT.format(5, 0, 0, 0), Counts(5, 1, 0)),
        (5, REPORT.format(0, 0, 0, 0), Counts(0, 1, 0)),
        (0, None, Counts(0, 1, 0)),
    ],
)
def test_a_run_is_judged_by_its_report_and_by_its_exit_code(code: int, report: str | None, expected: tuple):
    assert build.judge(code, report, "tests") == expected


def run_pytest(folder: Path, source: str, start: list[str]) -> tuple:
    (folder / "test_it.py").write_text(source)
    return build.pytest(start, ["--rootdir", str(folder), "-c", os.devnull, str(folder / "test_it.py")])


def test_a_real_run_is_counted(tmp_path: Path):
    start = [sys.executable, "-m", "pytest"]
    assert run_pytest(tmp_path, "def test_a(): pass\ndef test_b(): assert 0\n", start) == Counts(1, 1, 0)


@pytest.mark.parametrize(("source", "failed"), [("a = 1\n", 0), ("a=1\n", 1), ("a = b\n", 1), ("import os\na=b\n", 2)])
def test_ruffs_rules_and_its_layout_count(source: str, failed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "it.py").write_text(source)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    assert build.lint(Path(sys.executable)) == Counts(0, failed, 0)


def test_a_run_that_dies_fails(tmp_path: Path):
    start = [sys.executable, "-m", "pytest"]
    assert run_pytest(tmp_path, "import os\ndef test_a(): os.abort()\n", start) == Counts(0, 1, 0)


def test_the_backends_tests_cannot_import_bpy(tmp_path: Path):
    start = [sys.executable, "-c", build.PYTEST_WITHOUT_BPY]
    assert run_pytest(tmp_path, "def test_a():\n    import bpy\n", start) == Counts(0, 1, 0)


# ---- the zip


def test_package_hands_its_options_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build, "environment", lambda version: Path(sys.executable))
    done = [build.main(["package", "--torch", "cpu"]), build.main(["package", "--help"])]
    assert done == [1, 0]
