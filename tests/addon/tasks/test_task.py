"""The job: drained, threaded, cancelled, failing; no thread outlives it, and the worker alone steps and closes."""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator

import bpy
import pytest
from anyrig.addon.tasks import background_runner
from anyrig.addon.tasks.task import Snapshot, Task
from anyrig.backend.errors import UserError
from anyrig.backend.progress import Progress


class Work:
    """A generator of `total` steps, each waiting for `gate`, that remembers which threads stepped and closed it."""

    def __init__(self, total: int = 5, fail: Exception | None = None) -> None:
        self.gate = threading.Semaphore(0)
        self.stepped: list[threading.Thread] = []
        self.closed: list[threading.Thread] = []
        self.reached = 0
        self._total, self._fail = total, fail

    def open(self, steps: int = 1000) -> "Work":
        for _ in range(steps):
            self.gate.release()
        return self

    def steps(self) -> Generator[Progress, None, str]:
        try:
            for index in range(self._total):
                assert self.gate.acquire(timeout=10)
                self.stepped.append(threading.current_thread())
                if self._fail is not None and index == 2:
                    raise self._fail
                self.reached = index + 1
                yield Progress("Walking", index + 1, self._total)
            return "arrived"
        finally:
            self.closed.append(threading.current_thread())


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "AnyRig"]


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    background_runner.cancel_current()
    background_runner.set_status("")
    assert workers() == []


def test_drain_steps_on_this_thread_and_reports_every_step() -> None:
    work, seen = Work(3).open(), []
    done = Task(work.steps()).drain(seen.append)
    assert (done.result(), done.error, done.cancelled, done.done) == ("arrived", None, False, True)
    assert [(s.stage, s.done, s.total) for s in seen] == [("Walking", n, 3) for n in (1, 2, 3)]
    assert set(work.stepped) == {threading.current_thread()}


def test_thread_steps_and_hands_over_the_result() -> None:
    work = Work(3)
    running = Task(work.steps()).start()
    assert not running.done and running.progress.stage == "Starting"
    work.open(2)
    wait_for(lambda: running.progress.done == 2)
    assert running.progress.fraction == pytest.approx(2 / 3) and not running.done
    work.open()
    running.join()
    assert running.done and running.result() == "arrived" and threading.current_thread() not in work.stepped
    assert work.closed[0] is work.stepped[0]


def test_cancel_midway_closes_the_generator_on_the_worker() -> None:
    work = Work(1000)
    running = Task(work.steps()).start()
    work.open(4)
    wait_for(lambda: running.progress.done == 4)
    running.cancel()
    work.open(1)  # the step that was under way ends, no further one begins
    running.join()
    assert running.cancelled and running.result() is None and running.error is None
    assert work.reached == 5 and len(work.closed) == 1 and work.closed[0] is work.stepped[0]
    assert workers() == []


@pytest.mark.parametrize("when", ["during the last step", "before the hand-over"])
def test_late_cancel_counts(when: str) -> None:
    work = Work(1)
    running = Task(work.steps()).start()
    if when == "during the last step":
        running.cancel()
    work.open()
    running.join()
    running.cancel()
    assert running.cancelled and running.done


def test_user_errors_are_told_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    done = Task(Work(5, UserError("Frame 7 is empty: trim the clip.", "whole_video")).open().steps()).drain()
    for _ in range(2):
        with pytest.raises(UserError, match="Frame 7 is empty: trim the clip.") as caught:
            done.result()
        assert caught.value.fix == "whole_video" and not done.cancelled
    assert done.error is not None and done.error.__traceback__ is None, "it would keep the generator's arrays"
    assert not caplog.records


def test_other_errors_become_a_sentence_and_a_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        running = Task(Work(5, ZeroDivisionError("by nothing")).open().steps()).start()
        running.join()
    assert running.done and running.error is not None and running.error.fix == "copy_diagnostics"
    assert all(word in str(running.error) for word in ("ZeroDivisionError", "by nothing", "console"))
    assert "Traceback" in caplog.text and "in steps" in caplog.text


def test_an_error_while_closing_still_ends_the_job() -> None:
    def stubborn() -> Generator[Progress, None, None]:
        try:
            yield Progress("a", 0, 1)
            yield Progress("a", 1, 1)
        finally:
            raise OSError("cannot close")

    running = Task(stubborn())
    running.cancel()
    assert running.drain().cancelled  # never begun, nothing to close
    running = Task(stubborn())
    running.drain(lambda _: running.cancel())
    assert running.done and "cannot close" in str(running.error)


