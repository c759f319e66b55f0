"""Re-exports ``leptonai.lab.metrics``; needs the extra ``torch``."""

from leptonai.lab.metrics import MAE as MAE
from leptonai.lab.metrics import RMSE as RMSE
from leptonai.lab.metrics import ndcg as ndcg
