"""Damaged and odd videos, made here: each is read to its end with every frame accounted for, or told in one sentence."""

import os
import struct
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.output_checks import check_outputs, check_suffix, unique_paths
from anyrig.backend.video import video_file
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import probe, read_frames
from anyrig.backend.video.steps import Report
from anyrig.backend.video.video_file import ESTIMATED
from anyrig.backend.whole_file import whole_file

FRAMES, FPS = 30, 25.0
KINDS = {
    "mp4": "mp4v", "mov": "MJPG", "mkv": "MJPG", "avi": "MJPG", "webm": "VP80", "flv": "FLV1", "ts": "mpg2", "wmv": "WMV2",
}  # fmt: skip
LIMIT = 5.0  # seconds for one file


def make_image(index: int) -> np.ndarray:
    """Grey by the frame number; the top left quarter red, the top right green."""
    image = np.full((64, 96, 3), 8 * index, np.uint8)
    image[:32, :48], image[:32, 48:] = (220, 20, 20), (20, 200, 20)
    return image


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    for kind, codec in KINDS.items():
        writer = cv2.VideoWriter(str(folder / f"walk.{kind}"), cv2.VideoWriter.fourcc(*codec), FPS, (96, 64))
        assert writer.isOpened()
        for index in range(FRAMES):
            writer.write(np.ascontiguousarray(make_image(index)[:, :, ::-1]))
        writer.release()
    return folder


def read(path: Path, **values: float) -> tuple[list, Report]:
    report = Report()
    return list(read_frames(Clip(str(path), **values), report=report)), report


