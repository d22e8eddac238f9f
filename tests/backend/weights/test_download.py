"""Downloads from a local server that drops connections, lies about sizes, serves garbage and redirects."""

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyrig.backend.cli import main
from anyrig.backend.errors import UserError
from anyrig.backend.progress import result_of, size_text
from anyrig.backend.weights import http_download as module
from anyrig.backend.weights.fetch import fetch_files, use_local_files
from anyrig.backend.weights.http_download import SPARE, authorities, discard, download
from anyrig.backend.weights.registry import CONVERTED_SIZE, HUB, LOCK, TABLE, Folder, base_url
from anyrig.tests.backend.served import Server, serving, write_release
from anyrig.tests.scripts import ROOT

DATA = bytes(range(256)) * 4000
PATH = "/file.bin"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "PAUSE", 0.001)
    monkeypatch.setattr(module, "TIMEOUT", 2.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        server.files[PATH] = DATA
        yield server


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return write_release(tmp_path_factory.mktemp("release"))


def fetch(server: Server, path: Path) -> str:
    return result_of(download(server.address + PATH, path, "the file"))  # type: ignore[arg-type]


def test_a_plain_download(server: Server, tmp_path: Path) -> None:
    seen = []
    work = download(server.address + PATH, tmp_path / "new" / "f", "the file")
    for done, total in work:
        seen.append(done)
        assert total == len(DATA)
    assert (tmp_path / "new" / "f").read_bytes() == DATA
    assert seen == sorted(seen) and seen[0] == 0 and seen[-1] == len(DATA)
    assert not (tmp_path / "new" / "f.part").exists()
    fetch(server, tmp_path / "new" / "f")
    assert len(server.requests) == 1  # it is there, and from this address
    discard(tmp_path / "new" / "f")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("faults", "resumed"),
    [
        (["drop 100000", "drop 300000"], ["bytes=100000-", "bytes=400000-"]),
        (["status 503", "status 429"], [None, None]),
        (["announce 5000"], [f"bytes={len(DATA)}-"]),  # 416: what is there is the whole file
        (["drop 5000", "misplaced 7"], ["bytes=5000-", None]),
        (["unsaid"], []),
        (["drop 0"], [None]),
    ],
)
def test_faults_that_are_overcome(server: Server, tmp_path: Path, faults: list[str], resumed: list[str | None] | None) -> None:
    server.faults[PATH] = faults
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    if resumed is not None:
        assert [wanted for _, wanted in server.requests[1:]] == resumed


PUBLISHED = hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize(
    ("there", "published", "faults", "requests"),
    [
        (DATA, PUBLISHED, [], 1),
        (DATA, "", [], 1),
        (DATA[:-1] + b"?", PUBLISHED, [], 2),  # damaged on the disk
        (DATA + b"more", "", [], 2),
        (DATA, PUBLISHED, ["status 416"], 2),  # a server that does not say how long the file is
    ],
)
def test_what_is_there_in_full_is_taken_if_it_is_the_file(
    server: Server, tmp_path: Path, there: bytes, published: str, faults: list[str], requests: int
) -> None:
    """As a Blender leaves it that was ended between the last byte and the end of the download."""
    (tmp_path / "f.part").write_bytes(there)
    version = f'"{hashlib.md5(DATA).hexdigest()}"'
    about = {"url": server.address + PATH, "version": version, "published": published}
    (tmp_path / "f.json").write_text(json.dumps(about))
    server.faults[PATH] = faults
    assert fetch(server, tmp_path / "f") == (published if requests == 1 else "")
    assert (tmp_path / "f").read_bytes() == DATA and not (tmp_path / "f.part").exists()
    assert [wanted for _, wanted in server.requests] == [f"bytes={len(there)}-", None][:requests]


def test_a_whole_file_from_another_address_is_not_taken_for_this_ones(server: Server, tmp_path: Path) -> None:
    """Its check was cancelled, the mirror was changed, and then that download was cancelled, too."""
    (tmp_path / "f").write_bytes(b"from elsewhere")
    (tmp_path / "f.json").write_text(json.dumps({"url": "https://elsewhere/f", "version": '"1"', "published": ""}))
    work = download(server.address + PATH, tmp_path / "f", "the file")
    next(work)
    work.close()
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_server_that_cannot_resume_starts_over(server: Server, tmp_path: Path) -> None:
    server.resumes = False
    server.faults[PATH] = ["drop 5000"]
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA


def test_cancel_keeps_what_arrived_and_the_next_call_goes_on(server: Server, tmp_path: Path) -> None:
    work = download(server.address + PATH, tmp_path / "f", "the file")
    for done, _ in work:
        if done > 0:
            break
    work.close()
    kept = (tmp_path / "f.part").stat().st_size
    assert 0 < kept < len(DATA) and not (tmp_path / "f").exists()
    fetch(server, tmp_path / "f")
    assert server.requests[-1] == (PATH, f"bytes={kept}-")
    assert (tmp_path / "f").read_bytes() == DATA


