"""Runbooks as text: what they say, what is refused and why, and what stays in force when a file is broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leptonai.errors import PluginError
from leptonai.ops.diagnosis.causes import CAUSES
from leptonai.ops.remedies import OURS, Evict, Restart
from leptonai.ops.runbook import Range, Row, Runbook, RunbookFiles, Step, load_runbook, shipped


def load(folder: Path, text: str) -> Runbook:
    path = folder / "ours.yaml"
    path.write_text(text)
    return load_runbook(path, OURS)


def test_every_cause_of_the_taxonomy_has_a_row_for_every_severity() -> None:
    for cause in CAUSES:
        assert [shipped().row(cause, s).cause for s in ("info", "warning", "critical")] == [cause] * 3


@pytest.mark.parametrize(
    ("cause", "steps"),
    [
        ("hung_replica", ["evict", "restart"]),
        ("traffic_surge", ["scale", "degrade", "shed"]),
        ("noisy_neighbour", ["preempt", "scale"]),
        ("retry_storm", ["shed"]),
        ("poisoned_input", ["quarantine"]),
        ("out_of_memory", ["recycle"]),
        ("nan_outputs", ["rollback", "restart"]),
        ("dead_dependency", ["fallback_on", "degrade"]),
        ("disk_full", []),
        ("unknown", []),
    ],
)
def test_what_ships(cause: str, steps: list[str]) -> None:
    assert [s.name for s in shipped().row(cause, "warning").steps] == steps


def test_a_row_says_all_there_is_to_say(tmp_path: Path) -> None:
    book = load(
        tmp_path,
        """
        hung_replica:
          - severity: [info, warning]
            owner: night shift
            responsibilities: call the vendor
            approval: above low
            limits: {attempts: 3, cooldown: 60, share: 0.25, ready: 2, most: 4, window: 600}
            verify: {seconds: 60, settle: 10, signals: {error_ratio: {below: 0.01}}}
            steps:
              - evict
              - {do: restart, tries: 2, limits: {attempts: 9}}
          - severity: [critical]
            autonomy: recommend
            steps: [restart]
        """,
    )
    calm, grave = book.row("hung_replica", "warning"), book.row("hung_replica", "critical")
    assert (calm.owner, calm.responsibilities) == ("night shift", "call the vendor")
    evict, restart = calm.steps
    assert (evict.limits.share, evict.limits.ready, evict.verify.settle) == (0.25, 2, 10)
    assert evict.verify.signals == {"error_ratio": Range(below=0.01)}
    assert str(Range(below=0.01)) == "<= 0.01" and str(Range(above=1, below=2)) == ">= 1 and <= 2"
    assert not evict.asks and restart.asks == "restart is of medium risk; the runbook asks above low"
    assert (restart.tries, restart.limits.attempts, restart.limits.share) == (2, 9, 1.0)
    assert [s.autonomy for s in grave.steps] == ["recommend"]
    assert book.row("memory_leak", "warning") == Row("memory_leak"), "no row calls a person"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hung_replica: {steps: [pray]}", "no such remedy 'pray'"),
        ("high_latency: {}", "no such cause 'high_latency'"),
        ("hung_replica: {step: evict}", "step"),
        ("[", "ours.yaml"),
        ("- hung_replica", "ours.yaml"),
        ("hung_replica: []", "no row"),
        ("hung_replica: {severity: []}", "never applies"),
        ("hung_replica: {severity: [grave]}", "grave"),
        ("hung_replica: [{steps: [evict]}, {severity: [critical]}]", "two rows for severity critical"),
        ("hung_replica: {steps: [evict, evict]}", "evict is there twice"),
        ("dead_dependency: {steps: [fallback_on, fallback_off]}", "takes back fallback_on"),
        (
            "traffic_surge: {steps: [{do: degrade, with: {to: a}}, {do: shift_weight, with: {to: b}}]}",
            "takes back degrade to 'a'",
        ),
        ("hung_replica: {steps: [{do: evict, compensate: true}]}", "nothing can"),
        ("hung_replica: {autonomy: recommend}", "nothing to recommend"),
        ("hung_replica: {steps: [{do: evict, autonomy: recommend, approval: always}]}", "can be approved"),
        ("hung_replica: {steps: [{do: evict, tries: 0}]}", "tries is 0"),
        ("hung_replica: {steps: [{do: evict, with: {replica: r1}}]}", "replica"),
        ("traffic_surge: {steps: [{do: shift_weight}]}", "missing required field `to`"),
        ("traffic_surge: {steps: [{do: shed, with: {share: 2}}]}", "share is 2"),
        ("traffic_surge: {steps: [{do: shed, with: {share: .nan}}]}", "line 1: .nan is no finite number"),
        ("traffic_surge: {steps: [{do: shed, with: {seconds: 0}}]}", "seconds is 0"),
        *((f"traffic_surge: {{steps: [{{do: scale, with: {{factor: {f}}}}}]}}", f"factor is {f}; it must be 1 to 100")
          for f in ("0", "0.5", "101")),
        ("traffic_surge: {steps: [{do: scale, with: {factor: 1.0e+400}}]}", "line 1: 1.0e.400 is no finite number"),
        ("traffic_surge: {steps: [{do: scale, with: {factor: true}}]}", "float"),
        ("traffic_surge: {steps: [{do: scale, with: {factor: 1e400}}]}", "float"),
        ("traffic_surge: {steps: [{do: scale, with: {refuse: 100000}}]}", "refuse is 100000 s"),
        ("traffic_surge: {steps: [{do: shed, tries: 1000}]}", "tries is 1000"),
        ("traffic_surge: {verify: {signals: {error_ratio: {below: .inf}}}}", "line 1: .inf is no finite number"),
        ("poisoned_input: {steps: [{do: quarantine, with: {most: 2}}]}", "most is 2"),
        ("poisoned_input: {steps: [{do: quarantine, with: {where: [image]}}]}", "where has 'image'"),
        ("traffic_surge: {steps: [{do: command, with: {run: [rm, -rf]}}]}", "absolute path"),
        ("traffic_surge: {steps: [{do: webhook, with: {url: 'ftp://x'}}]}", "http://"),
        ("traffic_surge: {verify: {seconds: 3, settle: 5}}", "nothing could ever help"),
        ("traffic_surge: {verify: {signals: {error_ratio: {}}}}", "has no bound"),
        ("traffic_surge: {verify: {signals: {nothing_ratio: {below: 1}}}}", "nothing_ratio never can be seen"),
        ("traffic_surge: {verify: {signals: {host_cpu_ratio: {below: 1}}}}", "the machine's"),
        ("hung_replica: {steps: [evict], autonomy: recommend, approval: always}", "nothing of it can be approved"),
        ("traffic_surge: {verify: {signals: {error_ratio: {above: 2, below: 1}}}}", "nothing is above 2"),
        ("traffic_surge: {limits: {share: 0}}", "limits.share is 0"),
        ("traffic_surge: {limits: {attempts: 0}}", "limits.attempts is 0"),
        ("traffic_surge: {approval: sometimes}", "sometimes"),
    ],
)  # fmt: skip
def test_a_bad_or_contradictory_runbook_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PluginError, match=says) as refused:
        load(tmp_path, text)
    assert "ours.yaml" in refused.value.message
    assert refused.value.hint


def test_a_remedy_that_cannot_be_taken_back_is_not_even_if_its_row_wants_it(tmp_path: Path) -> None:
    book = load(tmp_path, "hung_replica: {compensate: true, steps: [evict, rollback]}")
    assert [s.compensate for s in book.row("hung_replica", "info").steps] == [False, True]


class Folder:
    """An operator's runbooks, changed as an editor does: written beside, then renamed."""

    def __init__(self, path: Path) -> None:
        self.path, self._count = path, 0
        path.mkdir()
        self.files = RunbookFiles(path)

    def write(self, name: str, text: str) -> None:
        self._count += 1
        fresh = self.path / f".{name}"
        fresh.write_text(text)
        os.utime(fresh, ns=(self._count, self._count))
        fresh.replace(self.path / name)

    def steps(self, cause: str = "hung_replica") -> list[str]:
        return [s.name for s in self.files.book.row(cause, "warning").steps]


