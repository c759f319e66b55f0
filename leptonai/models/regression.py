"""Re-exports ``leptonai.lab.ar``; needs the extra ``torch``."""

try:
    from leptonai.lab.ar import AR as AR
except ModuleNotFoundError as e:
    from leptonai.errors import NotInstalled

    raise NotInstalled("leptonai.models.regression", e.name) from e
