"""The one door: every change of a wish is proposed, judged by a pure function, and recorded in one transaction."""

from leptonai.admit.door import Door as Door
from leptonai.admit.judge import automatic as automatic
from leptonai.admit.judge import judge as judge
from leptonai.admit.judge import kinds as kinds
from leptonai.admit.tokens import bootstrap as bootstrap
from leptonai.admit.tokens import issue as issue
from leptonai.admit.world import World as World
from leptonai.admit.world import diff as diff

__all__ = ["Door", "World", "automatic", "bootstrap", "diff", "issue", "judge", "kinds"]