def test_an_operator_s_file_goes_over_ours_by_cause_and_is_read_when_it_changes(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runbooks")
    assert not folder.files.look()
    folder.write("a.yaml", "hung_replica: {steps: [restart]}")
    assert folder.files.look() and not folder.files.look()
    assert folder.steps() == ["restart"] and folder.steps("memory_leak") == ["evict", "recycle", "rollback", "restart"]
    (folder.path / "a.yaml").unlink()
    assert folder.files.look() and folder.steps() == ["evict", "restart"]


def test_a_broken_file_never_stops_anything_and_its_last_good_version_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runbooks")
    folder.write("a.yaml", "hung_replica: {steps: [restart]}")
    folder.files.look()
    folder.write("a.yaml", "hung_replica: {steps: [pray]}")
    folder.write("b.yaml", "memory_leak: {steps: [restart]}")
    assert folder.files.look()
    assert folder.steps() == ["restart"] and folder.steps("memory_leak") == ["restart"]
    assert list(folder.files.broken) == [str(folder.path / "a.yaml")]
    folder.write("a.yaml", "hung_replica: {steps: [evict]}")
    assert folder.files.look() and folder.steps() == ["evict"] and not folder.files.broken
    for text in ("", "[", "hung_replica: " + "[" * 3000, "\x00", "hung_replica: 7"):
        folder.write("a.yaml", text)
        folder.files.look()
        assert folder.files.broken and folder.steps() == ["evict"], text[:20]
    (folder.path / "d.yaml").mkdir()
    folder.files.look()
    assert str(folder.path / "d.yaml") in folder.files.broken


def test_two_files_that_speak_of_one_cause_contradict_each_other(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runbooks")
    folder.write("a.yaml", "hung_replica: {steps: [restart]}")
    folder.write("b.yaml", "hung_replica: {steps: [evict]}")
    folder.files.look()
    assert folder.steps() == ["restart"]
    (error,) = folder.files.broken.values()
    assert "b.yaml: hung_replica: a.yaml has a row for it already" in error.message


def test_a_cause_of_an_operator_s_rules_may_have_a_row(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runbooks")
    folder.write("a.yaml", "press_jammed: {steps: [restart]}")
    folder.files.look()
    assert folder.files.broken
    folder.files.look({*CAUSES, "press_jammed"})
    assert not folder.files.broken and folder.steps("press_jammed") == ["restart"]


def test_steps_go_in_the_order_that_was_learnt() -> None:
    book = Runbook({"hung_replica": (Row("hung_replica", steps=(Step(Evict()), Step(Restart()))),)})
    assert [s.name for s in book.ordered(lambda row: ["restart"]).row("hung_replica", "info").steps] == [
        "restart",
        "evict",
    ]
    assert book.ordered(lambda row: row.remedies).row("hung_replica", "info") == book.row("hung_replica", "info")
