"""Digests: every sentence is backed in both languages; what cannot be told is told to be so; advice follows numbers."""

from __future__ import annotations

import math

import pytest

from leptonai.client.classifier import Classifier, OfCause, Unseen
from leptonai.ops.availability import availability
from leptonai.ops.report import FORMATS, Member, digest, languages, write
from leptonai.ops.report.advice import advice
from leptonai.types import Action, Cause, Dials, Incident, Resources, Series, Service, Slo, Spec, Variant

AT = 1_700_000_000.0
DAY = 86400.0
GB = 1_000_000_000


def service(memory: int | None = None) -> Service:
    variant = Variant(model="sha256:" + "0" * 64, resources=Resources(memory=memory))
    return Service(spec=Spec(name="digits", variants=(variant,)), dials=Dials(), revision=1)


def series(name: str, values: list[float], **labels: str) -> Series:
    step = DAY / len(values)
    return Series(name=name, labels=labels, at=[AT + step * n for n in range(len(values))], value=values)


def incident(id: int, title: str = "x", over: float | None = 60.0) -> Incident:
    return Incident(
        id=id, subject="default/service/digits", severity="critical", title=title, began=AT + 1000.0 * id,
        opened=AT + 1000.0 * id + 2.5, closed=None if over is None else AT + 1000.0 * id + over,
        causes=(Cause(name="memory_leak", subject="r1", confidence=0.9),),
        actions=(Action(remedy="evict", proposal="p", at=AT + 1000.0 * id + 9, verdict="effective"),),
    )  # fmt: skip


def member(incidents: list[Incident], errors: float, memory: int | None = None) -> Member:
    rate = series("request_rate_per_second", [40 + 10 * math.sin(n / 20) for n in range(500)])
    compute = series("replica_compute_seconds", [0.03] * 500, replica="r1")
    rss = series("replica_rss_bytes", [3e8 + 1e5 * n for n in range(500)], replica="r1")
    shares = series("error_ratio", [errors] * 500), series("slow_ratio", [0.0] * 500)
    told = availability("digits", Slo(), incidents, rate, *shares, AT, AT + DAY, 1.0)
    signals = {"request_rate_per_second": (rate,), "replica_compute_seconds": (compute,), "replica_rss_bytes": (rss,)}
    return Member(service=service(memory), ready=2, availability=told, series=signals)


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize("errors", [0.0, 0.0004, 0.2])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_digest_is_backed_in_each_language(language: str, errors: float, count: int) -> None:
    found = [incident(n, over=None if n == 3 else 60.0 + n / 7) for n in range(1, count + 1)]
    bare = Member(service=service(), ready=0)
    story = digest([member(found, errors, GB), bare], found, AT, AT + DAY, language)
    for format in FORMATS:
        assert write(story, format).endswith("\n")
    assert all(sentence.evidence for section in story.sections for sentence in section.sentences)


def test_what_others_wrote_is_harmless_in_a_digest() -> None:
    found = [incident(1, "\x1b[31m<script>x</script> [w1]\n## Forged {{ 7 * 7 }} 99 s")]
    for language in languages():
        story = digest([member(found, 0.0)], found, AT, AT + DAY, language)
        page = write(story, "html")
        assert "<script" not in page and "\x1b" not in page and "Forged" not in [s.title for s in story.sections]


def test_advice_follows_the_utilisation_law() -> None:
    """40 requests/s of 30 ms on 2 replicas: 1.5 busy threads at the peak of 50, so 3 at 70 %."""
    busy = member([], 0.0)
    (found,) = [f for f in advice("v", service(), 2, *parts(busy), AT) if f.kind == "headroom"]
    assert found.data["busy_share"] == pytest.approx(0.75, abs=0.01) and found.data["wanted"] == 3
    assert found.data["carried_per_second"] == pytest.approx(0.7 * 2 / 0.03)
    (idle,) = [f for f in advice("v", service(), 8, *parts(busy), AT) if f.kind == "headroom"]
    assert idle.data["enough"] == 3 and "wanted" not in idle.data


def parts(found: Member) -> tuple[Series, tuple[Series, ...], tuple[Series, ...]]:
    signals = found.series
    return (
        signals["request_rate_per_second"][0],
        signals["replica_compute_seconds"],
        signals["replica_rss_bytes"],
    )


def test_a_steady_climb_is_told_until_its_limit() -> None:
    """100 kB every 172.8 s from 350 MB: 1 GB is reached after some 1.1 million seconds."""
    (found,) = [f for f in advice("v", service(GB), 2, *parts(member([], 0.0)), AT) if f.kind == "exhaustion"]
    assert found.data["likely_seconds"] == pytest.approx((1e9 - 3.5e8) / (1e5 / 172.8), rel=0.1)


def test_what_cannot_be_told_is_told_to_be_so() -> None:
    told = advice("v", service(), 0, series("r", [1.0] * 10), (), (), AT)
    assert [f.kind for f in told] == ["cannot tell"] * 3
    assert [f.data["what"] for f in told] == ["forecast", "headroom", "exhaustion"]


@pytest.mark.parametrize("language", languages())
@pytest.mark.parametrize(("version", "counts"), [("shipped", False), ("17", True)])
def test_how_good_the_diagnosis_is_stands_in_a_digest(language: str, version: str, counts: bool) -> None:
    """Its scores, and the causes that it knows worst with what they are taken for; each sentence is backed."""
    confusion = {"data_drift": {"data_drift": 3, "bad_revision_wrong_answers": 1}, "disk_full": {"disk_full": 5}}
    held = Unseen(
        incidents=9, first=0.889, first_two=1.0, macro_f1=0.93, interval=(0.85, 0.97), calibration=0.031,
        causes={
            "data_drift": OfCause(incidents=4, precision=1.0, recall=0.75, f1=0.857),
            "disk_full": OfCause(incidents=5, precision=1.0, recall=1.0, f1=1.0),
        },
        confusion=confusion,
    )  # fmt: skip
    found = Classifier(version=version, counts=counts, held_out=held)
    story = digest([], [], AT, AT + DAY, language, found)
    text = write(story, "text")
    assert "75" in text and ("data drift" in text or "数据漂移" in text)
    assert sum(s.evidence[0].startswith("k") for section in story.sections for s in section.sentences) == 3
    bare = digest([], [], AT, AT + DAY, language, Classifier(version=version, counts=counts))
    assert not any(s.evidence[0].startswith("k") for section in bare.sections for s in section.sentences)


def test_the_page_of_a_digest_draws_each_service_s_requests_with_the_day() -> None:
    story = digest([member([], 0.0), Member(service=service(), ready=0)], [], AT, AT + DAY)
    page = write(story, "html")
    assert page.count("<svg") == 1, "of a service without a measured rate there is nothing to draw"
    assert "requests per second" in page and "2023-11-14 22:13:20" in page