def test_a_file_that_changed_meanwhile_is_not_mixed(server: Server, tmp_path: Path) -> None:
    work = download(server.address + PATH, tmp_path / "f", "the file")
    for done, _ in work:
        if done > 0:
            break
    work.close()
    server.files[PATH] = DATA[::-1]
    fetch(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA[::-1]


def test_redirects_are_followed_with_the_range(server: Server, tmp_path: Path) -> None:
    server.files["/elsewhere"] = DATA
    server.linked[PATH] = hashlib.sha256(DATA).hexdigest()
    server.faults = {PATH: [f"redirect {server.address}/elsewhere"] * 2, "/elsewhere": ["drop 9000"]}
    assert fetch(server, tmp_path / "f") == hashlib.sha256(DATA).hexdigest()
    assert server.requests[-1] == ("/elsewhere", "bytes=9000-")
    assert (tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        (["status 404"], r"the file.*127\.0\.0\.1.*does not have it \(404"),
        (["status 401"], "needs a login"),
        (["status 403"], "refuses it"),
        (["status 418"], "418"),
        (["drop 0"] * 9, r"the file does not arrive from 127\.0\.0\.1.*the connection ended after 0 bytes of 1.02 MB"),
        (["status 503"] * 9, "503.*try again later"),
        (["redirect file:///etc/passwd"], "to an unsafe address"),
        (["redirect " + PATH] * 30, "in circles"),
    ],
)
def test_faults_that_the_user_is_told_of(server: Server, tmp_path: Path, faults: list[str], sentence: str) -> None:
    server.faults[PATH] = faults
    with pytest.raises(UserError, match=sentence):
        fetch(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_server_that_always_drops_says_how_much_is_kept(server: Server, tmp_path: Path) -> None:
    server.faults[PATH] = ["drop 5000", *["drop 0"] * 9]
    with pytest.raises(UserError, match="5 kB are kept"):
        fetch(server, tmp_path / "f")


def test_nobody_there(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1 .*refused"):
        result_of(download("http://127.0.0.1:1/f", tmp_path / "f", "the file"))  # type: ignore[arg-type]


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_noticed_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults[PATH] = ["announce 900000000000000"]
    with pytest.raises(UserError, match=r"the file needs 9e\+05 GB|the file needs .* are free"):
        fetch(server, tmp_path / "f")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 1000))
    with pytest.raises(UserError, match="network, dinov2-large.*need.*1 kB are free"):
        result_of(fetch_files(Folder(tmp_path), server.address))
    assert len(server.requests) == 1


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written.*choose another folder"):
        fetch(server, tmp_path / "taken" / "f")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
def test_a_disk_that_fills_up_meanwhile(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot be written .No space left on device.*choose another folder"):
        fetch(server, tmp_path / "f")
    assert not (tmp_path / "f").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has its own store")
def test_a_python_without_authorities_takes_certifis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Blender's own on macOS: neither of the places exists that its OpenSSL was built to look at."""
    certifi = pytest.importorskip("certifi")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert len(authorities().get_ca_certs()) > 50
    (tmp_path / "none.pem").write_text(
        Path(certifi.where()).read_text().split("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"
    )
    assert len(authorities().get_ca_certs()) == 1  # the user's own choice stands


# The release


def test_the_release_arrives_once_and_is_recorded(server: Server, release: dict[str, bytes], tmp_path: Path) -> None:
    server.fill(release)
    folder = Folder(tmp_path)
    stages = []
    work = fetch_files(folder, server.address)
    while True:
        try:
            stages.append(next(work).stage)
        except StopIteration as stop:
            assert stop.value == list(TABLE)
            break
    assert list(dict.fromkeys(stages)) == [
        *(f"{verb} {item.name}" for item in TABLE for verb in ("Downloading", "Checking")), "Converting the network",
    ]  # fmt: skip
    assert folder.missing() == [] and folder.network.is_file() and not (tmp_path / TABLE[0].local).exists()
    for item in TABLE:
        assert folder.record()[item.name]["sha256"] == hashlib.sha256(release[item.name]).hexdigest()
    assert result_of(fetch_files(folder, server.address)) == [] and len(server.requests) == 4
    assert folder.remove() > 100_000 and list(tmp_path.iterdir()) == []


def begun(folder: Folder, server: Server, stage: str) -> None:
    """Download the second file and cancel in the middle of a stage."""
    work = fetch_files(folder, server.address, TABLE[1:2])
    assert any(step.stage.startswith(stage) and step.done for step in work)
    work.close()


def test_a_file_that_was_being_checked_is_not_fetched_again(server: Server, release: dict[str, bytes], tmp_path: Path) -> None:
    server.fill(release)
    item, folder = TABLE[1], Folder(tmp_path)
    server.linked[item.url("")] = "0" * 64
    begun(folder, server, "Checking")
    assert not folder.has(item)
    with pytest.raises(UserError, match="is not the published file"):
        result_of(fetch_files(folder, server.address, [item]))
    assert len(server.requests) == 1 and list(tmp_path.iterdir()) == []
    server.linked.clear()
    begun(folder, server, "Checking")
    result_of(fetch_files(folder, server.address, [item]))
    assert len(server.requests) == 2 and folder.has(item)


@pytest.mark.parametrize("stage", ["Downloading", "Checking"])
def test_what_was_begun_counts_as_space_and_is_removed(
    server: Server, release: dict[str, bytes], tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fill(release)
    folder = Folder(tmp_path)
    begun(folder, server, stage)
    kept = sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix != ".json")
    assert kept > 0
    needed = sum(item.size for item in TABLE) + CONVERTED_SIZE + SPARE - kept
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, needed - 1))
    with pytest.raises(UserError, match="make room"):
        next(fetch_files(folder, server.address))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, needed))
    next(fetch_files(folder, server.address))
    assert folder.remove() >= kept and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("item", "fault"), [(item, fault) for item in TABLE for fault in ("html", "cut 500", "cut 0")])
