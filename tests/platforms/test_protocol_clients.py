"""Real clients against a real platform through Envoy: tritonclient, KServe's SDK, openai, curl, a browser."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from local_world import World

pytestmark = pytest.mark.world

MODEL = """
import asyncio, time
import numpy as np

class Model:
    def predict(self, x: np.ndarray, words: list[str] = (), pause: float = 0.0):
        time.sleep(pause)
        return {"double": 2 * x, "words": np.array([w.upper() for w in words] or [""], object)}

    def embed(self, input: list[str], dimensions: int = 4):
        return [[float(len(t))] * dimensions for t in input]

    async def complete(self, prompt: str, max_tokens: int = 4, pause: float = 0.0):
        try:
            for i in range(max_tokens):
                await asyncio.sleep(pause)
                yield f"{prompt}{i} "
        finally:
            print("ended after", i, flush=True)

    def chat(self, messages, temperature: float = 1.0):
        yield from messages[-1]["content"].split()

PAGE = b'''<!doctype html><body><script>
async function read() {
  const r = await fetch("v1/completions", {method: "POST", headers: {"content-type": "application/json"},
    body: JSON.stringify({prompt: "p", max_tokens: 3, stream: true})});
  const reader = r.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", n = 0;
  for (;;) { const {done, value} = await reader.read(); if (done) break; text += value; n++; }
  return text;
}
function watch() {
  return new Promise(done => {
    const got = [], source = new EventSource("ticks");
    source.onmessage = e => { got.push(e.data); if (got.length == 3) { source.close(); done(got); } };
  });
}
</script></body>'''

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("http only")
    page = scope["path"] == "/page"
    kind = b"text/html" if page else b"text/event-stream"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    if page:
        await send({"type": "http.response.body", "body": PAGE})
        return
    for i in range(3):
        await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % i, "more_body": True})
        await asyncio.sleep(0.02)
    await receive()
    await send({"type": "http.response.body"})
"""


class Live:
    """A platform that runs in a thread of its own while clients ask in this one."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def start(self) -> None:
        self.run(self.world.platform.start())
        self.run(self.world.settle(self.world.service(1, self.world.variant(MODEL), name="m", timeout=20.0)))

    def stop(self) -> None:
        try:
            self.run(self.world.platform.shutdown())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    live = Live(tmp_path_factory.mktemp("clients"))
    try:
        live.start()
        yield live
    finally:
        live.stop()


@pytest.fixture(scope="module")
def url(live: Live) -> str:
    """``http://127.0.0.1:port/services/m``"""
    return live.world.platform.url("m")


# --- tritonclient ---