def patched(source: Path, target: Path, at: int, data: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[at : at + len(data)] = data
    target.write_bytes(content)
    return target


def corners(image: np.ndarray) -> str:
    height, width = image.shape[:2]
    points = [image[y, x].astype(int) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join("R" if r > 150 > 100 > g else "G" if g > 150 > 100 > r else "." for r, g, _ in points)


@pytest.mark.parametrize("lost", [[7], [3, 15, 16, 17]])
def test_frames_that_cannot_be_decoded_keep_their_time(videos: Path, tmp_path: Path, lost: list[int]) -> None:
    content = bytearray((videos / "walk.avi").read_bytes())
    starts = [at for at in range(len(content)) if content[at : at + 4] == b"00dc" and content[at + 8 : at + 10] == b"\xff\xd8"]
    assert len(starts) == FRAMES
    for index in lost:
        size = struct.unpack("<I", content[starts[index] + 4 : starts[index] + 8])[0]
        content[starts[index] + 8 : starts[index] + 8 + size] = bytes(size)
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(content)
    frames, report = read(damaged)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(FRAMES) / FPS, atol=1e-6)
    assert [frame.index for frame in frames if frame.lost] == lost == sorted(report.lost)
    assert f"{len(lost)} frame" in report.sentences()[0] and f"from {lost[0] / FPS:.2f} s on" in report.sentences()[0]


@pytest.mark.parametrize("kind", ["mkv", "avi", "webm", "flv", "wmv", "ts"])
def test_a_recording_that_breaks_off_is_told(videos: Path, tmp_path: Path, kind: str) -> None:
    content = (videos / f"walk.{kind}").read_bytes()
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(content[: int(0.6 * len(content)) + 1])
    try:
        frames, report = read(cut)
    except UserError as error:
        assert "breaks off" in str(error)
    else:
        assert len(frames) < FRAMES and any("cut off" in note for note in report.notes)


@pytest.mark.parametrize(
    ("matrix", "seen"),
    [((-1, 0, 0, 1), "GR.."), ((1, 0, 0, -1), "..RG"), ((0, 1, 1, 0), "R.G."), ((0, -1, -1, 0), ".G.R"), ((0, 1, -1, 0), ".R.G")],
)
def test_a_display_matrix_may_mirror(videos: Path, tmp_path: Path, matrix: tuple[int, ...], seen: str) -> None:
    source = videos / "walk.mp4"
    a, b, c, d = (value << 16 for value in matrix)
    at = source.read_bytes().find(b"tkhd") + 44
    shown = patched(source, tmp_path / "shown.mp4", at, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    frames, _ = read(shown)
    assert corners(frames[0].image) == seen
    info = probe(Clip(str(shown)))
    assert (info.height, info.width) == frames[0].image.shape[:2] == ((96, 64) if matrix[0] == 0 else (64, 96))


def test_missing_numbers_are_times(tmp_path: Path) -> None:
    for number in (1, 2, 3, 6, 7, 10):
        cv2.imwrite(str(tmp_path / f"walk_{number:04d}.png"), make_image(number))
    frames, report = read(tmp_path / "walk_0003.png", fps=10.0)
    kept = {number: frame.time for number, frame in zip(range(1, 11), frames, strict=True) if not frame.lost}
    assert kept == pytest.approx({1: 0, 2: 0.1, 3: 0.2, 6: 0.5, 7: 0.6, 10: 0.9}) and len(report.lost) == 4


@pytest.mark.parametrize("suffix", ["exr", "hdr", "ppm", "jp2", "tiff", "webp"])
def test_kinds_of_images(tmp_path: Path, suffix: str) -> None:
    image = np.ascontiguousarray(make_image(4)[:, :, ::-1])
    if suffix in ("exr", "hdr"):
        linear = image.astype(np.float32) / 255
        image = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4).astype(np.float32)
    os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"
    for number in range(3):
        assert cv2.imwrite(str(tmp_path / f"{number}.{suffix}"), image)
    frames, _ = read(tmp_path / f"0.{suffix}")
    assert len(frames) == 3 and corners(frames[0].image) == "RG.."
    np.testing.assert_allclose(frames[0].image[48], make_image(4)[48], atol=4)


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"a:b.mp4", "歩く.mp4".encode(), b"100%d #1.mp4", b"x" * 250 + b".mp4"])
def test_names_of_any_bytes(videos: Path, tmp_path: Path, name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes((videos / "walk.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(read(Path(path.name))[0]) == FRAMES
    path.write_bytes(b"no video")
    with pytest.raises(UserError) as error:
        read(path)
    str(error.value).encode()


def test_pipes_and_few_pixels_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UserError, match="is a pipe or a device"):
        read(tmp_path / "pipe.mp4")
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((3, 5, 3), np.uint8))
    with pytest.raises(UserError, match="5 x 3 pixels, and at least 16 x 16"):
        read(tmp_path / "0.png")


def test_sixty_damaged_videos(videos: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(16)
    for number in range(60):
        kind = list(KINDS)[number % len(KINDS)]
        content = bytearray((videos / f"walk.{kind}").read_bytes())
        at = int(draw.integers(len(content)))
        what = number // len(KINDS) % 3
        if what == 0:
            content[at : at + 300] = bytes(len(content[at : at + 300]))
        elif what == 1:
            content = content[: max(at, 1)]
        else:
            for place in draw.integers(len(content), size=20):
                content[place] ^= 1 << int(draw.integers(8))
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(content)
        begun = time.perf_counter()
        try:
            frames, report = read(path)
        except UserError as error:
            assert str(error).endswith(".") and "\n" not in str(error) and path.name in str(error)
        else:
            times = [frame.time for frame in frames]
            assert np.all(np.diff(times) > 0) and len(times) < 20 * FRAMES and len({frame.image.shape for frame in frames}) == 1
            enough = FRAMES if kind == "mp4" else FRAMES - ESTIMATED
            assert sum(not frame.lost for frame in frames) >= enough or report.sentences(), (
                f"{path.name}: {len(frames)} in silence"
            )
        assert time.perf_counter() - begun < LIMIT, path.name


def test_outputs_that_would_overwrite_something(tmp_path: Path) -> None:
    video = tmp_path / "walk.mp4"
    video.write_bytes(b"film")
    (tmp_path / "link.mp4").symlink_to(video)
    for output in (video, tmp_path / "link.mp4", tmp_path / "." / ".." / tmp_path.name / "walk.mp4"):
        with pytest.raises(UserError, match="would overwrite .*, which is read"):
            check_outputs(output, inputs=(video,))
    with pytest.raises(UserError, match="which is written too"):
        check_outputs(tmp_path / "a.npz", tmp_path / "A.npz")
    with pytest.raises(UserError, match="name that ends in .blend"):
        check_suffix("take.fbx", ".blend")
    with pytest.raises(UserError, match="'A/B' and 'A:B' would be written to one file, 'take-A_B.bvh'"):
        unique_paths(Path("take.bvh"), ["A/B", "A:B"], ["A_B", "A_B"])
    check_outputs(tmp_path / "a.npz", tmp_path / "b.bvh", inputs=(video, None))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "take.npz"
    target.write_bytes(b"before")
    with pytest.raises(UserError, match="take.npz' cannot be written .No space left"), whole_file(target) as part:
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert target.read_bytes() == b"before" and list(tmp_path.iterdir()) == [target]
    with whole_file(target) as part:
        part.write_bytes(b"after")
    assert target.read_bytes() == b"after" and list(tmp_path.iterdir()) == [target]


def test_frames_that_leave_no_trace_are_told(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first or last frame of H.264 that is damaged is not among the packets; the container still counts it."""
    monkeypatch.setattr(video_file, "_stated_frames", lambda _: FRAMES + 1)
    monkeypatch.setattr(video_file, "shown_length", lambda _: None)
    for kind, told in (("mp4", True), ("flv", False)):  # others state a length times a rate
        frames, report = read(videos / f"walk.{kind}")
        said = [f"The video states {FRAMES + 1} frames, but {FRAMES} could be read: check that it is whole."]
        assert len(frames) == FRAMES and report.sentences() == (said if told else [])


def test_a_rate_that_is_a_mean_over_a_jump_is_not_believed(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_file, "frame_rate", lambda _: 0.016)
    capture = video_file.open_video(videos / "walk.mkv")
    assert video_file.stated_rate(capture, videos / "walk.mkv") == pytest.approx(FPS, rel=0.03)
    clock = video_file._Clock(1 / FPS, None, report := Report())
    times = [clock.tell(stamp) for stamp in (0.0, 0.04, 3000.08, 3000.12)]
    assert times == pytest.approx([0.0, 0.04, 0.08, 0.12], abs=1e-6)
    assert report.sentences() == ["The video's time stamps jump by 3000 s at 0.08 s: the jump was left out."]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_video_that_is_written_to_while_it_is_read(videos: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"walk.{kind}"
    path.write_bytes((videos / f"walk.{kind}").read_bytes())
    frames = read_frames(Clip(str(path)))
    next(frames)
    os.utime(path, (1, 1))
    with pytest.raises(UserError, match="walk.* was written to while it was read: wait until it is complete, and start again."):
        list(frames)