def test_interrupting_a_drained_job_closes_it() -> None:
    work = Work(5).open()

    def interrupt(_: Snapshot) -> None:
        raise KeyboardInterrupt

    running = Task(work.steps())
    with pytest.raises(KeyboardInterrupt):
        running.drain(interrupt)
    assert len(work.closed) == 1 and running.done


def test_bytes_are_not_counted_as_frames() -> None:
    def steps() -> Generator[Progress, None, None]:
        yield Progress("Downloading t5-base", 1, 4, unit="")

    assert Task(steps()).drain().progress.text.startswith("Downloading t5-base, 0:0")


@pytest.mark.parametrize(
    ("cancel", "fail", "status", "message"),
    [
        (False, None, background_runner.DONE, "arrived at last"),
        (True, None, background_runner.CANCELLED, "Cancelled."),
        (
            False,
            UserError("The road is closed: take another.", "use_cpu"),
            background_runner.FAILED,
            "The road is closed: take another.",
        ),
    ],
)
def test_an_outcome_is_a_value_and_the_panel_shows_it(cancel: bool, fail: UserError | None, status: str, message: str) -> None:
    task = Task(Work(5, fail).open().steps()).drain()
    if cancel:
        task.cancel()
    found = background_runner.conclude(task, "Cancelled.", lambda result: f"{result} at last")
    assert found == background_runner.TaskOutcome(status, message)
    assert background_runner.status() == (message, fail is not None) and background_runner.status_fix() == (
        fail.fix if fail else ""
    )


def test_an_error_of_what_uses_the_result_is_the_outcome() -> None:
    def refuse(_: str) -> str:
        raise UserError("Bone 'x' is gone: undo that.")

    found = background_runner.conclude(Task(Work(2).open().steps()).drain(), "Cancelled.", refuse)
    assert found == background_runner.TaskOutcome(background_runner.FAILED, "Bone 'x' is gone: undo that.")


def test_time_left_follows_the_pace_of_the_stage() -> None:
    snapshot = Snapshot("Reading", done=30, total=120, started=100.0, now=110.0, unit="frame")
    assert snapshot.eta == pytest.approx(30.0) and snapshot.fraction == 0.25
    assert snapshot.text == "Reading: frame 30 of 120, 0:30 left"
    assert Snapshot("Loading", 0, 1, 0.0, 9.0).eta is None and Snapshot("Loading", 0, 1).text == "Loading"
    assert Snapshot("Starting").text == "Starting"
    assert Snapshot("x", 7, 5, 0.0, 1.0).fraction == 1.0 and Snapshot("x", 7, 5, 0.0, 1.0).eta == 0.0


def test_stages_have_clocks_of_their_own() -> None:
    def stages() -> Generator[Progress, None, None]:
        yield Progress("one", 1, 2)
        time.sleep(0.05)
        yield Progress("one", 2, 2)
        yield Progress("two", 0, 2)

    seen: list[Snapshot] = []
    Task(stages()).drain(seen.append)
    assert seen[1].started == seen[0].started and seen[2].started - seen[1].started >= 0.05


def test_timer_polls_and_hands_over_once() -> None:
    work, told = Work(2), []
    running = Task(work.steps())
    background_runner.run_in_background(running, told.append)
    assert background_runner.current() is running and bpy.app.timers.is_registered(background_runner.poll_current)
    with pytest.raises(UserError, match="already running"):
        background_runner.run_in_background(Task(Work().steps()), told.append)
    assert background_runner.poll_current() == background_runner.INTERVAL and told == []
    work.open()
    wait_for(lambda: running.done)
    assert background_runner.poll_current() is None and told == [running] and background_runner.current() is None
    assert background_runner.poll_current() is None and told == [running]
    assert workers() == []


@pytest.mark.parametrize("leave", ["unregister", "load"])
def test_leaving_stops_the_job_and_tells_nobody(leave: str) -> None:
    handlers = list(bpy.app.handlers.load_pre)
    background_runner.register()
    work, told = Work(1000), []
    running = Task(work.steps())
    background_runner.run_in_background(running, told.append)
    work.open(1)
    wait_for(lambda: running.progress.done == 1)
    releaser = threading.Timer(0.05, work.open, [5])  # the worker is inside of a step when it is asked to stop
    releaser.start()
    if leave == "load":
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        assert len(bpy.app.handlers.load_pre) == len(handlers) + 1, "the handler stays for the next file"
    if leave == "unregister":
        background_runner.unregister()
    assert running.done and running.cancelled and told == [] and background_runner.current() is None and workers() == []
    assert not bpy.app.timers.is_registered(background_runner.poll_current)
    releaser.join()
    if leave == "load":
        background_runner.unregister()
    assert list(bpy.app.handlers.load_pre) == handlers
