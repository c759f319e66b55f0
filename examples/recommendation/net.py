"""(user, item) numbers to a rating: the embedding-interaction network of the model SDK."""

from torch import Tensor, nn

from leptonai.lab.recommender import Recommender


class Net(nn.Module):
    def __init__(self, users: int = 200, items: int = 120, size: int = 32, mean: float = 3.4) -> None:
        super().__init__()
        self.net = Recommender([users + 1], [items + 1], size, mean)

    def forward(self, x: Tensor) -> Tensor:
        rating: Tensor = self.net(x[:, :1], x[:, 1:])
        return rating
