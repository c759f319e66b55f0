"""The console's routes. Every fact on a page is read through the REST API of the same application, as the visitor."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from leptonai import __version__
from leptonai.console import page
from leptonai.errors import LeptonError, from_body

HEADERS = {
    # Own scripts and styles only: text from logs or feedback can never become code.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Reader:
    """Reads the API in process, with the visitor's own cookie: a page can show only what its visitor may read."""

    def __init__(self, app: Starlette, request: Request) -> None:
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 0))
        self._http = httpx.AsyncClient(
            transport=transport,
            base_url=str(request.base_url).rstrip("/") + "/api/v1",
            headers={k: v for k in ("cookie", "authorization", "host") if (v := request.headers.get(k))},
        )

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def page(self, path: str, **params: Any) -> Any:
        """The decoded answer; raises the LeptonError that the API answered."""
        answer = await self._http.get(path, params=params)
        body = msgspec.json.decode(answer.content) if answer.content else {}
        if answer.status_code != 200:
            raise from_body(answer.status_code, body if isinstance(body, dict) else {"error": str(body)})
        return body

    async def get(self, path: str, **params: Any) -> Any:
        """As ``page``; of an answer with ``items`` only those."""
        body = await self.page(path, **params)
        return body.get("items", body) if isinstance(body, dict) and "items" in body else body


def templates() -> Environment:
    env = Environment(
        loader=PackageLoader("leptonai.console"), autoescape=select_autoescape(), undefined=StrictUndefined
    )
    env.filters.update(ago=page.ago, clock=page.clock, seconds=page.seconds, number=page.number)
    env.globals.update(version=__version__, signal_link=page.signal_link)
    return env


def mount(app: Starlette, clock: Callable[[], float] = time.time) -> None:
    """Add the console's pages to ``app``, which already serves the API. ``/console`` is the live page."""
    env = templates()

    def render(name: str, status: int = 200, **values: Any) -> Response:
        html = env.get_template(name).render(now=clock(), **values)
        return HTMLResponse(html, status_code=status, headers=HEADERS)

    def refused(error: LeptonError) -> Response:
        name = "login.html" if error.status in (401, 403) else "error.html"
        return render(name, status=error.status, error=error)

    async def overview(reader: Reader) -> dict[str, Any]:
        services = await reader.get("/services")
        incidents = await reader.get("/incidents")
        return page.overview(services, incidents, await reader.get("/platform"), clock())

    async def home(request: Request) -> Response:
        async with Reader(app, request) as reader:
            try:
                return render("home.html", **await overview(reader))
            except LeptonError as error:
                return refused(error)

    async def live(request: Request) -> Response:
        async with Reader(app, request) as reader:
            try:
                return render("live.html", **await overview(reader))
            except LeptonError as error:
                return refused(error)

    async def service(request: Request) -> Response:
        name, params = request.path_params["name"], dict(request.query_params)
        async with Reader(app, request) as reader:
            try:
                wish = await reader.get(f"/services/{name}", **params)
                view = page.service(wish, clock())
                revisions = await reader.get(f"/services/{name}/revisions", **params)
                events = await reader.get(f"/services/{name}/events", limit=60, **params)
                logs = await reader.get(f"/services/{name}/logs", limit=60, **params)
                return render("service.html", service=view, revisions=revisions[::-1], events=events, logs=logs)
            except LeptonError as error:
                return refused(error)

    async def advice(request: Request) -> Response:
        """A part of a service's page that takes its time: it is loaded after the page."""
        name, params = request.path_params["name"], dict(request.query_params)
        async with Reader(app, request) as reader:
            try:
                return render("advice.html", advice=await reader.get(f"/services/{name}/advice", **params), trouble="")
            except LeptonError as error:
                return render("advice.html", advice=None, trouble=error.message)

    async def logs(request: Request) -> Response:
        given = request.query_params
        asked = {name: given.get(name, "")[:200] for name in ("search", "service", "level")}
        before = given.get("before", "")
        async with Reader(app, request) as reader:
            try:
                found = await reader.page("/logs", **asked, limit=200, before=before if before.isdigit() else 0)
                older = urlencode({**asked, "before": found["next"]})
                return render("logs.html", page=found, asked=asked, older=older)
            except LeptonError as error:
                return refused(error)

    async def alerting(reader: Reader) -> dict[str, Any]:
        silences = await reader.get("/silences")
        try:
            return page.alerts(await reader.get("/alerts"), silences, clock())
        except LeptonError as error:
            if error.status < 500:
                raise
            return page.alerts([], silences, clock(), error.message)  # ops is away; silences are control's

    def alerts(template: str) -> Callable[[Request], Awaitable[Response]]:
        async def shown(request: Request) -> Response:
            async with Reader(app, request) as reader:
                try:
                    return render(template, **await alerting(reader))
                except LeptonError as error:
                    return refused(error)

        return shown

    async def incident(request: Request) -> Response:
        async with Reader(app, request) as reader:
            try:
                found = await reader.page(f"/incidents/{request.path_params['id']}")
                said = await reader.get(f"/incidents/{found['id']}/reviews")
                causes = await reader.page("/causes")
                view = page.incident(found, clock())
                return render("incident.html", incident=view, reviews=said, causes=causes)
            except LeptonError as error:
                return refused(error)

    async def classifier(request: Request) -> Response:
        async with Reader(app, request) as reader:
            try:
                found, learnt = await reader.page("/classifier"), await reader.page("/learnt")
                return render("classifier.html", **page.classifier(found), learnt=learnt)
            except LeptonError as error:
                return refused(error)

    async def issues(request: Request) -> Response:
        async with Reader(app, request) as reader:
            try:
                return render("issues.html", issues=page.issues(await reader.get("/issues")))
            except LeptonError as error:
                return refused(error)

    async def signals(request: Request) -> Response:
        """``?name=`` and labels: that signal with its band; without a name, what there is to look at."""
        params = dict(request.query_params)
        async with Reader(app, request) as reader:
            try:
                names = await reader.get("/signals/names")
                return render("signals.html", **page.signals(params, names))
            except LeptonError as error:
                return refused(error)

    static = StaticFiles(directory=Path(__file__).parent / "static")

    async def root(request: Request) -> Response:
        return RedirectResponse("/console", status_code=303)

    app.router.routes += [
        Route("/", root),
        Route("/console", home),
        Route("/console/live", live),
        Route("/console/services/{name}", service),
        Route("/console/services/{name}/advice", advice),
        Route("/console/signals", signals),
        Route("/console/incidents/{id:int}", incident),
        Route("/console/issues", issues),
        Route("/console/classifier", classifier),
        Route("/console/alerts", alerts("alerts.html")),
        Route("/console/alerts/live", alerts("alerts_live.html")),
        Route("/console/logs", logs),
        Mount("/console/static", static),
    ]
