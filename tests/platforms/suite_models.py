"""The models that the suite of platforms deploys: one that answers, one that does not load, one that never has."""

GOOD = """
class Double:
    def setup(self):
        print("loaded")

    def predict(self, x: float) -> float:
        return 2 * x
"""
FAILING = """
class Broken:
    def setup(self):
        raise RuntimeError("no such weights")

    def predict(self, x: float) -> float:
        return x
"""
ENDLESS = """
import time

class Slow:
    def setup(self):
        time.sleep(600)

    def predict(self, x: float) -> float:
        return x
"""
