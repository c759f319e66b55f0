"""Classifiers beside the rules: what is stored is what was learnt and never run; opinions are probabilities."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import f1_score

from leptonai.errors import PluginError, SpecError
from leptonai.ops.classify import CLASSES, Ensemble, of_rules, score
from leptonai.ops.classify import train as fitting
from leptonai.ops.classify.ensemble import pool
from leptonai.ops.classify.evaluate import by_service, held_out, strictly
from leptonai.ops.classify.files import Newest, keep, load, save, versions
from leptonai.ops.classify.opinion import ALONE, OPINION, weigh_in
from leptonai.ops.classify.samples import Sample, data_of, lived
from leptonai.ops.classify.train import train
from leptonai.ops.evidence import Facts
from leptonai.ops.features import FEATURES, completed
from leptonai.types import Cause, Evidence, Incident

KINDS = ("replica_killed", "traffic_surge", "dead_dependency", "unknown")
SIGNS = {"replica_killed": "killed_share", "traffic_surge": "rate_shift", "dead_dependency": "dependency_errors"}


def samples(count: int = 120, seed: int = 0) -> list[Sample]:
    """Incidents whose cause shows in one feature, most of the time; the rules are right in two of three."""
    rng = np.random.default_rng(seed)
    out = []
    for n in range(count):
        cause = KINDS[n % 4]
        features = {name: float(rng.normal(0, 0.1)) for name in (*SIGNS.values(), "error_share")}
        if cause in SIGNS and rng.random() < 0.95:
            features[SIGNS[cause]] += 1.0
        said = cause if rng.random() < 0.66 else KINDS[int(rng.integers(4))]
        rules = of_rules([Cause(name=said, subject="s", confidence=0.9)])
        where = dict(shape=("a", "b", "c")[n // 4 % 3], level=("low", "high")[n // 12 % 2], service=f"s{n // 2}")
        for last in (False, True):
            out.append(Sample(str(n), features, rules, cause, last=last, **where))
    return out


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Forests and nets of a size that a test has time for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "TREES", 12)
        patch.setattr(fitting, "HIDDEN", 16)
        patch.setattr(fitting, "ROUNDS", 40)
        yield


@pytest.fixture(scope="module")
def ensemble(small: None) -> Ensemble:
    return train(data_of(samples()), seed=1)


def table() -> Any:
    return data_of(samples(40, 9)).table


def test_opinions_are_probabilities_and_right(ensemble: Ensemble) -> None:
    data = data_of(samples(200, 5))
    p = ensemble.pooled(data.table, data.rules)
    assert np.allclose(p.sum(axis=1), 1.0) and (p > 0).all()
    assert (p.argmax(axis=1) == data.truth).mean() > 0.9
    assert [m.name for m in ensemble.models] == ["svm", "forest", "net"] and len(ensemble.weights) == 4


def test_what_is_read_back_says_the_same_and_the_same_training_the_same_bytes(
    ensemble: Ensemble, tmp_path: Path
) -> None:
    save(tmp_path / "1.npz", ensemble)
    again = load(tmp_path / "1.npz")
    rules = np.full((len(table()), len(CLASSES)), 1 / len(CLASSES))
    assert np.allclose(again.pooled(table(), rules), ensemble.pooled(table(), rules), atol=1e-4)
    assert (tmp_path / "1.npz").stat().st_size < 300_000
    save(tmp_path / "2.npz", train(data_of(samples()), seed=1))
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_machines_compute_what_scikit_learn_computes() -> None:
    """The arrays are taken out of scikit-learn's models; its own predictions are the oracle."""
    data = data_of(samples())
    x = fitting.scaler_of(data.table).rows(data.table)
    ours = fitting._forest(x, data.truth, 3)
    theirs = RandomForestClassifier(
        n_estimators=fitting.TREES, max_leaf_nodes=fitting.LEAVES, min_samples_leaf=2, max_features=0.3,
        class_weight="balanced", random_state=3,
    ).fit(x, data.truth)  # fmt: skip
    found = np.exp(ours.scores(x))[:, theirs.classes_]
    assert np.abs(found - theirs.predict_proba(x)).max() < 0.01  # votes are kept in 255ths


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_a_file_of_strangers_is_refused_and_nothing_in_it_is_run(
    ensemble: Ensemble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good.npz"
    save(good, ensemble)
    held = io.BytesIO()
    np.lib.format.write_array(held, np.array([_Evil()], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "evil.npz", "w") as evil:
        for name in source.namelist():
            evil.writestr(name, held.getvalue() if name == "mean.npy" else source.read(name))
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "short.npz").write_bytes(good.read_bytes()[:-300])
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "other.npz", "w") as other:
        for name in source.namelist():
            if name != "svm.bias.npy":
                other.writestr(name, source.read(name))
    for name in ("evil", "text", "short", "other", "absent"):
        with pytest.raises(PluginError, match=name):
            load(tmp_path / f"{name}.npz")
    assert "run" not in capsys.readouterr().out


