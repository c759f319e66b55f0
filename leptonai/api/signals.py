"""Signals are kept by ops; the API passes questions on to its Unix socket and the answers back as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from leptonai.errors import TelemetryError


class Signals:
    """``find`` names the socket of the ops process that runs now; None when there is none."""

    def __init__(self, find: Callable[[], str | None], timeout: float = 5.0) -> None:
        self._find = find
        self._timeout = timeout
        self._socket: str | None = None
        self._http: httpx.AsyncClient | None = None

    async def get(self, path: str, params: Mapping[str, str]) -> tuple[int, bytes]:
        """``(status, JSON)`` as ops answered. Raises TelemetryError when it does not answer."""
        return await self._ask("GET", path, params, None)

    async def post(
        self, path: str, params: Mapping[str, str], body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """As ``get``, with ``body`` and what ``headers`` say of it passed on as they are."""
        return await self._ask("POST", path, params, body, headers)

    async def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: bytes | None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        socket = self._find()
        if socket is None:
            raise TelemetryError("ops does not run, so no signals are kept", hint="see logs/ops.log of the home folder")
        if self._http is None or socket != self._socket:
            await self.close()
            transport = httpx.AsyncHTTPTransport(uds=socket)
            self._http = httpx.AsyncClient(transport=transport, base_url="http://ops", timeout=self._timeout)
            self._socket = socket
        try:
            answer = await self._http.request(method, path, params=dict(params), content=body, headers=headers)
        except httpx.HTTPError as e:
            raise TelemetryError(
                f"ops does not answer: {str(e) or type(e).__name__}",
                hint="it is started again within seconds; see logs/ops.log of the home folder",
            ) from e
        return answer.status_code, answer.content

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
        self._http = None
