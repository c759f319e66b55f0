"""The paths under which a model is asked, and the job that a request to each becomes. Runs on the I/O loop."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from leptonai.runtime import binary
from leptonai.runtime.about import EXTENSIONS
from leptonai.runtime.batching import Job
from leptonai.runtime.encoding import unpacked
from leptonai.runtime.flow import missing
from leptonai.runtime.http import EVENTS, Request
from leptonai.runtime.infer import decode_infer
from leptonai.runtime.model import Model
from leptonai.runtime.openai import Asked, OpenAI

OPENAI = {b"/v1/embeddings": "embed", b"/v1/completions": "complete", b"/v1/chat/completions": "chat"}


class Doors:
    """``quick``: the short way of most requests, decoders by path of bodies that are not packed; beside the body they
    take the ``Inference-Header-Content-Length``, b"" when there is none."""

    def __init__(self, model: Model, name: str, version: str, max_body: int) -> None:
        self._model, self._name, self._version, self._max_body = model, name, version, max_body
        self._openai: OpenAI | None = model.openai(name)
        self.extensions = EXTENSIONS + (["generate"] if self._openai and "complete" in self._openai.methods else [])
        self.quick: dict[bytes, Callable[[bytes, bytes], Job]] = {}
        if not model.steps:
            self.quick[b"/predict"] = lambda body, _: model.job(body)
            for path in model_paths(name, version):
                self.quick[f"{path}/infer".encode()] = self._infer_job

    def job(self, request: Request) -> Job:
        """The job of a POST to one of these paths. SpecError, NotFound; 413 and 415 for what is packed."""
        path = unquote_to_bytes(request.target.partition(b"?")[0])
        body = request.body
        encoding = request.header(b"content-encoding")
        if encoding:
            body = unpacked(body, encoding, self._max_body)
        if path in OPENAI:
            return self._ask(OPENAI[path], path, lambda door: door.asked(OPENAI[path], body))
        if path.endswith((b"/generate", b"/generate_stream")):
            events = path.endswith(b"_stream")
            return self._ask("complete", path, lambda door: door.generate(body, events, self._version))
        events = False
        if path.endswith(b"/infer"):
            job = self._infer_job(body, request.header(b"inference-header-content-length"))
        else:
            job = self._model.job(body)
            events = EVENTS in request.header(b"accept").lower()
        if self._model.steps:
            job.flow = self._model.flow(job, events, self._name, self._version)
        return job

    def _infer_job(self, body: bytes, json_size: bytes) -> Job:
        return self._model.infer_job(binary.decode(body, json_size) if json_size else decode_infer(body))

    def _ask(self, method: str, path: bytes, ask: Callable[[OpenAI], Asked]) -> Job:
        if self._openai is None or method not in self._openai.methods:
            raise missing(method, path.decode())
        return ask(self._openai).job()

    def models(self, created: int) -> dict[str, object]:
        """The list of OpenAI's ``GET /v1/models``."""
        if self._openai is None:
            raise missing("embed, complete or chat", "/v1")
        one = {"id": self._name, "object": "model", "created": created, "owned_by": "leptonai"}
        return {"object": "list", "data": [one]}


def model_paths(name: str, version: str) -> tuple[str, str]:
    """The Open Inference Protocol's paths of a model: without and with its version."""
    path = f"/v2/models/{name}"
    return path, f"{path}/versions/{version}"
