"""A form for the users of a service: one page, no script, no session; what it takes is feedback like any other.

Whoever may open the page may answer it: it is open only where the spec says ``survey: {open: true}``. A form carries a
token signed for its service and hour, so that another site cannot make its visitors answer; answers are bounded for
each service and each address. Nothing of what others wrote is ever shown on it.
"""

from __future__ import annotations

import hashlib
import hmac
import html
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route as Path

from leptonai.api.issues import take_up
from leptonai.api.pace import Pace
from leptonai.api.route import read_stream
from leptonai.api.sessions import same_origin
from leptonai.errors import Denied, LeptonError, NotFound, SpecError
from leptonai.ops.feedback.kpi import ANYBODY
from leptonai.types import DEFAULT_WORKSPACE, NAME, Feedback, Service, Survey, make_key

if TYPE_CHECKING:
    from leptonai.api.world import World

HOUR = 3600
HOURS = 12  # that a form may stay open before it is sent
MOST_TEXT = 2000  # characters
MOST_BODY = 16_384  # bytes: the text, percent-encoded
OF_ADDRESS, OF_SERVICE = (0.1, 5.0), (5.0, 100.0)  # answers a second, and at once
ADDRESSES = 10_000  # that are remembered; past it all are forgotten
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STYLE = """body{font:16px/1.5 system-ui,"Noto Sans CJK SC",sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem}
fieldset{border:0;padding:0}label{margin-right:1rem;white-space:nowrap}textarea{width:100%;height:7rem;font:inherit}
button{font:inherit;padding:.4rem 1.2rem;margin-top:1rem}.e{color:#c0302b}"""
WORDS = {
    "en": ("How good are the answers of {}?", "In your words (optional)", "Send", "Thank you.", "{} is the best"),
    "zh": ("您对 {} 的回答满意吗？", "您的意见（可不填）", "提交", "感谢您的反馈。", "{} 为最好"),
}


class Surveys:
    """The forms of one platform; ``secret`` signs their tokens."""

    def __init__(self, world: World, secret: bytes) -> None:
        self._world = world
        self._key = hmac.digest(secret, b"leptonai survey", "sha256")
        self._by_address, self._by_service = Pace(*OF_ADDRESS), Pace(*OF_SERVICE)
        self._addresses: set[str] = set()

    def routes(self) -> list[Path]:
        both = ["/survey/{name}", "/survey/{workspace}/{name}"]
        return [Path(path, self._answered(), methods=["GET", "POST"]) for path in both]

    def _answered(self) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            language = "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"
            try:
                service, survey = self._open(request)
                if request.method == "GET":
                    return self._form(service, survey, language)
                return await self._take(request, service, survey, language)
            except LeptonError as e:
                said = f'<p class="e">{html.escape(e.message)}</p><p>{html.escape(e.hint)}</p>'
                headers = {} if e.retry_after is None else {"retry-after": str(max(1, round(e.retry_after)))}
                return _page(said, language, e.status, headers)

        return answer

    def _open(self, request: Request) -> tuple[Service, Survey]:
        """The service whose form is open; one that is closed is told apart from one that is not there by nobody."""
        workspace, name = request.path_params.get("workspace", DEFAULT_WORKSPACE), request.path_params["name"]
        if NAME.fullmatch(workspace) and NAME.fullmatch(name):
            try:
                service = self._world.wishes.get(make_key(name, workspace), self._world.clock()).service
            except NotFound:
                service = None
            if service is not None and service.spec.survey is not None and service.spec.survey.open:
                return service, service.spec.survey
        raise NotFound("there is no form here", hint="its address is /survey/SERVICE, where the service has one")

    def _form(self, service: Service, survey: Survey, language: str) -> Response:
        question, text, send, _, best = WORDS[language]
        low, high = survey.scale
        asked = html.escape(survey.question or question.format(service.spec.name))
        choices = "".join(
            f'<label><input type="radio" name="rating" value="{n}" required> {n}</label>' for n in range(low, high + 1)
        )
        token = self._token(service.key, int(self._world.clock()) // HOUR)
        body = (
            f'<form method="post"><fieldset><legend><h1>{asked}</h1></legend>{choices}</fieldset>'
            f"<p>{html.escape(best.format(high))}</p>"
            f'<p><label for="t">{text}</label></p><textarea id="t" name="text" maxlength="{MOST_TEXT}"></textarea>'
            f'<input type="hidden" name="token" value="{token}"><button>{send}</button></form>'
        )
        return _page(body, language)

    async def _take(self, request: Request, service: Service, survey: Survey, language: str) -> Response:
        if (refusal := self._world.closed()) is not None:
            raise refusal
        raw = bytearray()
        async for piece in read_stream(request, MOST_BODY):
            raw += piece
        try:
            fields = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=10, errors="strict")
        except ValueError as e:
            raise SpecError("this is no form", hint="open the page and send it from there") from e
        said = {name: values[0] for name, values in fields.items()}
        now = self._world.clock()
        if not self._ours(service.key, said.get("token", ""), now) or not same_origin(request):
            raise Denied("this form was not made here, or is too old", hint="open the page again", code="origin")
        try:
            rating = int(said.get("rating", ""))
        except ValueError:
            raise SpecError("no rating was given", hint="choose one") from None
        if not survey.scale[0] <= rating <= survey.scale[1]:
            raise SpecError(f"the rating {rating} is not on the scale", hint="choose one of the page")
        text = said.get("text", "").strip()
        if len(text) > MOST_TEXT:
            raise SpecError(f"the text has {len(text)} characters, the limit is {MOST_TEXT}", hint="say it shorter")
        address = request.client.host if request.client else ""
        forwarded = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()[:64]
        self._paced(forwarded or address, service.key, now)
        item = Feedback(
            about=ANYBODY + service.key, by="survey", at=now, service=service.key, rating=float(rating), note=text
        )
        with self._world.store.transaction():
            self._world.store.append_feedback(item)
            take_up(self._world.store, item, service)
        return _page(f"<h1>{WORDS[language][3]}</h1>", language)

    def _paced(self, address: str, key: str, now: float) -> None:
        if len(self._addresses) >= ADDRESSES:
            self._addresses.clear()
            self._by_address = Pace(*OF_ADDRESS)
        self._addresses.add(address)
        self._by_address.take(address, 1, now)
        self._by_service.take(key, 1, now)

    def _token(self, key: str, hour: int) -> str:
        return f"{hour}.{hmac.new(self._key, f'{key} {hour}'.encode(), hashlib.sha256).hexdigest()}"

    def _ours(self, key: str, token: str, now: float) -> bool:
        hour = token.partition(".")[0]
        if not hour.isascii() or not hour.isdigit() or len(hour) > 12:
            return False
        fresh = 0 <= int(now) // HOUR - int(hour) <= HOURS
        return fresh and hmac.compare_digest(token, self._token(key, int(hour)))


def _page(body: str, language: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width,initial-scale=1"><title>leptonai</title><style>{STYLE}</style><main>{body}</main></html>'
    )
    return HTMLResponse(text, status, HEADERS | (headers or {}))
