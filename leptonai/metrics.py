"""Re-exports ``leptonai.lab.metrics``; needs the extra ``torch``."""

try:
    from leptonai.lab.metrics import MAE as MAE
    from leptonai.lab.metrics import RMSE as RMSE
    from leptonai.lab.metrics import ndcg as ndcg
except ModuleNotFoundError as e:
    from leptonai.errors import NotInstalled

    raise NotInstalled("leptonai.metrics", e.name) from e
