"""Word numbers to scores of negative, neutral, positive. Order matters: "fails to beat" is not "beats"."""

from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, words: int = 160, width: int = 48, classes: int = 3) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.phrases = nn.Conv1d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Sequential(nn.Linear(2 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width), nn.ReLU())
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        found = self.phrases(self.words(x).movedim(1, 2)).relu().amax(2)
        scores: Tensor = self.out(self.hidden(found))
        return scores