def test_the_newest_version_that_can_be_read_is_in_force(ensemble: Ensemble, tmp_path: Path) -> None:
    newest = Newest(tmp_path, None)
    assert newest.ensemble is None and newest.version == "" and not newest.look()
    assert (keep(tmp_path, ensemble), keep(tmp_path, ensemble)) == (1, 2)
    assert newest.look() and newest.version == "2" and not newest.look()
    (tmp_path / "3.npz").write_text("damaged")
    assert newest.look() and newest.version == "2" and newest.broken is not None
    assert versions(tmp_path) == [1, 2, 3]


def test_what_is_unlike_everything_learnt_is_left_to_the_rules(ensemble: Ensemble) -> None:
    strange = dict.fromkeys(FEATURES, 50.0)
    assert ensemble.opinion(strange, []) is None
    assert ensemble.opinion(dict(samples()[0].features), []) is not None
    rules = of_rules([Cause(name="disk_full", subject="s", confidence=0.9)])[None, :]
    far = np.full((1, len(FEATURES)), 50.0)
    assert np.allclose(ensemble.pooled(far, rules), rules)


@given(st.lists(st.tuples(st.sampled_from([*CLASSES, "ours_alone"]), st.floats(0, 1)), max_size=6))
def test_rules_as_probabilities_keep_their_order_and_leave_the_rest_to_unknown(named: list[tuple[str, float]]) -> None:
    p = of_rules([Cause(name=n, subject="s", confidence=c) for n, c in named])
    assert abs(p.sum() - 1.0) < 1e-9 and (p > 0).all()
    best = {n: max(c for m, c in named if m == n) for n, _ in named if n in CLASSES and n != "unknown"}
    for a, b in [(a, b) for a in best for b in best if best[a] > best[b] + 1e-3]:
        assert p[CLASSES.index(a)] > p[CLASSES.index(b)]


def test_voters_that_agree_make_sure_and_voters_that_do_not_make_humble() -> None:
    one, other = (of_rules([Cause(name=n, subject="s", confidence=0.8)])[None, :] for n in KINDS[:2])
    agree, apart = pool([one, one], [0.6, 0.6])[0], pool([one, other], [0.6, 0.6])[0]
    first = CLASSES.index(KINDS[0])
    assert agree[first] > one[0, first] > apart[first]


FACTS = Facts((Evidence(id="e1", kind="exit", at=1.0, text="t"),), {})


def test_pooled_probabilities_become_confidences_and_a_cause_of_nobodys_rule_is_only_told(ensemble: Ensemble) -> None:
    causes = (
        Cause(name="hung_replica", subject="r1", confidence=0.9, evidence=("e1",)),
        Cause(name="hung_replica", subject="r2", confidence=0.45, evidence=("e1",)),
        Cause(name="a_cause_of_ours", subject="s", confidence=0.3, evidence=("e1",)),
    )
    opinion = ensemble.opinion(dict(samples()[0].features), causes)
    assert opinion is not None
    facts, out = weigh_in(FACTS, causes, opinion, "s", 5.0)
    assert facts.evidence[-1].kind == OPINION and facts.evidence[-1].at == 5.0
    named = {(c.name, c.subject): c for c in out}
    p = opinion.p["hung_replica"]
    if p >= 0.2:
        assert named["hung_replica", "r1"].confidence == 2 * named["hung_replica", "r2"].confidence
    assert named["a_cause_of_ours", "s"].confidence == 0.3  # nobody here knows it better
    assert named["replica_killed", "s"].confidence <= ALONE
    assert all(facts.evidence[-1].id in c.evidence for c in out if c.name in CLASSES)
    assert [c.confidence for c in out] == sorted((c.confidence for c in out), reverse=True)