@pytest.fixture(params=["gateway", "service"])
def triton(request: pytest.FixtureRequest, url: str) -> Iterator[Any]:
    """The client on the gateway's root, as it is used against Triton, and on the service's own path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        http = pytest.importorskip("tritonclient.http")
    at = urlsplit(url)
    client = http.InferenceServerClient(at.netloc + (at.path if request.param == "service" else ""))
    client.http = http
    yield client
    client.close()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("packed", [None, "gzip", "deflate"])
def test_tritonclient(triton: Any, binary_in: bool, binary_out: bool, packed: str | None) -> None:
    x = np.arange(6.0).reshape(2, 3)
    inputs = [triton.http.InferInput("x", [2, 3], "FP64"), triton.http.InferInput("words", [2], "BYTES")]
    inputs[0].set_data_from_numpy(x, binary_data=binary_in)
    inputs[1].set_data_from_numpy(np.array(["a", "ü"], object), binary_data=binary_in)
    outputs = [triton.http.InferRequestedOutput(name, binary_data=binary_out) for name in ("double", "words")]
    got = triton.infer("m", inputs, outputs=outputs, request_id="7", request_compression_algorithm=packed)
    np.testing.assert_array_equal(got.as_numpy("double"), 2 * x)
    words = [w.decode() if isinstance(w, bytes) else w for w in got.as_numpy("words")]
    assert words == ["A", "Ü"]
    assert got.get_response()["id"] == "7"
    everything = triton.infer("m", inputs)  # asks for all outputs as binary
    np.testing.assert_array_equal(everything.as_numpy("double"), 2 * x)


def test_tritonclient_looks_around(triton: Any) -> None:
    assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("m")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    assert triton.get_model_metadata("m")["name"] == "m"
    stats = triton.get_inference_statistics("m")["model_stats"]
    assert stats[0]["name"] == "m" and stats[0]["inference_stats"]["success"].keys() == {"count", "ns"}
    with pytest.raises(Exception, match=r"no service|unknown model"):
        triton.get_model_metadata("nobody")


def test_tritonclient_on_a_service_sees_its_repository(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        http = pytest.importorskip("tritonclient.http")
    at = urlsplit(url)
    with http.InferenceServerClient(at.netloc + at.path) as client:
        [model] = client.get_model_repository_index()
        assert (model["name"], model["state"]) == ("m", "READY")
        client.load_model("m")
        with pytest.raises(http.InferenceServerException, match="cannot unload"):
            client.unload_model("m")


# --- KServe's SDK ---


def test_kserve_inference_client(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kserve = pytest.importorskip("kserve")
        from kserve.inference_client import InferenceRESTClient, RESTConfig

    async def story() -> None:
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        base = url.partition("/services")[0]
        assert await client.is_server_live(base) and await client.is_server_ready(base)
        assert await client.is_model_ready(base, "m")
        for binary in (False, True):
            tensor = kserve.InferInput("x", [3], "FP64")
            tensor.set_data_from_numpy(np.arange(3.0), binary_data=binary)
            outputs = [kserve.protocol.infer_type.RequestedOutput("double", {"binary_data": binary})]
            asked = kserve.InferRequest(model_name="m", infer_inputs=[tensor], request_outputs=outputs)
            got = await client.infer(base, asked, model_name="m")
            np.testing.assert_array_equal(got.outputs[0].as_numpy(), [0.0, 2.0, 4.0])
        await client.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asyncio.run(story())


# --- openai ---


@pytest.fixture(scope="module")
def openai(url: str) -> Iterator[Any]:
    module = pytest.importorskip("openai")
    with module.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        client.module = module
        yield client


def test_openai_client(openai: Any) -> None:
    assert [m.id for m in openai.models.list()] == ["m"]
    vectors = openai.embeddings.create(model="m", input=["a", "bb"], dimensions=2).data  # asks for base64 by itself
    assert [v.embedding for v in vectors] == [[1.0, 1.0], [2.0, 2.0]]
    assert openai.completions.create(model="m", prompt="x", max_tokens=2).choices[0].text == "x0 x1 "
    asked = [{"role": "user", "content": "one two"}]
    answer = openai.chat.completions.create(model="m", messages=asked)
    assert answer.choices[0].message.content == "onetwo"
    pieces = [
        c.choices[0].delta.content for c in openai.chat.completions.create(model="m", messages=asked, stream=True)
    ]
    assert pieces == ["one", "two", None]
    with pytest.raises(openai.module.NotFoundError, match="unknown model"):
        openai.embeddings.create(model="other", input="a")
    with pytest.raises(openai.module.BadRequestError, match="n is 3"):
        openai.chat.completions.create(model="m", messages=asked, n=3)


def test_a_stream_left_by_its_client_ends_in_the_replica(live: Live, openai: Any, url: str) -> None:
    ask = {"max_tokens": 100_000, "pause": 0.005}
    with openai.completions.create(model="m", prompt="left", stream=True, extra_body=ask) as stream:
        assert next(iter(stream)).choices[0].text == "left0 "
    [replica] = live.world.platform.observe()

    async def ended() -> None:
        lines = lambda: [x.text for x in live.world.platform.logs(replica.id)]  # noqa: E731
        await live.world.until(lambda: any("ended after" in line and "99999" not in line for line in lines()))

    live.run(ended())


# --- curl and a browser ---


def test_curl_reads_a_stream(url: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    base = url.partition("/services")[0]
    ask = json.dumps({"text_input": "c", "parameters": {"max_tokens": 3}})
    command = ["curl", "-sN", "--max-time", "60", "-d", ask, f"{base}/v2/models/m/generate_stream"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [json.loads(line[6:])["text_output"] for line in out.splitlines() if line] == ["c0 ", "c1 ", "c2 "]


def test_a_browser_reads_events(url: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine: events are not read by a browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page()
            page.set_default_timeout(30_000)
            page.goto(f"{url}/page")
            text = page.evaluate("read()")
            assert text.count("data: ") == 5 and text.endswith("data: [DONE]\n\n")
            assert page.evaluate("watch()") == ["0", "1", "2"]
        finally:
            browser.close()
