"""What the local platform decides, without a process: health, walls, users, versions of files."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leptonai.platforms.local.health import Health, answered, ended, hung_or_stopped, starting
from leptonai.platforms.local.isolate import UIDS, covers, environment, uid_of
from leptonai.platforms.local.process import Ending
from leptonai.settings import Local

LOCAL = Local(hung_after=2.0, stable_after=10.0)


def story(*looks: tuple[float, bool], attempt: int = 0) -> Health:
    health = starting(0.0, attempt)
    for at, ok in looks:
        health = answered(health, ok, "" if ok else "no answer", at, LOCAL)
    return health


def test_it_starts_until_its_first_good_answer() -> None:
    assert story((1, False), (2, False), (30, False)).state == "starting"
    ready = story((1, False), (2, True))
    assert (ready.state, ready.since, ready.reason) == ("ready", 2, "")


def test_silence_of_hung_after_is_hung_and_an_answer_ends_it() -> None:
    assert story((1, True), (2.5, False)).state == "ready"
    assert story((1, True), (2.5, False), (2.9, False)).state == "ready", "1.9 s of silence are not 2"
    hung = story((1, True), (2.5, False), (3.1, False))
    assert (hung.state, hung.reason, hung.since) == ("failed", "hung", 3.1)
    assert "2.1 s" in hung.detail
    back = answered(hung, True, "", 9.0, LOCAL)
    assert (back.state, back.reason, back.since) == ("ready", "", 9.0)


def test_silence_without_a_processor_is_not_hung_until_it_is_hopeless() -> None:
    health = story((1, True), (2.5, False))
    assert answered(health, False, "no answer", 5.0, LOCAL, starved=2.5).state == "ready", "1.5 s of silence"
    hung = answered(health, False, "no answer", 5.0, LOCAL, starved=1.9)
    assert hung.reason == "hung" and "4.0 s (1.9 s of them without a processor)" in hung.detail
    assert answered(health, False, "no answer", 20.9, LOCAL, starved=19.9).state == "ready"
    assert answered(health, False, "no answer", 21.0, LOCAL, starved=20.0).reason == "hung", "of no use to anybody"


def test_one_late_answer_is_not_hung_however_late() -> None:
    assert story((1, True), (60, False)).state == "ready", "our own loop may have slept"


def test_a_crash_counts_as_the_first_again_after_a_stable_time() -> None:
    assert story((1, True), (10.9, True), attempt=3).attempt == 3
    assert story((1, True), (11.0, True), attempt=3).attempt == 0


@given(
    st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=30),
    st.sampled_from([("stopping", "evicted"), ("failed", "killed"), ("failed", "oom")]),
)
def test_no_answer_revives_what_is_stopping_or_gone(looks: list[tuple[float, bool]], end: tuple[Any, str]) -> None:
    health = starting(0.0, 1)._replace(state=end[0], reason=end[1])
    now = 0.0
    for gap, ok in looks:
        now += gap
        health = answered(health, ok, "", now, LOCAL)
    assert (health.state, health.reason) == end


@given(st.lists(st.tuples(st.floats(0.01, 3), st.booleans()), max_size=60))
def test_hung_means_silent_for_that_long_and_ready_means_not(looks: list[tuple[float, bool]]) -> None:
    """After any history: hung only when the last good answer is hung_after ago; ready only after a good answer."""
    health, now, last, good = starting(0.0, 0), 0.0, 0.0, False
    for gap, ok in looks:
        now += gap
        health = answered(health, ok, "", now, LOCAL)
        if ok:
            last, good = now, True
        if health.state == "failed":
            assert good and now - last >= LOCAL.hung_after
        assert (health.state != "starting") == good


@pytest.mark.parametrize(
    ("ending", "failure", "over", "reason", "says"),
    [
        (Ending(signal=signal.SIGKILL), None, 0, "killed", "SIGKILL"),
        (Ending(signal=signal.SIGSEGV), None, 0, "killed", "SIGSEGV"),
        (Ending(signal=signal.SIGKILL), None, 64 << 20, "oom", "64 MiB"),
        (Ending(code=8), {"code": "model", "error": "no such weights"}, 0, "model", "no such weights"),
        (Ending(code=8), None, 0, "exited", "the last words"),
        (Ending(code=1), {"code": "model", "error": "stale"}, 0, "exited", "exit code 1"),
        (Ending(code=0), None, 0, "exited", "exit code 0"),
        (Ending(code=125), None, 0, "launch_failed", "the last words"),
        (Ending(), None, 0, "exited", "unknown"),
    ],
)
def test_how_it_ended(ending: Ending, failure: dict[str, Any] | None, over: int, reason: str, says: str) -> None:
    health = ended(starting(0.0, 2), ending, 7.0, failure, over, "the last words")
    assert (health.state, health.reason, health.since, health.attempt) == ("failed", reason, 7.0, 2)
    assert says in health.detail


def test_waiting_for_a_hung_or_stopped_one_is_pointless() -> None:
    ready = story((1, True))
    assert not hung_or_stopped(ready, stopped=False)
    assert hung_or_stopped(ready, stopped=True)
    assert hung_or_stopped(ready._replace(state="failed", reason="hung"), stopped=False)


def test_covers_are_the_outermost_closed_folders_and_home() -> None:
    closed = {"/root", "/root/a/deep", "/srv/x"}

    def cover(*keeps: str) -> tuple[str, ...]:
        return covers(keeps, "/home/lepton", lambda p: str(p) not in closed)

    assert cover("/usr/lib/python3") == ("/home/lepton",)
    assert cover("/root/a/deep/er", "/srv/x/models") == ("/root", "/home/lepton", "/srv/x")
    assert cover("/srv/x") == ("/home/lepton",), "what is kept itself need not be passed"


@given(st.lists(st.text("abcdefghij-", min_size=1, max_size=12), unique=True, max_size=200))
def test_no_two_services_share_a_user(names: list[str]) -> None:
    taken: dict[int, str] = {}
    for name in names:
        uid = uid_of(name, taken)
        assert uid in UIDS and taken.get(uid, name) == name
        taken[uid] = name
    assert all(uid_of(name, taken) == uid for uid, name in taken.items()), "and each keeps its own"


def test_a_replica_gets_nothing_of_ours() -> None:
    env = environment(
        "/run/x", {"LEPTONAI_TOKEN": "secret", "LEPTONAI_HOST": "h", "COLOUR": "red", "HOME": "/other"}, 2
    )
    assert env == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/other",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "2",
        "COLOUR": "red",
    }
