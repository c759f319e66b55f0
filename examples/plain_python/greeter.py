"""A service from a plain class: no base class, no decorator. The type hints of ``predict`` are its signature."""


class Greeter:
    def setup(self) -> None:
        """Runs once when a replica starts; load weights here."""
        self.greeting = "Hello"

    def predict(self, name: str, times: int = 1) -> str:
        return ", ".join([f"{self.greeting} {name}"] * times)