def test_scores_are_those_of_the_books() -> None:
    names = ("a", "b", "c")
    rng = np.random.default_rng(4)
    truth = [names[i] for i in rng.integers(0, 3, 200)]
    p = rng.dirichlet(np.ones(3), 200)
    found = score(truth, p, names)
    said = [names[i] for i in p.argmax(axis=1)]
    assert found.macro_f1 == pytest.approx(f1_score(truth, said, average="macro"))
    assert found.low < found.macro_f1 < found.high
    assert sum(sum(row.values()) for row in found.confusion.values()) == found.count == 200
    sure = np.tile([0.75, 0.15, 0.1], (4, 1))
    assert score(["a", "a", "a", "b"], sure, names).calibration == pytest.approx(0.0)
    assert score(["b", "b", "b", "b"], sure, names).calibration == pytest.approx(0.75)


@given(seed=st.integers(0, 50), count=st.integers(8, 60))
def test_a_held_out_incident_shares_neither_service_nor_load_nor_severity_with_training(seed: int, count: int) -> None:
    found = samples(count, seed)
    for split, apart in ((strictly, ("service", "shape", "level", "incident")), (by_service, ("service", "incident"))):
        tested = np.zeros(len(found), dtype=int)
        for train_on, test_on in split(found, seed):
            tested += test_on
            for what in apart:
                known = {getattr(s, what) for s, on in zip(found, train_on, strict=True) if on}
                assert not known & {getattr(s, what) for s, on in zip(found, test_on, strict=True) if on}
        assert (tested == 1).all()


def test_held_out_scores_have_every_voter_and_the_baselines() -> None:
    found = held_out(samples(96))
    assert found.folds == 6
    assert {"ensemble", "svm", "forest", "net", "rules", "most frequent", "chance"} <= found.scores.keys()
    assert found.scores["ensemble"].macro_f1 > found.scores["rules"].macro_f1 > found.scores["chance"].macro_f1
    with pytest.raises(SpecError, match="labelled incidents"):
        held_out(samples(20))


def test_a_live_incident_is_learnt_from_once_its_cause_was_told() -> None:
    incident = Incident(
        id=7, subject="default/service/a", severity="critical", title="t", began=1.0, opened=1.0,
        causes=(Cause(name="traffic_surge", subject="a", confidence=0.8),), features={"rate_shift": 2.0},
    )  # fmt: skip
    (found,) = lived([incident], {7: "retry_storm"})
    assert (found.cause, found.features) == ("retry_storm", {"rate_shift": 2.0})
    assert found.rules[CLASSES.index("traffic_surge")] > 0.7
    assert lived([incident], {}) == [] and lived([incident], {7: "a_cause_of_ours"}) == []


def test_what_an_old_incident_did_not_carry_is_completed_from_its_evidence() -> None:
    """Only what nobody knew then: what was kept stays as it was."""
    told = (
        Evidence(id="e1", kind="signal", at=1.0, text="t", data={"unwritten": 3.0, "about": "service"}),
        Evidence(id="e2", kind="signal", at=1.0, text="t", data={"cpu_times": 8.0, "disk_used": 0.9, "subject": "r1"}),
        Evidence(id="e3", kind="condition", at=1.0, text="t", data={"change_verified": True}),
    )
    incident = Incident(
        id=7, subject="default/service/a", severity="critical", title="t", began=1.0, opened=1.0, evidence=told,
        features={"rate_shift": 2.0, "cpu_times": 1.0},
    )  # fmt: skip
    assert completed(incident) == {
        "rate_shift": 2.0, "cpu_times": 1.0, "unwritten": 2.0, "change_verified": 1.0, "by_condition": 1.0
    }  # fmt: skip
