"""The Flamenco job type: it parses, makes the tasks it should, and its command runs the jobs it names."""

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import esprima
import pytest
from anyrig.addon.batch import run_jobs_file
from anyrig.addon.command_line import commands

SOURCE = run_jobs_file.FLAMENCO.read_text(encoding="utf-8")
# What the Manager gives to a job type (flamenco.blender.org/usage/job-types), as far as this one uses it
MANAGER = """
const author = {
    Task: (name, type) => ({name, type, commands: [], addCommand(command) { this.commands.push(command); }}),
    Command: (name, parameters) => ({name, parameters}),
};
function frameChunker(range, size) {
    const numbers = range.split(",").flatMap((part) => {
        const [first, last] = part.split("-").map(Number);
        return Array.from({length: (last || first) - first + 1}, (_, index) => first + index);
    });
    const chunks = [];
    for (let start = 0; start < numbers.length; start += size) {
        chunks.push(numbers.slice(start, start + size).join(","));
    }
    return chunks;
}
"""
ENDING = """
const tasks = [];
compileJob({settings: SETTINGS, addTask: (task) => tasks.push(task)});
console.log(JSON.stringify({type: JOB_TYPE, tasks: tasks}));
"""
NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed; that it parses is tested anyway")


pytestmark = pytest.mark.usefixtures("registered")


def compiled(**settings: Any) -> dict[str, Any]:
    """The job type, and the tasks that it makes of these settings."""
    code = MANAGER + SOURCE + ENDING.replace("SETTINGS", json.dumps(settings))
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def defaults(**values: Any) -> dict[str, Any]:
    return {"jobs_file": "//jobs.json", "jobs_path": "/show/jobs.json", "jobs": "1-5", "chunk_size": 2, "resume": True} | {
        "blendfile": "/show/scene.blend",
        **values,
    }


def test_it_parses_and_has_what_flamenco_looks_for() -> None:
    found = {node.id.name: node.type for node in esprima.parseScript(SOURCE).body if node.type == "FunctionDeclaration"}
    constants = [each.id.name for node in esprima.parseScript(SOURCE).body for each in node.declarations or []]
    assert "compileJob" in found and constants == ["JOB_TYPE"]
    with pytest.raises(esprima.Error):
        esprima.parseScript(SOURCE.replace("};", "}}", 1))


@NEEDS_NODE
def test_settings_are_those_of_the_manager() -> None:
    """Types, visibilities and subtypes as in Flamenco's API; a default or an expression for each that the user need not fill in."""
    for setting in compiled(**defaults())["type"]["settings"]:
        assert setting["type"] in ("string", "int32", "float", "bool") and setting["description"]
        assert setting.get("visible", "visible") in ("visible", "hidden", "submission", "web")
        assert setting.get("subtype", "file_path") in ("file_path", "dir_path", "file_name", "hashed_file_path")


@NEEDS_NODE
def test_jobs_are_spread_over_tasks() -> None:
    tasks = compiled(**defaults())["tasks"]
    assert [task["name"] for task in tasks] == ["jobs-1,2", "jobs-3,4", "jobs-5"] and {task["type"] for task in tasks} == {
        "blender"
    }
    (started,) = tasks[1]["commands"]
    assert started == {
        "name": "blender-render",
        "parameters": {
            "exe": "{blender}",
            "exeArgs": "{blenderArgs}",
            "argsBefore": [],
            "blendfile": "/show/scene.blend",
            "args": ["--command", "anyrig", "batch", "/show/jobs.json", "--job", "3,4", "--resume"],
        },
    }
    again = compiled(**defaults(resume=False))["tasks"][0]["commands"][0]
    assert again["parameters"]["args"][-2:] == ["--job", "1,2"]


def evaluated(key: str, jobs_file: str) -> str:
    """A setting's expression, evaluated as Flamenco's add-on does."""
    setting = next(each for each in compiled(**defaults())["type"]["settings"] if each["key"] == key)
    known = {"Path": Path, "abspath": Path, "settings": SimpleNamespace(jobs_file=jobs_file)}
    return eval(setting["eval"], {}, known)


@NEEDS_NODE
def test_the_number_of_jobs_is_found(tmp_path: Path) -> None:
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({"jobs": [{}] * 7}))
    assert evaluated("jobs", str(path)) == "1-7" and evaluated("jobs_path", str(path)) == str(path)
    assert evaluated("jobs", "") == "" and evaluated("jobs", str(tmp_path / "none.json")) == ""


@NEEDS_NODE
def test_the_command_runs_the_jobs_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "jobs.json"
    jobs = [{"file": "a.blend", "video": f"{number}.mp4", "outputs": [f"{number}.bvh"]} for number in range(3)]
    path.write_text(json.dumps({"jobs": jobs}))
    tasks = compiled(**defaults(jobs_path=str(path), jobs="1-3"))["tasks"]
    arguments = [task["commands"][0]["parameters"]["args"] for task in tasks]
    assert [each[:2] for each in arguments] == [["--command", commands.ID]] * 2
    assert commands.main(arguments[0][2:]) == 1 and commands.main(arguments[1][2:]) == 1, "the videos are missing"
    out = capsys.readouterr().out
    assert [number for number in (1, 2, 3) if f"Job {number} (a-{number - 1})" in out] == [1, 2, 3]
    assert "2 jobs: 0 done, 2 failed, 0 done before" in out and "1 job: 0 done, 1 failed, 0 done before" in out


def test_it_is_saved_where_the_manager_finds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["batch", "--flamenco", str(tmp_path)]) == 0
    assert (tmp_path / "anyrig_batch.js").read_text(encoding="utf-8") == SOURCE and "anyrig_batch.js" in capsys.readouterr().out
    assert commands.main(["batch", "--flamenco", str(tmp_path / "no" / "folder")]) == 1
    assert "choose a folder that exists" in capsys.readouterr().err
