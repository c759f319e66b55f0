"""What an applicant states to scores of paying back and of default."""

from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, columns: int = 8, width: int = 48) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(columns), nn.Linear(columns, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x)
        return scores