def test_garbage_is_refused_and_not_kept(
    server: Server, release: dict[str, bytes], tmp_path: Path, item: object, fault: str
) -> None:
    server.fill(release)
    server.faults[item.url("")] = [fault]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=f"{item.name} is damaged" + ("|web page" if fault == "html" else "")):  # type: ignore[attr-defined]
        result_of(fetch_files(Folder(tmp_path), server.address, [item]))  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == []
    result_of(fetch_files(Folder(tmp_path), server.address, [item]))  # type: ignore[list-item]
    assert Folder(tmp_path).has(item)  # type: ignore[arg-type]


def test_another_file_than_was_published_or_recorded(server: Server, release: dict[str, bytes], tmp_path: Path) -> None:
    server.fill(release)
    item = TABLE[3]
    server.linked[item.url("")] = "0" * 64
    with pytest.raises(UserError, match="is not the published file"):
        result_of(fetch_files(Folder(tmp_path), server.address, [item]))
    server.linked.clear()
    result_of(fetch_files(Folder(tmp_path), server.address, [item]))
    Folder(tmp_path).file(item).unlink()
    server.files[item.url("")] = release[item.name] + b" "
    with pytest.raises(UserError, match="is another file than on 20"):
        result_of(fetch_files(Folder(tmp_path), server.address, [item]))
    Folder(tmp_path).remove()
    result_of(fetch_files(Folder(tmp_path), server.address, [item]))


def test_two_of_them_do_not_download_into_one_folder(server: Server, release: dict[str, bytes], tmp_path: Path) -> None:
    server.fill(release)
    folder = Folder(tmp_path / "ours")
    work = fetch_files(folder, server.address, TABLE[1:2])
    next(work)
    busy = "Another Blender is downloading into '.*ours': let it finish"
    (tmp_path / TABLE[2].local).write_bytes(release["t5-base"])
    for other in (
        lambda: next(fetch_files(folder, server.address)),
        lambda: result_of(use_local_files(folder, tmp_path / TABLE[2].local)),
        folder.remove,
    ):
        with pytest.raises(UserError, match=busy):
            other()
    result_of(work)
    assert folder.has(TABLE[1]) and not (folder.path / LOCK).exists()
    assert result_of(fetch_files(folder, server.address)) == [TABLE[0], *TABLE[2:]]
    assert folder.remove() > 0 and list(folder.path.iterdir()) == []


HOLDER = """
import importlib.util, sys, time
from importlib.machinery import ModuleSpec

spec = ModuleSpec("anyrig", None, is_package=True)
spec.submodule_search_locations = [sys.argv[1]]
sys.modules["anyrig"] = importlib.util.module_from_spec(spec)
from anyrig.backend.weights.registry import Folder
with Folder(sys.argv[2]).locked():
    print("held", flush=True)
    time.sleep(20)
"""


