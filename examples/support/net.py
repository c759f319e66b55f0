"""Word numbers of a message to scores of the replies that agents give."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, words: int = 260, width: int = 48, replies: int = 14) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.hidden = nn.Sequential(
            nn.Linear(2 * width, 4 * width), nn.ReLU(), nn.Linear(4 * width, 2 * width), nn.ReLU()
        )
        self.out = nn.Linear(2 * width, replies)

    def forward(self, x: Tensor) -> Tensor:
        words = self.words(x)
        scores: Tensor = self.out(self.hidden(torch.cat([words.mean(1), words.amax(1)], 1)))
        return scores
