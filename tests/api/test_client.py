"""The clients against a real server: sentences of the CLI as calls, errors as they were raised on the other side."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from leptonai.client import AsyncClient, Client, Progress, find_platform, rollout
from leptonai.client.home import Home
from leptonai.client.wire import FeedbackRequest, SeriesView, ServiceView
from leptonai.errors import Conflict, Denied, LeptonError, ModelError, NotFound, PlatformError, SpecError, StartError
from leptonai.platforms.memory import Behaviour
from leptonai.types import (
    Dials,
    Incident,
    Replica,
    Scale,
    Service,
    Spec,
    SpecChange,
    Variant,
    VariantDials,
)

if TYPE_CHECKING:
    from api_stage import Stage


def test_a_service_is_deployed_scaled_restarted_undone_deleted_and_brought_back(stage: Stage) -> None:
    model = stage.model()
    spec = Spec(name="digits", variants=(Variant(model=str(model)),))
    said: list[Progress] = []
    with stage.client() as client:
        view = client.deploy(spec, replicas=2, report=said.append)
        assert (view.ready, view.wanted, view.service.revision) == (2, 2, 1)
        assert said[-1].done
        assert client.deploy(spec, replicas=2).service.revision == 1  # an unchanged spec makes no revision
        before = {r.id for r in view.replicas}
        client.scale("digits", 3)
        assert client.wait_ready("digits").ready == 3
        client.restart("digits")
        view = client.wait_ready("digits")
        assert sum(r.state == "ready" and r.epoch == 1 for r in view.replicas) == 3, "it waits for the fresh ones"
        assert not before & {r.id for r in view.replicas if r.epoch == 1}
        slow = msgspec.structs.replace(view.service.spec, timeout=5.0)
        assert client.deploy(slow).service.revision == 2
        assert client.undo("digits").why == "undo of revision 2: back to 1"
        assert client.service("digits").service.spec.timeout == 30.0
        assert client.service("digits").wanted == 3  # dials stay
        client.scale("digits", 2)
        assert client.undo("digits").why == "undo of main.replicas 2: back to 3"
        client.delete("digits")
        assert client.services() == []
        assert client.undo("digits").why == "undo of revision 4: back to 3"
        assert client.wait_ready("digits").ready == 2
        assert [r.number for r in client.revisions("digits")] == [1, 2, 3, 4, 5]
        kinds = [e.kind for e in client.why("digits", limit=1000)]
        assert kinds.count("proposal.admitted") == 10, kinds


def test_a_deploy_that_cannot_start_fails_early_with_its_reason(stage: Stage) -> None:
    stage.platform.world.behaviour = lambda variant: Behaviour(start_delay=10.0, exit_after=0.0)
    spec = Spec(name="digits", variants=(Variant(model=str(stage.model())),))
    began = time.monotonic()
    with stage.client() as client, pytest.raises(StartError, match="revision 1 of digits cannot start") as caught:
        client.deploy(spec)
    assert "leptonai logs digits" in caught.value.hint
    assert time.monotonic() - began < 30.0


def test_a_deploy_nobody_waits_for_in_time_says_how_far_it_came(stage: Stage) -> None:
    stage.platform.world.behaviour = lambda variant: Behaviour(start_delay=60.0)
    spec = Spec(name="digits", variants=(Variant(model=str(stage.model())),))
    with stage.client() as client, pytest.raises(PlatformError, match="0 of 1 ready after 1 s") as caught:
        client.deploy(spec, timeout=1.0)
    assert caught.value.code == "timeout"


def test_a_home_that_is_no_folder_is_a_platform_that_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEPTONAI_HOST", "LEPTONAI_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "home", tmp_path / "none"):
        with pytest.raises(PlatformError, match="no platform runs on") as caught:
            Client(home=home)
        assert "leptonai up" in caught.value.hint


def test_errors_arrive_as_the_class_they_were_raised_as(stage: Stage) -> None:
    spec = stage.service()
    with stage.client() as client:
        for kind, call in (
            (NotFound, lambda: client.service("none")),
            (SpecError, lambda: client.scale("digits", 1000)),
            (Conflict, lambda: client.propose(SpecChange(spec=spec, base=7), "stale")),
            (NotFound, lambda: client.upload(stage.home / "nothing.onnx")),
        ):
            with pytest.raises(kind) as caught:
                call()
            assert caught.value.message
    with stage.client("viewer") as client, pytest.raises(Denied, match="operator") as caught:
        client.scale("digits", 2)
    assert caught.value.exit_code == 3


def test_what_was_said_is_read_back(stage: Stage) -> None:
    stage.service()
    with stage.client() as client:
        assert client.send_feedback([FeedbackRequest(about="r1", service="digits", label=[1, "x"])]) == 1
        page = client.feedback()
        assert [(seq, f.label, f.by) for seq, f in page.items] == [(1, [1, "x"], "human:admin")]
        assert client.feedback(page.next).items == []
        made = client.put_incident(
            Incident(id=0, subject="default/service/digits", severity="info", title="t", began=0.0, opened=1.0)
        )
        assert made.id == 1
        assert client.put_incident(msgspec.structs.replace(made, closed=9.0)) == client.incident(1)
        assert (client.incidents(open=True), len(client.incidents())) == ([], 1)
        assert client.verify("digits", 1, "looks well").verified is not None
        assert client.service("digits").verified == 1
        assert client.record("drill.started", "digits", {"n": 1}).actor == "human:admin"
        kinds = [e.kind for e in client.why("digits")]
        for kind in ("incident.opened", "incident.closed", "revision.verified", "drill.started"):
            assert kinds.count(kind) == 1
        newest = client.events(limit=1)[0]
        assert client.events(after=newest.seq) == []
        assert client.events(after=0, limit=1)[0].seq == 1
        assert client.platform()["ops"] == {"alive": False, "seen": None, "broken": {}}
        assert "ticket=" in client.session()


def test_the_asynchronous_client_gives_the_same(stage: Stage) -> None:
    stage.service()
    secret = stage.token("ops", "operator")

    async def look() -> tuple[list[ServiceView], bool]:
        async with AsyncClient(stage.url, secret, home=stage.home) as client:
            with pytest.raises(NotFound):
                await client.proposal("p-0")
            return await client.services(), (await client.platform())["ops"]["alive"]

    views, alive = asyncio.run(look())
    assert [v.key for v in views] == ["digits"]
    assert alive  # the call itself was the sign of life


def test_nobody_there_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEPTONAI_HOST", "LEPTONAI_TOKEN", "LEPTONAI_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PlatformError, match="no platform runs") as caught:
        Client(home=tmp_path)
    assert "leptonai up" in caught.value.hint
    with pytest.raises(Denied, match="no token"):
        Client("http://127.0.0.1:1", home=tmp_path)
    with Client("http://127.0.0.1:1", "x", home=tmp_path) as client, pytest.raises(PlatformError) as caught:
        client.services()
    assert (caught.value.code, caught.value.retry) == ("unreachable", True)


def test_where_a_platform_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given wins over the environment, the environment over the home; the home's token stays at home."""
    home = Home(tmp_path)
    home.control.write_text('{"url": "http://127.0.0.1:7", "pid": 1}')
    home.token.write_text("secret\n")
    monkeypatch.delenv("LEPTONAI_HOST", raising=False)
    monkeypatch.delenv("LEPTONAI_TOKEN", raising=False)
    assert find_platform(None, None, home) == ("http://127.0.0.1:7", "secret")
    assert find_platform("127.0.0.1:7", None, home) == ("http://127.0.0.1:7", "secret")
    with pytest.raises(Denied):
        find_platform("http://elsewhere:7", None, home)
    monkeypatch.setenv("LEPTONAI_HOST", "elsewhere:9/")
    monkeypatch.setenv("LEPTONAI_TOKEN", "other")
    assert find_platform(None, None, home) == ("http://elsewhere:9", "other")
    assert find_platform("http://h", "t", home) == ("http://h", "t")


