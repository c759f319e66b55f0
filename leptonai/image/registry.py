"""A registry, spoken to as the OCI distribution specification 1.1 says: what is there is not sent again."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urljoin

import httpx

from leptonai.errors import Denied, NotFound, PlatformError, SpecError

CHUNK = 8 << 20  # bytes of one PATCH: a lost connection costs no more
TRIES = 5
_FIRST = 0.5  # seconds before the second try, doubled each time
_NAME = re.compile(
    r"(?P<host>[a-z0-9.-]+\.[a-z0-9-]+(:\d+)?|localhost(:\d+)?|[a-z0-9.-]+:\d+|\[[0-9a-f:]+\](:\d+)?)"
    r"/(?P<repository>[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
)


class Reference(NamedTuple):
    host: str
    repository: str
    tag: str

    @property
    def text(self) -> str:
        return f"{self.host}/{self.repository}:{self.tag}"


def reference(name: str) -> Reference:
    """SpecError when ``name`` is not ``host[:port]/repository[:tag]``."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise SpecError(f"{name!r} names no image in a registry", hint="as in registry.example:5000/team/digits:v1")
    return Reference(match["host"], match["repository"], match["tag"] or "latest")


class Registry:
    """``user`` and ``password`` are sent where the registry asks for them, and to nobody else."""

    def __init__(self, host: str, *, plain: bool = False, user: str = "", password: str = "", timeout: float = 60.0):
        """``plain``: HTTP. ``timeout``: seconds one request may take."""
        self.host = host
        self._root = f"{'http' if plain else 'https'}://{host}"
        self._user, self._password = user, password
        self._authorization: dict[str, str] = {}
        self._http = httpx.Client(timeout=timeout, follow_redirects=False)

    def close(self) -> None:
        self._http.close()

    def has(self, repository: str, digest: str) -> bool:
        answer = self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", repository, allowed=(200, 404))
        return answer.status_code == 200

    def mount(self, repository: str, digest: str, source: str) -> bool:
        """Whether the registry took the blob over from its repository ``source``."""
        query = urlencode({"mount": digest, "from": source})
        answer = self._ask(
            "POST", f"/v2/{repository}/blobs/uploads/?{query}", repository, allowed=(201, 202), also=source
        )
        if answer.status_code == 202:  # it began an upload instead
            self._ask("DELETE", self._place(answer), repository, allowed=(200, 202, 204, 404, 405))
        return answer.status_code == 201

    def upload(self, repository: str, digest: str, path: Path) -> None:
        """The file at ``path``, in chunks; after a lost connection the registry says from where to go on."""
        size, at = path.stat().st_size, 0
        place = self._place(self._ask("POST", f"/v2/{repository}/blobs/uploads/", repository, allowed=(202,)))
        failed = 0
        with path.open("rb") as f:
            while at < size:
                f.seek(at)
                chunk = f.read(CHUNK)
                headers = {"Content-Range": f"{at}-{at + len(chunk) - 1}", "Content-Type": "application/octet-stream"}
                answer, lost = None, ""
                try:
                    answer = self._once("PATCH", place, repository, content=chunk, headers=headers)
                except httpx.TransportError as e:
                    lost = str(e) or type(e).__name__
                if answer is not None and answer.status_code == 202:
                    place, failed = self._place(answer), 0
                    at += len(chunk)
                    continue
                if answer is not None and answer.status_code not in (408, 416, 429, 500, 502, 503, 504):
                    raise self._refused(answer, "PATCH", place)
                if answer is not None:
                    lost = f"status {answer.status_code}"
                failed += 1
                if failed == TRIES:
                    raise PlatformError(
                        f"the upload of {digest} to {self.host} broke off at {at} of {size} bytes: {lost}",
                        hint="push again: what is there already is not sent again",
                        retry=True,
                    )
                time.sleep(_FIRST * 2 ** (failed - 1))
                status = self._ask("GET", place, repository, allowed=(204, 404))
                if status.status_code == 404:  # it forgot the upload
                    place = self._place(
                        self._ask("POST", f"/v2/{repository}/blobs/uploads/", repository, allowed=(202,))
                    )
                    at = 0
                else:
                    place, at = self._place(status), _received(status)
        joint = "&" if "?" in place else "?"
        self._ask("PUT", f"{place}{joint}{urlencode({'digest': digest})}", repository, allowed=(201,))

    def tag(self, repository: str, tag: str, media: str, manifest: bytes) -> str:
        """The manifest under ``tag``; returns the digest as the registry names it."""
        answer = self._ask(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            repository,
            allowed=(201,),
            content=manifest,
            headers={"Content-Type": media},
        )
        return str(answer.headers.get("docker-content-digest", ""))

    # --- speaking --------------------------------------------------------------------------------------------------

    def _ask(
        self, method: str, path: str, repository: str, *, allowed: tuple[int, ...], also: str = "", **more: Any
    ) -> httpx.Response:
        """One request, tried again where that can help. Denied, NotFound, PlatformError in our words."""
        said = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(_FIRST * 2 ** (attempt - 1))
            try:
                answer = self._once(method, path, repository, also, **more)
            except httpx.TransportError as e:
                said = str(e) or type(e).__name__
                continue
            if answer.status_code in allowed:
                return answer
            if answer.status_code not in (408, 429, 500, 502, 503, 504):
                raise self._refused(answer, method, path)
            said = f"status {answer.status_code}"
        raise PlatformError(
            f"the registry {self.host} does not answer {method}: {said}",
            hint="is it there, and does it speak HTTPS? --plain-http for one that does not",
            retry=True,
        )

    def _once(self, method: str, path: str, repository: str, also: str = "", **more: Any) -> httpx.Response:
        url = urljoin(self._root, path)
        headers = more.pop("headers", {})
        own = httpx.URL(url).netloc == httpx.URL(self._root).netloc  # an upload may be sent elsewhere, without our name
        answer = self._http.request(method, url, headers=headers | (self._authorization if own else {}), **more)
        if answer.status_code == 401 and own and self._authorize(answer, repository, also):
            answer = self._http.request(method, url, headers=headers | self._authorization, **more)
        return answer

    def _authorize(self, answer: httpx.Response, repository: str, also: str) -> bool:
        """Take up the registry's challenge; False when it makes none that we can take."""
        challenge = answer.headers.get("www-authenticate", "")
        scheme, _, rest = challenge.partition(" ")
        basic = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        if scheme.lower() == "basic":
            if not self._user:
                raise Denied(f"the registry {self.host} wants a name and a password", hint=_LOGIN)
            self._authorization = {"Authorization": f"Basic {basic}"}
            return True
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() != "bearer" or "realm" not in fields:
            return False
        scopes = [f"repository:{repository}:pull,push"] + ([f"repository:{also}:pull"] if also else [])
        asked = [("service", fields["service"])] if "service" in fields else []
        query = urlencode([*asked, *(("scope", scope) for scope in scopes)])
        headers = {"Authorization": f"Basic {basic}"} if self._user else {}
        given = self._http.get(f"{fields['realm']}?{query}", headers=headers)
        if given.status_code != 200:
            raise Denied(f"{fields['realm']} gives no token for {repository}: status {given.status_code}", hint=_LOGIN)
        body = given.json()
        self._authorization = {"Authorization": f"Bearer {body.get('token') or body.get('access_token')}"}
        return True

    def _place(self, answer: httpx.Response) -> str:
        return urljoin(self._root, answer.headers["location"])

    def _refused(self, answer: httpx.Response, method: str, path: str) -> Exception:
        try:
            said = "; ".join(f"{e.get('code')}: {e.get('message')}" for e in answer.json()["errors"])
        except (ValueError, KeyError, TypeError, AttributeError):
            said = answer.text[:200].strip()
        what = f"the registry {self.host} answers {method} {httpx.URL(path).path} with {answer.status_code}: {said}"
        if answer.status_code in (401, 403):
            return Denied(what, hint=_LOGIN)
        if answer.status_code == 404:
            return NotFound(what, hint="is the repository's name right, and may it be made by a push?")
        return PlatformError(what, hint="the registry's own log says more")


_LOGIN = "REGISTRY_USER and REGISTRY_PASSWORD, or `docker login`; the account must be allowed to push there"


def _received(answer: httpx.Response) -> int:
    """Bytes that the registry has of an upload: its Range is ``0-<last>``, and ``0-0`` of an empty one."""
    last = answer.headers.get("range", "0-0").removeprefix("bytes=").rpartition("-")[2]
    return int(last) + 1 if int(last) else 0
