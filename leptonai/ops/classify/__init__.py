"""Classifiers of incidents beside the rules: a support vector machine, a random forest and a small neural net.

``models`` compute with plain arrays, so that ops needs no scikit-learn; ``train`` fits them with it, in a process of
its own; ``ensemble`` weighs them and the rules together; ``opinion`` says what that does to an incident's causes;
``score`` and ``evaluate`` measure; ``files`` keeps versions.
"""

from leptonai.ops.classify.ensemble import CLASSES, Ensemble, Opinion, of_rules
from leptonai.ops.classify.score import Score, score

__all__ = ["CLASSES", "Ensemble", "Opinion", "Score", "of_rules", "score"]
