"""Conformance of a Detector. Subclass it in a test module and give ``detector``; pytest finds the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leptonai.protocols import Detector, Floats, Scored

_references: dict[type[DetectorSuite], Scored] = {}


class DetectorSuite:
    """What every Detector must hold, whatever it looks for."""

    steps = 240
    series = 6
    alone: tuple[int, ...] = (0, 1, 2, 3, 4, 5)  # the series that are compared with themselves by themselves

    def detector(self) -> Detector:
        """A new, unopened detector; always with the same options."""
        raise NotImplementedError("give the suite a detector to test")

    def history(self) -> Floats:
        """``[steps, series]``: noise, memory, counts, a constant, a shift, and a series with gaps."""
        rng = np.random.default_rng(11)
        noise = rng.standard_normal((self.steps, self.series))
        x = 10.0 + noise
        for t in range(1, self.steps):
            x[t, 1] = 0.8 * x[t - 1, 1] + noise[t, 1]
        x[:, 2] = rng.poisson(3.0, self.steps)
        x[:, 3] = 5.0
        x[self.steps // 2 :, 4] += 40.0
        x[rng.random(self.steps) < 0.2, 5] = np.nan
        return x

    def opened(self, slots: int) -> Detector:
        detector = self.detector()
        detector.open(slots)
        return detector

    def play(self, detector: Detector, x: Floats, learn: NDArray[np.bool_] | None = None, start: int = 0) -> Scored:
        """The scores of every step, as ``[steps, series]`` arrays."""
        every = np.ones(x.shape[1], dtype=np.bool_)
        told = [
            detector.step(float(start + t), row.copy(), every if learn is None else learn) for t, row in enumerate(x)
        ]
        return Scored(*(np.array(column) for column in zip(*told, strict=True)))

    def reference(self) -> Scored:
        """``play`` of the history, played once for all tests of the class."""
        kept = _references
        if type(self) not in kept:
            kept[type(self)] = self.play(self.opened(self.series), self.history())
        return kept[type(self)]

    def test_shapes_and_units(self) -> None:
        """One score, expectation and scale per slot; a score is a -log10 probability: nan, or finite and >= 0."""
        x = self.history()
        scored = self.reference()
        for column in scored:
            assert column.shape == x.shape
        known = scored.score[~np.isnan(scored.score)]
        assert np.isfinite(known).all() and (known >= 0).all()

    def test_columns_equal_one_by_one(self) -> None:
        """A series scores the same alone as among others: no slot knows of another."""
        x = self.history()
        together = self.reference()
        for i in self.alone:
            alone = self.play(self.opened(1), x[:, [i]])
            np.testing.assert_allclose(alone.score[:, 0], together.score[:, i], rtol=1e-9, atol=1e-12)

    def test_shuffled_slots_give_the_same_scores(self) -> None:
        x = self.history()
        order = np.random.default_rng(5).permutation(self.series)
        plain, shuffled = self.reference(), self.play(self.opened(self.series), x[:, order])
        np.testing.assert_allclose(shuffled.score, plain.score[:, order], rtol=1e-9, atol=1e-12)

    def test_a_step_depends_on_earlier_steps_only(self) -> None:
        """Another future changes no score of the past."""
        x = self.history()
        other = x.copy()
        cut = self.steps // 2
        other[cut:] = other[cut:] * -3.0 + 100.0
        a, b = self.reference(), self.play(self.opened(self.series), other)
        np.testing.assert_array_equal(a.score[:cut], b.score[:cut])

    def test_missing_values_score_nothing_and_poison_nothing(self) -> None:
        """nan and infinite in: nan out at that step; afterwards the slot can tell again, all others never notice."""
        x = self.history()
        holed = x.copy()
        middle = self.steps // 2
        holed[middle - 20 : middle, 0] = np.nan
        holed[middle - 30, 0] = np.inf
        plain, scored = self.reference(), self.play(self.opened(self.series), holed)
        assert np.isnan(scored.score[middle - 20 : middle, 0]).all()
        assert np.isfinite(scored.score[middle:, 0]).all() == np.isfinite(plain.score[middle:, 0]).all()
        np.testing.assert_array_equal(scored.score[:, 1:], plain.score[:, 1:])
        silent = self.play(self.opened(2), np.full((self.steps, 2), np.nan))
        assert np.isnan(silent.score).all()

    def test_what_is_not_to_be_learnt_is_not_learnt(self) -> None:
        """Steps with ``learn`` false leave no trace in the score of a later step's level: a flood is forgotten."""
        x = self.history()[:, :3]
        nothing = np.zeros(3, dtype=np.bool_)
        a, b = self.opened(3), self.opened(3)
        self.play(a, x)
        self.play(b, x)
        self.play(a, np.full((50, 3), 1e6), learn=nothing, start=self.steps)
        self.play(b, np.full((50, 3), 10.0), learn=nothing, start=self.steps)
        after = np.full((1, 3), 11.0)
        one, two = self.play(a, after, start=self.steps + 50), self.play(b, after, start=self.steps + 50)
        np.testing.assert_array_equal(np.isnan(one.score), np.isnan(two.score))
        assert (np.nan_to_num(np.abs(one.expected)) < 1e3).all()

    def test_dump_and_load_continue_to_the_bit(self) -> None:
        x = self.history()
        cut = self.steps // 2
        first = self.opened(self.series)
        self.play(first, x[:cut])
        state = first.dump()
        second = self.detector()
        second.load(state)
        rest = self.play(first, x[cut:], start=cut)
        again = self.play(second, x[cut:], start=cut)
        for one, other in zip(rest, again, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_growing_changes_nothing_for_those_who_are_there(self) -> None:
        x = self.history()
        cut = self.steps // 2
        plain = self.play(self.opened(3), x[:, :3])
        grown = self.opened(3)
        self.play(grown, x[:cut, :3])
        grown.grow(self.series)
        rest = self.play(grown, x[cut:], start=cut)
        np.testing.assert_allclose(rest.score[:, :3], plain.score[cut:], rtol=1e-9, atol=1e-12)
        fresh = self.play(self.opened(self.series), x[cut:])
        np.testing.assert_allclose(rest.score[:, 3:], fresh.score[:, 3:], rtol=1e-9, atol=1e-12)

    def test_a_dropped_slot_is_as_new(self) -> None:
        x = self.history()
        cut = self.steps // 2
        dropped = self.opened(self.series)
        self.play(dropped, x[:cut])
        dropped.drop(np.array([1, 4]))
        rest = self.play(dropped, x[cut:], start=cut)
        fresh = self.play(self.opened(self.series), x[cut:])
        np.testing.assert_allclose(rest.score[:, [1, 4]], fresh.score[:, [1, 4]], rtol=1e-9, atol=1e-12)