def test_a_token_that_no_header_can_carry_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEPTONAI_HOST", raising=False)
    monkeypatch.delenv("LEPTONAI_TOKEN", raising=False)
    home = Home(tmp_path)
    for token in ("g\xe9heim", "two\nlines"):
        with pytest.raises(Denied, match="no token has"):
            find_platform("http://h", token, home)
    home.control.write_text('{"url": "http://127.0.0.1:7", "pid": 1}')
    home.token.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Denied, match="other bytes"):
        find_platform(None, None, home)


def view(*replicas: Replica, wanted: int = 2) -> ServiceView:
    spec = Spec(name="d", variants=(Variant(model="new"),), scale=Scale(replicas=wanted))
    dials = Dials(variants={"main": VariantDials(replicas=wanted)})
    service = Service(spec=spec, dials=dials, revision=2)
    return ServiceView(service=service, replicas=replicas, ready=0, wanted=wanted, status="", url="")


def one(state: str, model: str = "new", reason: str = "", attempt: int = 0) -> Replica:
    digest = Variant(model=model).digest
    return Replica(
        id="r", service="d", variant="main", digest=digest, state=state, reason=reason, since=0.0, attempt=attempt
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("replicas", "ready", "done"),
    [
        ([], 0, False),
        ([one("ready", "old"), one("ready", "old")], 0, False),
        ([one("ready", "old"), one("ready")], 1, False),
        ([one("ready"), one("ready"), one("stopping", "old")], 2, True),
        ([one("ready"), one("ready"), one("ready")], 2, True),
        ([one("ready"), one("failed", reason="exited", attempt=5)], 1, False),
        ([one("failed", reason="exited", attempt=1)], 0, False),
        ([one("failed", "old", reason="model")], 0, False),
        ([one("failed", reason="model"), one("ready")], 1, False),
    ],
)
def test_a_rollout_is_done_when_all_wanted_are_ready_in_the_new_form(
    replicas: list[Replica], ready: int, done: bool
) -> None:
    progress = rollout(view(*replicas))
    assert (progress.ready, progress.done) == (ready, done)


@pytest.mark.parametrize(
    ("replica", "kind"),
    [
        (one("failed", reason="golden_failed"), ModelError),
        (one("failed", reason="artifact_changed"), ModelError),
        (one("failed", reason="exited", attempt=2), StartError),
        (one("stopping", reason="start_timeout"), StartError),
    ],
)
def test_a_new_replica_that_will_never_start_ends_the_wait(replica: Replica, kind: type[LeptonError]) -> None:
    with pytest.raises(kind, match="revision 2 of d cannot start") as caught:
        rollout(view(one("ready", "old"), replica))
    assert "leptonai undo d" in caught.value.hint


def test_nothing_seen_is_null_on_the_wire_and_nan_again() -> None:
    seen = msgspec.json.decode(b'{"name":"n","labels":{},"at":[1.0,2.0],"value":[3.0,null]}', type=SeriesView)
    value = seen.series().value
    assert value[0] == 3.0
    assert value[1] != value[1]
