"""The error tree. Each has a stable code, an HTTP status, an exit code, whether a retry can help, and a hint.

LeptonError ─┬─ SpecError         400  exit 2   the wish, the request or the file is malformed
             ├─ Denied            403  exit 3   token, role, pace, cool-down or approval says no
             ├─ NotFound          404  exit 4
             ├─ Conflict          409  exit 5   somebody changed it first
             ├─ PlatformError     500  exit 6   ─┬─ CapacityError 503   no room
             │                                   └─ StartError    502   a process would not start
             ├─ TelemetryError    502  exit 7
             ├─ ModelError        500  exit 8   a model cannot be loaded or failed
             └─ PluginError       500  exit 9  ─── NotInstalled       (an ImportError too)
"""

from __future__ import annotations

from typing import Any

# The extra that brings a module, where that is ours to say.
EXTRAS = {
    "ai_edge_litert": "tflite",
    "lightkube": "kubernetes",
    "matplotlib": "plot",
    "ml_dtypes": "onnx",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "compress",
    "optuna": "tune",
    "psycopg": "postgres",
    "skl2onnx": "onnx",
    "sklearn": "sklearn",
    "skops": "sklearn",
    "tensorflow": "tensorflow",
    "threadpoolctl": "sklearn",
    "torch": "torch",
}


class LeptonError(Exception):
    """``message`` names the thing, the value and the limit; ``hint`` says what to do next."""

    code = "internal"
    status = 500
    exit_code = 1
    retry = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str | None = None,
        status: int | None = None,
        retry: bool | None = None,
        retry_after: float | None = None,
        **detail: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or type(self).code
        self.status = status or type(self).status
        self.retry = type(self).retry if retry is None else retry
        self.retry_after = retry_after
        self.detail = detail

    def body(self) -> dict[str, Any]:
        """The one JSON shape of an error, a superset of the Open Inference Protocol's ``{"error": "..."}``."""
        out: dict[str, Any] = {"error": self.message, "code": self.code, "hint": self.hint, "retry": self.retry}
        if self.retry_after is not None:
            out["retry_after"] = self.retry_after
        if self.detail:
            out["detail"] = self.detail
        return out


class SpecError(LeptonError):
    code, status, exit_code = "spec", 400, 2


class Denied(LeptonError):
    code, status, exit_code = "denied", 403, 3


class NotFound(LeptonError):
    code, status, exit_code = "not_found", 404, 4


class Conflict(LeptonError):
    code, status, exit_code = "conflict", 409, 5


class PlatformError(LeptonError):
    code, status, exit_code = "platform", 500, 6


class CapacityError(PlatformError):
    code, status, retry = "capacity", 503, True


class StartError(PlatformError):
    code, status = "start", 502


class TelemetryError(LeptonError):
    code, status, exit_code, retry = "telemetry", 502, 7, True


class ModelError(LeptonError):
    code, status, exit_code = "model", 500, 8


class PluginError(LeptonError):
    code, status, exit_code = "plugin", 500, 9


class NotInstalled(PluginError, ImportError):
    """``what`` (a feature, in words) needs ``module``; the hint says how to install it."""

    def __init__(self, what: str, module: str | None, **more: Any) -> None:
        root = (module or "a module").partition(".")[0]
        super().__init__(f"{what} needs {root}, which is not installed", hint=how_to_install(root), **more)


def how_to_install(module: str) -> str:
    """The command that brings a module: by the extra, where one of ours has it."""
    return f"pip install 'leptonai-platform[{EXTRAS[module]}]'" if module in EXTRAS else f"pip install {module}"


def needs(what: str, *modules: str) -> None:
    """Raises NotInstalled for the first of ``modules`` that is not here: better before the work than in it."""
    from importlib.util import find_spec

    for module in modules:
        if find_spec(module) is None:
            raise NotInstalled(what, module)


def from_body(status: int, body: dict[str, Any]) -> LeptonError:
    """The error that a server's JSON body stands for: its class is told by the body's code, else by the HTTP status."""
    kinds = (SpecError, Denied, NotFound, Conflict, CapacityError, PlatformError)
    coded = (*kinds, StartError, TelemetryError, ModelError, PluginError, LeptonError)
    by_status = 403 if status == 401 else status  # both are Denied: who you are, and what you may
    kind = next((k for k in coded if k.code == body.get("code")), None)
    kind = kind or next(
        (k for k in kinds if k.status == by_status), SpecError if 400 <= status < 500 else PlatformError
    )
    return kind(
        str(body.get("error", f"HTTP {status}")),
        hint=str(body.get("hint", "")),
        code=body.get("code"),
        status=status,
        retry=body.get("retry"),
        retry_after=body.get("retry_after"),
        **(body.get("detail") or {}),
    )
