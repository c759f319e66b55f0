"""TITLE: replace the body of ``predict`` by your model."""


class TITLE:
    def setup(self) -> None:
        """Called once in each replica, before it takes requests: load weights here."""
        self.greeting = "hello"

    def predict(self, name: str = "world") -> str:
        """Called for each request; the type hints are the signature that callers see."""
        return f"{self.greeting}, {name}"
