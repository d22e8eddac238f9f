"""Reading and writing of video files and image sequences. All data is made here."""

import itertools
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import frame_range, image_files, probe, read_frames, write_video

SIZE = (64, 96)  # height, width


def make_image(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Grey by the frame number; the top left quarter red, the top right green."""
    height, width = size
    image = np.full((height, width, 3), 8 * index, np.uint8)
    image[: height // 2, : width // 2] = (220, 20, 20)
    image[: height // 2, width // 2 :] = (20, 200, 20)
    return image


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "walk.mp4"
    write_video(path, (make_image(index) for index in range(20)), 25.0)
    return path


def patched(source: Path, target: Path, at: int, data: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[at : at + len(data)] = data
    target.write_bytes(content)
    return target


def rotated(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Sets a, b, c, d of the track header's display matrix: 40 bytes into the box's content (ISO 14496-12, 8.3.2)."""
    a, b, c, d = (value << 16 for value in matrix)
    return patched(source, target, source.read_bytes().find(b"tkhd") + 44, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


def with_durations(source: Path, target: Path, durations: list[int]) -> Path:
    """Rewrites the time-to-sample table: one entry per frame, in units of the first frame's duration."""
    content = source.read_bytes()
    at = content.find(b"stts") - 4
    size, _, _, _, unit = struct.unpack(">I4sIIxxxxI", content[at : at + 24])[0:5]
    entries = b"".join(struct.pack(">II", 1, unit * duration) for duration in durations)
    table = struct.pack(">I4sII", 16 + len(entries), b"stts", 0, len(durations)) + entries
    changed = bytearray(content[:at] + table + content[at + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = changed.find(parent) - 4
        (old,) = struct.unpack(">I", changed[place : place + 4])
        changed[place : place + 4] = struct.pack(">I", old + len(table) - size)
    assert content.find(b"mdat") < at, "sample offsets would have moved"
    target.write_bytes(changed.replace(b"edts", b"free"))  # the edit list would cut the film at its old duration
    return target


def write_images(folder: Path, names: list[str], images: list[np.ndarray]) -> Path:
    folder.mkdir()
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(folder / name), image)
    return folder


def test_frames_of_a_video(video: Path) -> None:
    frames = list(read_frames(Clip(str(video))))
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 25, atol=1e-6)
    for frame in frames:
        assert frame.image.shape == (*SIZE, 3) and frame.image.dtype == np.uint8 and frame.alpha is None
        assert abs(float(frame.image[48:, :].mean()) - 8 * frame.index) < 4
    assert frames[0].image[10, 10, 0] > 180 > 80 > frames[0].image[10, 10, 1], "channels are red, green, blue"


def test_probe(video: Path) -> None:
    info = probe(Clip(str(video), start=0.2, speed=2.0))
    assert (info.width, info.height, info.fps, info.frames) == (96, 64, 25.0, 20)
    assert info.duration == pytest.approx(0.8)
    assert probe(Clip(str(video), fps=50.0)).duration == pytest.approx(0.4)


def test_trim_speed_and_rate(video: Path) -> None:
    frames = list(read_frames(Clip(str(video), start=0.2, end=0.6, speed=2.0)))
    assert len(frames) == 10 and abs(float(frames[0].image[48:].mean()) - 8 * 5) < 4
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / 50, atol=1e-6)
    assert frame_range(Clip(str(video), start=0.2, end=0.6)) == (5, 10, 20)
    times = [frame.time for frame in read_frames(Clip(str(video), fps=10.0, end=1.0))]
    np.testing.assert_allclose(times, np.arange(10) / 10, atol=1e-9)


def test_mirrored_footage_is_put_right(video: Path, tmp_path: Path) -> None:
    plain, swapped = (list(read_frames(Clip(str(video), mirror=mirror))) for mirror in (False, True))
    assert all(np.array_equal(left.image[:, ::-1], right.image) for left, right in zip(plain, swapped, strict=True))
    assert swapped[0].image[4, 4, 1] > 150 and swapped[0].image[4, -4, 0] > 150, "green is left now, and red right"
    alpha = np.zeros((*SIZE, 4), np.uint8)
    alpha[:, :10] = 255
    folder = write_images(tmp_path / "clear", ["a1.png", "a2.png"], [alpha, alpha])
    seen = next(read_frames(Clip(str(folder), mirror=True))).alpha
    assert seen is not None and seen[:, -10:].all() and not seen[:, :-10].any()


def test_every_keeps_indices_and_times(video: Path) -> None:
    sampled = list(read_frames(Clip(str(video), start=0.08), every=7))
    assert [frame.index for frame in sampled] == [0, 7, 14]
    np.testing.assert_allclose([frame.time for frame in sampled], np.array([0, 7, 14]) / 25, atol=1e-6)


def test_odd_sizes_are_written_with_a_repeated_edge(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    write_video(path, [make_image(index, (33, 47)) for index in range(3)], 12.0)
    frames = list(read_frames(Clip(str(path))))
    assert len(frames) == 3 and frames[0].image.shape == (34, 48, 3)


@pytest.mark.parametrize(("matrix", "rotations"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)])
def test_rotation_metadata(video: Path, tmp_path: Path, matrix: tuple[int, int, int, int], rotations: int) -> None:
    # The display matrix maps (x, y), y down, to (a x + c y, b x + d y): (0, 1, -1, 0) sends right to down, clockwise.
    turned = Clip(str(rotated(video, tmp_path / "turned.mp4", matrix)))
    expected = np.rot90(next(read_frames(Clip(str(video)))).image, rotations)
    found = next(read_frames(turned)).image
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    assert (probe(turned).height, probe(turned).width) == expected.shape[:2]


def test_variable_frame_rate(video: Path, tmp_path: Path) -> None:
    durations = [1, 3, 2, 5] * 5
    clip = Clip(str(with_durations(video, tmp_path / "variable.mp4", durations)))
    expected = np.cumsum([0, *durations[:-1]]) / 25
    np.testing.assert_allclose([frame.time for frame in read_frames(clip)], expected, atol=1e-4)
    trimmed = [frame.time for frame in read_frames(Clip(clip.path, start=0.1, end=0.5))]
    np.testing.assert_allclose(trimmed, [stamp - 0.1 for stamp in expected if 0.1 <= stamp < 0.5], atol=1e-4)


def test_stamps_that_do_not_increase_fall_back_to_the_rate(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def __init__(self, path: str) -> None:
            self.inner = capture_class(path)

        def get(self, key: int) -> float:
            return 40.0 if key == cv2.CAP_PROP_POS_MSEC else self.inner.get(key)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    capture_class = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", Stuck)
    np.testing.assert_allclose([frame.time for frame in read_frames(Clip(str(video)))], np.arange(20) / 25, atol=1e-6)


def test_capture_is_released_when_the_generator_closes(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captures = []
    capture_class = cv2.VideoCapture

    def opened(path: str) -> cv2.VideoCapture:
        captures.append(capture_class(path))
        return captures[-1]

    monkeypatch.setattr(cv2, "VideoCapture", opened)
    frames = read_frames(Clip(str(video)))
    next(frames)
    assert captures[0].isOpened()
    frames.close()
    assert not captures[0].isOpened()


def test_folder_in_natural_order(tmp_path: Path) -> None:
    names = [f"walk_{number}.png" for number in (8, 9, 10, 11)]
    folder = write_images(tmp_path / "walk", names, [make_image(index) for index in range(4)])
    (folder / "notes.txt").write_text("not an image")
    frames = list(read_frames(Clip(str(folder))))
    assert [int(frame.image[-1, -1, 0]) for frame in frames] == [0, 8, 16, 24]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(4) / 24)
    assert [frame.time for frame in read_frames(Clip(str(folder), fps=10.0))] == pytest.approx([0, 0.1, 0.2, 0.3])
    info = probe(Clip(str(folder)))
    assert (info.width, info.height, info.frames, info.fps) == (96, 64, 4, 24.0)


def test_one_file_stands_for_its_numbered_sequence(tmp_path: Path) -> None:
    names = ["a_0001.png", "a_0002.png", "a_0003.png", "b_0001.png", "a_0004.jpg"]
    folder = write_images(tmp_path / "mixed", names, [make_image(index) for index in range(5)])
    frames = list(read_frames(Clip(str(folder / "a_0002.png"))))
    assert [int(frame.image[-1, -1, 0]) for frame in frames] == [0, 8, 16]


def test_alpha_depth_and_grey(tmp_path: Path) -> None:
    colour = np.dstack([make_image(3)[:, :, ::-1], np.full(SIZE, 77, np.uint8)])
    wide = colour.astype(np.uint16) * 256
    folder = write_images(tmp_path / "alpha", ["1.png", "2.png", "3.png"], [colour, wide, make_image(3)[:, :, 0]])
    eight, sixteen, grey = read_frames(Clip(str(folder)))
    for frame in (eight, sixteen):
        np.testing.assert_array_equal(frame.image, make_image(3))
        assert frame.alpha is not None and (frame.alpha == 77).all() and frame.alpha.shape == SIZE
    assert grey.alpha is None and grey.image.shape == (*SIZE, 3)


def read_all(clip: Clip) -> str:
    with pytest.raises(UserError) as error:
        for _ in read_frames(clip):
            pass
    assert str(error.value).endswith(".") and "\n" not in str(error.value) and Path(clip.path).name in str(error.value)
    return str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist: choose the file again" in read_all(Clip(str(tmp_path / "gone.mp4")))
    with pytest.raises(UserError, match="does not exist"):
        probe(Clip(""))


def test_folder_without_images(tmp_path: Path) -> None:
    assert "has no images: choose a folder" in read_all(Clip(str(tmp_path)))


def test_not_a_video(tmp_path: Path) -> None:
    for name, content in (("notes.txt", b"hello"), ("empty.mp4", b"")):
        (tmp_path / name).write_bytes(content)
        assert "cannot be read as a video: choose" in read_all(Clip(str(tmp_path / name)))


def test_unknown_codec_is_named(video: Path, tmp_path: Path) -> None:
    unknown = tmp_path / "unknown.mp4"
    unknown.write_bytes(video.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"free"))
    assert "uses the codec 'zzzz'" in read_all(Clip(str(unknown)))


def test_damaged_frames(video: Path, tmp_path: Path) -> None:
    start = video.read_bytes().find(b"mdat") + 4
    damaged = patched(video, tmp_path / "damaged.mp4", start, b"\0" * (video.read_bytes().find(b"moov") - 4 - start))
    assert "is damaged, and none of its frames can be decoded: copy" in read_all(Clip(str(damaged)))


def test_video_that_breaks_off(video: Path, tmp_path: Path) -> None:
    content = video.read_bytes()
    start, table = content.find(b"mdat") - 4, content.find(b"moov") - 4
    # Put the table first, as a file for streaming has it, shift the sample offsets, and lose the second half of the images.
    moov = bytearray(content[table:])
    at = moov.find(b"stco") + 8
    (chunks,) = struct.unpack(">I", moov[at : at + 4])
    offsets = struct.unpack(f">{chunks}I", moov[at + 4 : at + 4 + 4 * chunks])
    moov[at + 4 : at + 4 + 4 * chunks] = struct.pack(f">{chunks}I", *(offset + len(moov) for offset in offsets))
    whole = content[:start] + bytes(moov) + content[start:table]
    streamed, broken = tmp_path / "streamed.mp4", tmp_path / "broken.mp4"
    streamed.write_bytes(whole)
    assert len(list(read_frames(Clip(str(streamed))))) == 20
    broken.write_bytes(whole[: -(table - start) // 2])
    assert re.search(r"breaks off after \d+ of 20 frames: copy or convert", read_all(Clip(str(broken))))
    assert len(list(read_frames(Clip(str(broken), end=0.1)))) == 3


def test_no_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Empty:
        def __init__(self, path: str) -> None:
            self.released = False

        def isOpened(self) -> bool:
            return True

        def get(self, key: int) -> float:
            return 0.0

        def set(self, key: int, value: float) -> bool:
            return False

        def grab(self) -> bool:
            return False

        def release(self) -> None:
            self.released = True

    (tmp_path / "none.avi").write_bytes(b"RIFF")
    monkeypatch.setattr(cv2, "VideoCapture", Empty)
    assert "has no frames: choose another file" in read_all(Clip(str(tmp_path / "none.avi")))


def test_too_short(tmp_path: Path, video: Path) -> None:
    folder = write_images(tmp_path / "one", ["still.png"], [make_image(0)])
    assert "at least 2 are needed" in read_all(Clip(str(folder)))
    assert "at least 2 are needed" in read_all(Clip(str(folder / "still.png")))
    single = tmp_path / "single.mp4"
    write_video(single, [make_image(0)], 25.0)
    assert "has 1 frame, and at least 2" in read_all(Clip(str(single)))
    assert "trim range leaves 1 of the frames" in read_all(Clip(str(video), start=0.2, end=0.23))


def test_trim_beyond_the_end(video: Path) -> None:
    assert "after the last frame of" in read_all(Clip(str(video), start=3.0))
    assert len(list(read_frames(Clip(str(video), end=99.0)))) == 20, "an end past the last frame takes everything"


def test_images_of_different_size_and_broken_images(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(3)]
    folder = write_images(tmp_path / "sizes", names, [make_image(0), make_image(0), make_image(0, (32, 32))])
    assert "image '2.png' has 32 x 32 pixels where the first has 96 x 64" in read_all(Clip(str(folder), start=0.03))
    (folder / "2.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="2.png' cannot be decoded here: save it again"):
        list(read_frames(Clip(str(folder))))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "shot", [f"{number}.png" for number in range(3)], [make_image(0)] * 3)
    frames = read_frames(Clip(str(folder)))
    next(frames)
    (folder / "1.png").unlink()
    with pytest.raises(UserError, match="1.png' cannot be read .No such file or directory.: restore it"):
        next(frames)


@pytest.mark.skipif(not Path("/sys/devices/system/cpu/online").exists(), reason="needs a file that cannot be mapped")
def test_a_file_that_may_not_be_read_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").symlink_to("/sys/devices/system/cpu/online")
    assert "secret.mp4' cannot be read as a video: choose" in read_all(Clip(str(tmp_path / "secret.mp4")))


def test_digits_that_are_no_numbers(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "shot", ["1\u00b22.png", "1\u00b21.png"], [make_image(0), make_image(0)])
    assert [path.name for path in image_files(Clip(str(folder)))] == ["1\u00b21.png", "1\u00b22.png"]


def test_writing_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: choose an existing folder"):
        write_video(tmp_path / "missing" / "walk.mp4", itertools.repeat(make_image(0), 2), 25.0)
    with pytest.raises(UserError, match="no frames to write"):
        write_video(tmp_path / "walk.mp4", [], 25.0)
    with pytest.raises(ValueError, match="frame of 32 x 32"):
        write_video(tmp_path / "walk.mp4", [make_image(0), make_image(0, (32, 32))], 25.0)
