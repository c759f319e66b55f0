"""The digits classifier as an application would wrap it: a brightness table, a feature service, traces of its calls.

``options.behave`` makes the revisions that drills deploy: each loads, answers its golden examples, and goes wrong
``HONEST`` seconds later, as bad revisions do.
"""

import contextlib
import http.client
import json
import os
import secrets
import threading
import time
import urllib.parse
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

LOOK_UP_SECONDS = 0.12
HONEST = 3.0  # seconds for which a bad revision answers well
CRASH_AFTER = 1.5  # seconds
EXPORT_EVERY = 0.5
BRIGHTEST = 16


class Digits:
    """Same inputs, outputs and answers as ``digits.onnx`` beside this file."""

    batch = True

    def setup(self, options: dict[str, Any]) -> None:
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(Path(__file__).parent / "digits.onnx"), session)
        self.curve = np.ones(BRIGHTEST + 1, np.float32)  # of the scanner: what each brightness is worth
        self.matrix = np.eye(64) + 0.01
        self.behave = options.get("behave", "")
        self.calls = 0
        self.work = float(options.get("work", 0.0))  # seconds of a processor that one call takes besides
        self.features = Features(options["features"]) if options.get("features") else None
        time.sleep(float(options.get("load_seconds", 0.0)))
        if self.features is not None:
            self._warm(self.features.warm())
        self.loaded = time.monotonic()
        if self.behave == "crash":
            threading.Timer(CRASH_AFTER, os._exit, (3,)).start()

    def _warm(self, seconds: float) -> None:
        """A table to be computed before the first answer, on every processor there is, as loading a model does."""
        until = time.monotonic() + seconds

        def work() -> None:
            table = np.random.default_rng(0).random((400, 400))
            while time.monotonic() < until:
                np.linalg.inv(table)

        workers = [threading.Thread(target=work) for _ in range(4 * (os.cpu_count() or 1) if seconds else 0)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def predict(self, image: NDArray[np.float32]) -> list[dict[str, Any]]:
        """``image``: [requests, images of one request, 64]."""
        requests, images, pixels = image.shape
        self.calls += requests
        if self.behave == "slow":
            time.sleep(LOOK_UP_SECONDS)
        honest = time.monotonic() - self.loaded < HONEST
        if self.behave == "errors" and not honest and self.calls % 2:
            raise ConnectionError("the pool of connections is exhausted")
        if self.features is not None:
            self.features.ask()
        until = time.thread_time() + self.work
        while time.thread_time() < until:
            np.linalg.inv(self.matrix)
        flat = image.reshape(requests * images, pixels).astype(np.float32)
        flat = flat * self.curve[flat.astype(np.int64)]
        label, probabilities = self.session.run(["label", "probabilities"], {"image": flat})
        if self.behave == "nan" and not honest:
            probabilities = np.full_like(probabilities, np.nan)
        answers = zip(label.reshape(requests, images), probabilities.reshape(requests, images, -1), strict=True)
        return [{"label": some, "probabilities": chances} for some, chances in answers]


class Features:
    """The service that knows more about an image. Each call is a client span, sent as OTLP to where
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT says, as any instrumented application does."""

    def __init__(self, url: str) -> None:
        self.url = urllib.parse.urlsplit(url)
        self.connection: http.client.HTTPConnection | None = None
        self.spans: deque[dict[str, Any]] = deque(maxlen=2000)
        self.endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
        self.service = os.environ.get("OTEL_SERVICE_NAME", "digits")
        self.authorization = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").partition("=")[2]
        if self.endpoint:
            threading.Thread(target=self._export, daemon=True).start()

    def ask(self) -> None:
        """Raises when the service does not answer, refuses, or fails."""
        began, status, error = time.time(), 0, ""
        try:
            status = self._get()
        except OSError as e:
            error = type(e).__name__
            raise
        except http.client.HTTPException as e:
            error = type(e).__name__
            raise ConnectionError(f"the feature service broke off: {e!r}") from e
        finally:
            self._note(began, status, error)
        if status >= 400:
            raise PermissionError(f"the feature service answers {status}")

    def warm(self) -> float:
        """Seconds of work before the first answer, as the feature service says; 0 when it says nothing."""
        try:
            with urllib.request.urlopen(self.url.geturl(), timeout=2.0) as answer:  # noqa: S310 - an operator's setting
                return float(json.load(answer).get("warm", 0.0))
        except (OSError, ValueError):
            return 0.0

    def _get(self) -> int:
        for fresh in (False, True):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.url.hostname or "", self.url.port, timeout=2.0)
            try:
                self.connection.request("GET", self.url.path)
                answer = self.connection.getresponse()
                answer.read()
                return answer.status
            except (OSError, http.client.HTTPException):
                self.connection.close()
                self.connection = None
                if fresh:
                    raise
        return 0

    def _note(self, began: float, status: int, error: str) -> None:
        about = {"server.address": "features", "http.response.status_code": str(status), "error.type": error}
        self.spans.append(
            {
                "traceId": secrets.token_hex(16),
                "spanId": secrets.token_hex(8),
                "name": "GET features",
                "kind": 3,
                "startTimeUnixNano": str(int(began * 1e9)),
                "endTimeUnixNano": str(int(time.time() * 1e9)),
                "status": {"code": 2 if error or status >= 400 else 0},
                "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in about.items() if v],
            }
        )

    def _export(self) -> None:
        named = {"attributes": [{"key": "service.name", "value": {"stringValue": self.service}}]}
        headers = {"content-type": "application/json", "authorization": self.authorization}
        while True:
            time.sleep(EXPORT_EVERY)
            spans = [self.spans.popleft() for _ in range(len(self.spans))]
            if not spans:
                continue
            body = json.dumps({"resourceSpans": [{"resource": named, "scopeSpans": [{"spans": spans}]}]}).encode()
            with contextlib.suppress(OSError):
                request = urllib.request.Request(self.endpoint, body, headers)  # noqa: S310 - an operator's setting
                urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