def test_a_blender_that_was_ended_holds_nothing(server: Server, release: dict[str, bytes], tmp_path: Path) -> None:
    server.fill(release)
    root = str(ROOT)
    with subprocess.Popen([sys.executable, "-c", HOLDER, root, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline().strip() == b"held"
        with pytest.raises(UserError, match="Another Blender is downloading"):
            next(fetch_files(Folder(tmp_path), server.address, TABLE[3:]))
        other.kill()
    assert (tmp_path / LOCK).is_file()  # nobody was there to delete it
    assert result_of(fetch_files(Folder(tmp_path), server.address, TABLE[3:])) == [TABLE[3]]
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("refusal", [errno.ENOLCK, errno.ENOSYS])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks with another call")
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_drive_without_locks_is_used_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    import fcntl

    def none_here(_file: int, _operation: int) -> None:
        raise OSError(refusal, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none_here)
    with Folder(tmp_path).locked():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken' cannot be written to .*choose another one"), Folder(tmp_path / "taken").locked():
        pass


def test_files_that_the_user_has(release: dict[str, bytes], tmp_path: Path) -> None:
    """A cache as it lies on a researcher's disk: other names and folders, other models beside them."""
    cache = tmp_path / "cache"
    for item in TABLE:
        (cache / item.repo / "snapshots").mkdir(parents=True, exist_ok=True)
        (cache / item.repo / "snapshots" / item.file).write_bytes(release[item.name])
    (cache / "broken.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0{")
    folder = Folder(tmp_path / "ours")
    assert {item.name for item in result_of(use_local_files(folder, cache))} == {item.name for item in TABLE}
    assert folder.missing() == []
    assert folder.file(TABLE[1]) == cache / "facebook/dinov2-large/snapshots/model.safetensors"
    folder.remove()
    assert (cache / TABLE[0].repo / "snapshots" / TABLE[0].file).is_file()
    with pytest.raises(UserError, match="None of the released weights"):
        result_of(use_local_files(folder, tmp_path / "ours"))
    with pytest.raises(UserError, match="does not exist"):
        result_of(use_local_files(folder, tmp_path / "nowhere"))


def test_files_that_the_user_put_into_the_weights_folder_stay_the_users(release: dict[str, bytes], tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for item in TABLE:
        (tmp_path / item.local).write_bytes(release[item.name])
    assert len(result_of(use_local_files(folder, tmp_path))) == len(TABLE) and folder.network.is_file()
    assert folder.remove() > 0 and not folder.network.exists()
    assert {path.name for path in tmp_path.iterdir()} == {item.local for item in TABLE}


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, even by root")
def test_files_that_are_nothing_do_not_end_the_search(release: dict[str, bytes], tmp_path: Path) -> None:
    for name in ("a.pt", "a.safetensors", "a-tokenizer.json"):
        (tmp_path / name).symlink_to("/proc/self/mem")
    for name, entry in (("b", b'{"a": 1}'), ("c", b'{"a": {"data_offsets": []}}'), ("d", b'{"a": {}}')):
        (tmp_path / f"{name}.safetensors").write_bytes(len(entry).to_bytes(8, "little") + entry)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "T5.SAFETENSORS").write_bytes(release["t5-base"])
    steps = list(use_local_files(Folder(tmp_path / "ours"), tmp_path))
    assert [step.stage for step in steps[:2]] == ["Looking for the weights"] * 2  # a cancel is heard in every folder
    assert Folder(tmp_path / "ours").file(TABLE[2]) == tmp_path / "e" / "T5.SAFETENSORS"


@pytest.mark.parametrize("mirror", ["https://mirror.example/gewichte-\u00e4", "https://.example"])
def test_an_address_with_letters_it_cannot_have(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(UserError, match=r"example.*is not an address .*use another mirror"):
        result_of(fetch_files(Folder(tmp_path), mirror))


def test_the_command_line(server: Server, release: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.fill(release)
    options = ["weights", "--folder", str(tmp_path)]
    assert main(options) == 0
    listed = capsys.readouterr().out
    for item in TABLE:
        assert item.name in listed and item.repo in listed and item.licence in listed and size_text(item.size) in listed
    assert listed.count("missing") == 4
    assert main([*options, "--download", "dinov2-large", "--mirror", server.address]) == 0
    assert capsys.readouterr().out.count("missing") == 3
    assert main([*options, "--download", "release", "--mirror", server.address]) == 0
    assert "missing" not in capsys.readouterr().out
    assert main([*options, "--remove"]) == 0
    assert "freed" in capsys.readouterr().out
    assert main([*options, "--download", "bert", "--mirror", server.address]) == 1
    assert "'bert'" in capsys.readouterr().err
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "x.safetensors").write_bytes(release["dinov2-large"])
    assert main([*options, "--from", str(tmp_path / "given")]) == 0
    assert capsys.readouterr().out.count("missing") == 3


def test_mirrors() -> None:
    assert base_url("") == HUB and base_url(" https://mirror.example/ ") == "https://mirror.example"
    with pytest.raises(UserError, match="mirror.example"):
        base_url("mirror.example")
