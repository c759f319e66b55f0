"""Notifications over real receivers: an HTTP server, a mail server, one that hangs, one that refuses."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Thread
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from alert_world import alert

from leptonai.ops.alert.group import Notification, Told
from leptonai.ops.alert.message import Message
from leptonai.ops.alert.send import deliver
from leptonai.ops.alert.sender import MOST_WAITING, Deliver, Outcome, Sender
from leptonai.ops.logs.privacy import Masker
from leptonai.settings import Alerts, Receiver

HELLO = Message(title="[FIRING:1] Incident digits", body="- critical: it burns", severity="critical")


@contextmanager
def hook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook that answers ``status``; yields its host and port, and what it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Mails:
    def __init__(self) -> None:
        self.got: list[EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.got.append(message_from_bytes(envelope.content, policy=default))  # type: ignore[arg-type]
        return "250 OK"


class Post(Controller):
    """aiosmtpd's own look whether it listens wants a fixed port."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_webhook_and_a_mailbox_get_the_message_and_one_that_refuses_is_told_apart() -> None:
    mails = Mails()
    post = Post(mails, hostname="127.0.0.1", port=0)
    post.start()
    try:
        with hook() as (good, got), hook(500) as (bad, _):
            urls = (
                f"json://{good}/alerts",
                f"mailto://127.0.0.1:{post.port}?from=ops@example.com&to=ana@example.com&mode=insecure",
                f"json://{bad}/alerts",
                "nonsense://x",
            )
            failed = asyncio.run(deliver(urls, HELLO, 60.0))
    finally:
        post.stop()
    assert sorted(failed) == [2, 3]
    assert all(failed.values())
    assert (got[0]["title"], got[0]["message"], got[0]["type"]) == (HELLO.title, HELLO.body, "failure")
    assert mails.got[0]["Subject"] == HELLO.title
    assert "it burns" in mails.got[0].as_string()


def test_a_receiver_that_hangs_is_given_up_and_its_process_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        failed = asyncio.run(deliver((f"json://{host}:{port}/",), HELLO, 3.0))
    assert failed == {0: "no answer within 3 s"}


# --- the sender, with receivers of which the test decides how they behave ------------------------------------------


def message(group: str = "g", made: float = 0.0, receiver: str = "team", summary: str = "ill") -> Notification:
    told = Told(at=made, firing=frozenset(), resolved=frozenset())
    found = alert(summary=summary)
    return Notification(
        receiver=receiver,
        group=group,
        labels=found.labels,
        firing=(found,),
        resolved=(),
        made=made,
        told=told,
        why="new",
    )


class Receivers:
    """Answers with what ``answers`` holds for each try, then with success; ``hang``: never."""

    def __init__(self, *answers: dict[int, str], hang: bool = False) -> None:
        self.answers, self.hang = list(answers), hang
        self.got: list[tuple[tuple[str, ...], Message]] = []

    async def __call__(self, urls: Sequence[str], said: Message, timeout: float) -> dict[int, str]:
        if self.hang:
            await asyncio.Event().wait()
        self.got.append((tuple(urls), said))
        return self.answers.pop(0) if self.answers else {}


def team(**more: Any) -> Alerts:
    return Alerts(receivers=(Receiver(name="team", urls=("json://a", "json://b"), **more),), send_first=2.0)


async def pump(sender: Sender, start: float, end: float) -> list[tuple[float, Outcome]]:
    out = []
    for second in range(int(start), int(end)):
        out += [(float(second), o) for o in sender.step(float(second))]
        for _ in range(3):
            await asyncio.sleep(0)
    return out


def sender_of(settings: Alerts, deliver: Deliver) -> Sender:
    return Sender(settings, deliver, Masker().mask)


def test_only_those_who_do_not_have_it_are_tried_again_later_and_later() -> None:
    async def scene() -> tuple[Receivers, list[tuple[float, Outcome]]]:
        receivers = Receivers({1: "away"}, {0: "away"}, {0: "away"})
        sender = sender_of(team(), receivers)
        sender.put(message())
        return receivers, await pump(sender, 0, 40)

    receivers, told = asyncio.run(scene())
    assert [urls for urls, _ in receivers.got] == [("json://a", "json://b")] + [("json://b",)] * 3
    assert [(o.attempt, o.error, o.next) for _, o in told] == [
        (1, "away", 3.0), (2, "away", 8.0), (3, "away", 17.0), (4, "", None),
    ]  # fmt: skip


def test_what_is_too_old_is_given_up() -> None:
    async def scene() -> list[tuple[float, Outcome]]:
        sender = sender_of(team(), Receivers(*[{0: "away", 1: "away"}] * 99))
        sender.put(message())
        return await pump(sender, 0, 1200)

    told = asyncio.run(scene())
    assert told[-1][1].next is None
    assert told[-1][0] <= 900.0
    assert all(b - a <= 62.0 for (a, _), (b, _) in pairwise(told))


def test_of_a_group_that_waits_only_the_newest_is_sent() -> None:
    async def scene() -> Receivers:
        receivers = Receivers()
        sender = sender_of(team(), receivers)
        for text in ("first", "second", "third"):
            sender.put(message(summary=text))
        sender.put(message(group="other", summary="else"))
        await pump(sender, 0, 10)
        return receivers

    assert [said.body.split(" Since")[0] for _, said in asyncio.run(scene()).got] == [
        "- critical: third", "- critical: else",
    ]  # fmt: skip


def test_a_receiver_gets_no_more_than_its_rate() -> None:
    async def scene() -> Receivers:
        receivers = Receivers()
        sender = sender_of(team(per_minute=6.0), receivers)
        for n in range(100):
            sender.put(message(group=f"g{n}"))
        await pump(sender, 0, 120)
        return receivers

    assert 6 + 10 <= len(asyncio.run(scene()).got) <= 6 + 12


def test_too_many_that_wait_are_told_as_given_up() -> None:
    async def scene() -> list[Outcome]:
        sender = sender_of(team(), Receivers(hang=True))
        for n in range(MOST_WAITING + 5):
            sender.put(message(group=f"g{n}"))
        told = sender.step(0.0)
        assert len(sender) == MOST_WAITING
        await sender.close()
        return told

    told = asyncio.run(scene())
    assert [(o.notification.group, o.next) for o in told] == [(f"g{n}", None) for n in range(5)]


def test_what_is_sent_is_masked() -> None:
    async def scene() -> Receivers:
        receivers = Receivers({0: "login of ana@example.com refused"})
        sender = sender_of(team(), receivers)
        sender.put(message(summary="password=hunter22 of bob@example.com"))
        told = await pump(sender, 0, 3)
        assert "ana@example.com" not in told[0][1].error
        return receivers

    said = asyncio.run(scene()).got[0][1]
    assert "hunter22" not in said.body
    assert "bob@example.com" not in said.body
    assert "<email:" in said.body


def test_nobody_waits_for_a_receiver_that_hangs() -> None:
    async def scene() -> float:
        wanted = Alerts(receivers=(Receiver(name="team", urls=("x",)), Receiver(name="other", urls=("y",))))
        sender = sender_of(wanted, Receivers(hang=True))
        sender.put(message())
        sender.put(message(receiver="other"))
        sender.put(message(receiver="nobody"))
        begin = time.monotonic()
        await pump(sender, 0, 100)
        took = time.monotonic() - begin
        await sender.close()
        return took

    assert asyncio.run(scene()) < 30.0
