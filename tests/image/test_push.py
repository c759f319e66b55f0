"""`leptonai push` against Debian's docker-registry: what arrives, what is not sent twice, who is let in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from image_stage import build, document, lock, parts, rootfs, service, wheel
from waiting import free_port

from leptonai.errors import LeptonError, SpecError
from leptonai.image.registry import Registry, reference

REGISTRY = shutil.which("docker-registry")
pytestmark = [pytest.mark.world]
needs_registry = pytest.mark.skipif(REGISTRY is None, reason="no docker-registry (see tests/setup.sh)")
# bcrypt of "secret", as `htpasswd -Bbn ana secret` writes it: the registry takes no other hash
HTPASSWD = "ana:$2y$05$aE0dnJ1W8dk9UQrXWvCqAugbyw26UvWofLIc4Ze1WePqR18T9n3HO\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    locked = lock(folder / "lock.txt", wheel(folder / "wheels", "alpha"))
    out = folder / "doubler.tar"
    text = service(folder / "doubler")
    done = build(text, "--base", rootfs(folder / "base"), "--lock", locked, "-o", out, wheels=folder / "wheels")
    assert done.returncode == 0, done.stderr
    return out


@contextlib.contextmanager
def registry(folder: Path, auth: str = "") -> Iterator[str]:
    """A real registry on a free port; ``auth``: lines of its configuration."""
    assert REGISTRY is not None
    for _ in range(5):  # another process may take the port between the look and the start
        port = free_port()
        config = folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n{auth}"
        )
        log = (folder / "registry.log").open("ab")
        process = subprocess.Popen([REGISTRY, "serve", str(config)], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/v2/").status_code in (200, 401):
                        yield f"127.0.0.1:{port}"
                        return
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
            log.close()
    raise AssertionError((folder / "registry.log").read_text())


def push(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
    return subprocess.run(
        [sys.executable, "-m", "leptonai.cli", "push", *map(str, arguments), "--plain-http"],
        capture_output=True,
        text=True,
        env=clean | env,
    )


@needs_registry
def test_what_was_built_is_what_others_pull(archive: Path, tmp_path: Path) -> None:
    with registry(tmp_path) as host:
        done = push(archive, f"{host}/team/doubler:v1", "--json")
        assert done.returncode == 0, done.stderr
        digest = document(archive)["manifests"][0]["digest"]
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        pulled = httpx.get(f"http://{host}/v2/team/doubler/manifests/v1", headers=accept)
        assert "sha256:" + hashlib.sha256(pulled.content).hexdigest() == digest == json.loads(done.stdout)["digest"]
        for part in [*pulled.json()["layers"], pulled.json()["config"]]:
            blob = httpx.get(f"http://{host}/v2/team/doubler/blobs/{part['digest']}").content
            assert "sha256:" + hashlib.sha256(blob).hexdigest() == part["digest"]

        again = json.loads(push(archive, f"{host}/team/doubler:v2", "--json").stdout)
        assert again["sent"] == 0 and again["there"] == json.loads(done.stdout)["sent"]
        mounted = json.loads(push(archive, f"{host}/other/doubler:v1", "--mount", "team/doubler", "--json").stdout)
        assert mounted["sent"] == 0


@needs_registry
def test_an_upload_is_sent_in_parts_and_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leptonai.image.registry.CHUNK", 1000)
    content = os.urandom(10_500)
    (tmp_path / "blob").write_bytes(content)
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    with registry(tmp_path) as host:
        ours = Registry(host, plain=True)
        ours.upload("team/x", digest, tmp_path / "blob")
        assert ours.has("team/x", digest)
        ours.close()
        assert httpx.get(f"http://{host}/v2/team/x/blobs/{digest}").content == content


@needs_registry
def test_a_name_and_a_password_are_asked_for(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = f"auth: {{htpasswd: {{realm: ours, path: {tmp_path}/htpasswd}}}}\n"
    with registry(tmp_path, auth) as host:
        name = f"{host}/team/doubler:v1"
        nobody = push(archive, name, DOCKER_CONFIG=str(tmp_path / "none"))
        assert nobody.returncode == 3 and "wants a name and a password" in nobody.stderr
        wrong = push(archive, name, REGISTRY_USER="ana", REGISTRY_PASSWORD="no")
        assert wrong.returncode == 3 and "REGISTRY_PASSWORD" in wrong.stderr and "Traceback" not in wrong.stderr
        (tmp_path / "docker").mkdir()
        kept = base64.b64encode(b"ana:secret").decode()
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: {"auth": kept}}}))
        assert push(archive, name, DOCKER_CONFIG=str(tmp_path / "docker")).returncode == 0
        known = push(archive, name, REGISTRY_USER="ana", REGISTRY_PASSWORD="secret")
        assert known.returncode == 0, known.stderr


class Flaky(http.server.BaseHTTPRequestHandler):
    """A registry as the specification says, that asks for a bearer token, and fails the first tries of everything."""

    protocol_version = "HTTP/1.1"
    tokens = 0
    failures: dict[str, int]
    blobs: dict[str, bytes]
    upload: bytes
    scopes: list[str]

    def log_message(self, *args: object) -> None:
        pass

    def _say(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def handle_any(self) -> None:
        body, kind = self._body(), type(self)
        place = urlsplit(self.path)
        if place.path == "/token":
            kind.scopes += parse_qs(place.query)["scope"]
            kind.tokens += 1
            return self._say(200, body=json.dumps({"token": f"t{kind.tokens}"}).encode())
        if self.headers.get("authorization") != f"Bearer t{kind.tokens}" or not kind.tokens:
            realm = f'Bearer realm="http://{self.headers["host"]}/token",service="ours"'
            return self._say(401, {"WWW-Authenticate": realm})
        if kind.failures.get(self.command, 0) > 0:
            kind.failures[self.command] -= 1
            if self.command == "PATCH":  # half of it arrived, and the connection is gone
                kind.upload += body[: len(body) // 2]
                self.close_connection = True
                return None
            return self._say(503)
        match self.command:
            case "HEAD":
                self._say(404)
            case "POST":
                kind.upload = b""
                self._say(202, {"Location": "/upload"})
            case "GET":
                self._say(204, {"Location": "/upload", "Range": f"0-{max(0, len(kind.upload) - 1)}"})
            case "PATCH":
                first = int(self.headers["content-range"].split("-")[0])
                if first != len(kind.upload):
                    return self._say(416)
                kind.upload += body
                self._say(202, {"Location": "/upload", "Range": f"0-{len(kind.upload) - 1}"})
            case "PUT":
                if "manifests" in place.path:
                    digest = "sha256:" + hashlib.sha256(body).hexdigest()
                    kind.blobs[place.path] = body
                else:
                    digest = parse_qs(place.query)["digest"][0]
                    kind.blobs[digest] = kind.upload
                self._say(201, {"Docker-Content-Digest": digest})
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any


@pytest.fixture
def flaky() -> Iterator[tuple[str, type[Flaky]]]:
    kind = type("Once", (Flaky,), {"failures": {}, "blobs": {}, "upload": b"", "scopes": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_port}", kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_goes_on_where_a_lost_connection_left_it(
    archive: Path, flaky: tuple[str, type[Flaky]], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, kind = flaky
    kind.failures = {"HEAD": 1, "POST": 1, "PATCH": 2, "PUT": 1}
    done = push(archive, f"{host}/team/doubler:v1")
    assert done.returncode == 0, done.stderr
    manifest, _ = parts(archive)
    for part in [*manifest["layers"], manifest["config"]]:
        assert "sha256:" + hashlib.sha256(kind.blobs[part["digest"]]).hexdigest() == part["digest"]
    assert set(kind.scopes) == {"repository:team/doubler:pull,push"}
    assert "/v2/team/doubler/manifests/v1" in kind.blobs


def test_a_registry_that_is_not_there_is_said(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leptonai.image.registry._FIRST", 0.0)
    gone = Registry(f"127.0.0.1:{free_port()}", plain=True)
    with pytest.raises(LeptonError, match="does not answer HEAD"):
        gone.has("team/x", "sha256:" + "0" * 64)
    gone.close()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("registry.example/team/digits:v1", "registry.example/team/digits:v1"),
        ("localhost:5000/digits", "localhost:5000/digits:latest"),
        ("127.0.0.1:5000/a/b-c/d:1.0", "127.0.0.1:5000/a/b-c/d:1.0"),
        ("digits:v1", None),
        ("registry.example/Team/digits", None),
        ("registry.example/digits:", None),
        ("https://registry.example/digits", None),
    ],
)
def test_names_of_images(name: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(SpecError, match="names no image in a registry"):
            reference(name)
    else:
        assert reference(name).text == text


def test_a_damaged_archive_is_not_pushed(archive: Path, tmp_path: Path, flaky: tuple[str, type[Flaky]]) -> None:
    host, kind = flaky
    broken = tmp_path / "broken.tar"
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 255
    broken.write_bytes(data)
    done = push(broken, f"{host}/team/doubler:v1")
    assert done.returncode == 2 and "damaged" in done.stderr
    assert not any("manifests" in name for name in kind.blobs)
    nothing = push(tmp_path / "none.tar", f"{host}/team/doubler:v1")
    assert nothing.returncode == 4 and "no archive" in nothing.stderr
