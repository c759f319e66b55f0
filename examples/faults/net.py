"""The amplitude spectra of three sensors to scores of five conditions of a machine."""

from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, bins: int = 99, width: int = 96, conditions: int = 5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(bins), nn.Linear(bins, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, conditions),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores
