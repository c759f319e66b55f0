"""What one call of the API is: method, path, who may make it, what it takes and gives. All else is made from this."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from leptonai.api.callers import Caller
from leptonai.errors import SpecError
from leptonai.types import DEFAULT_WORKSPACE, Key, Role, make_key

if TYPE_CHECKING:
    from leptonai.api.world import World

PREFIX = "/api/v1"
Limit = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]  # items of one answer, or a number that one has
JSON_BODY = 4 << 20  # bytes of one JSON body: an incident with all its evidence is far below; artifacts are streamed
LET_PASS = 32 << 20  # bytes of a body that is too long, read past so that the refusal arrives

Q = TypeVar("Q", bound="Query")
B = TypeVar("B")


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The query of every call. ``workspace`` None: the default one, or all that the token covers in a list."""

    workspace: str | None = None


class Labels(dict[str, str]):
    """A query whose keys are not known beforehand."""


@dataclass(frozen=True)
class Asked(Generic[Q, B]):
    """One call as its handler sees it, already decoded and authorised for the role of the route."""

    world: World
    caller: Caller
    path: dict[str, Any]
    query: Q
    body: B
    request: Request

    def key(self) -> Key:
        """The service that the path names. Raises Denied when the token does not cover its workspace."""
        workspace = self.query.workspace or DEFAULT_WORKSPACE
        self.caller.require_workspace(workspace)
        return make_key(self.path["name"], workspace)

    def covers(self, workspace: str) -> bool:
        """Whether an item of ``workspace`` belongs in the answer to this call."""
        return self.query.workspace in (None, workspace) and self.caller.covers(workspace)

    async def stream(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises SpecError 413 as soon as it is known to be longer than ``limit`` bytes."""
        async for piece in read_stream(self.request, limit):
            yield piece


@dataclass(frozen=True)
class Route:
    """``role`` None: no token is needed. ``body`` None: no JSON body is read. ``stream``: the body is raw bytes."""

    method: str
    path: str
    role: Role | None
    run: Callable[[Asked[Any, Any]], Any]
    answer: Any
    query: type[Query] | type[Labels] = Query
    body: Any = None
    stream: bool = False

    @property
    def changes(self) -> bool:
        """Whether it may change what is kept or wished: a viewer's call never does."""
        return self.method != "GET" and self.role not in (None, "viewer")

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.run) or "").partition("\n")[0]

    def decode_query(self, request: Request) -> Any:
        given = dict(request.query_params)
        if issubclass(self.query, Labels):
            return Labels(given)
        try:
            found = msgspec.convert(given, self.query, strict=False)
        except msgspec.ValidationError as e:
            known = ", ".join(self.query.__struct_fields__)
            raise SpecError(f"{self.method} {self.path}: query: {e}", hint=f"it takes {known}") from e
        for name in self.query.__struct_fields__:  # a clock never passes nan, and never comes to inf
            value = getattr(found, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise SpecError(f"{self.method} {self.path}: query: {name} is {value}", hint="a finite number")
        return found

    async def decode_body(self, request: Request) -> Any:
        if self.body is None:
            return None
        content = bytearray()
        async for piece in read_stream(request, JSON_BODY):
            content += piece
        try:
            return msgspec.json.decode(bytes(content), type=self.body)
        except msgspec.ValidationError as e:
            raise SpecError(f"{self.method} {self.path}: {e}", hint=f"see {PREFIX}/openapi.json for the fields") from e
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise SpecError(
                f"{self.method} {self.path}: the body is no JSON: {e}", hint="send one JSON value, UTF-8"
            ) from e


async def read_stream(request: Request, limit: int) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length", "")
    stream = request.stream()
    if announced.isdigit() and int(announced) > limit:
        await _let_pass(request, stream)
        raise too_large(int(announced), limit)
    seen = 0
    try:
        async for piece in stream:
            seen += len(piece)
            if seen > limit:
                await _let_pass(request, stream)
                raise too_large(seen, limit)
            yield piece
    except ClientDisconnect as e:
        raise SpecError(f"the body ended after {seen} bytes: the client hung up", code="disconnected") from e


async def _let_pass(request: Request, stream: AsyncIterator[bytes]) -> None:
    """Read past what is left of a body, within bounds: who sends first and reads then would find a reset connection."""
    if "expect" in request.headers:
        return  # that client waits for our word before it sends
    left = LET_PASS
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(2.0):
            async for piece in stream:
                left -= len(piece)
                if left <= 0:
                    return


def too_large(size: int, limit: int) -> SpecError:
    return SpecError(
        f"the body has {size} bytes or more, the limit is {limit}",
        hint="send less, or raise api.max_body in settings.yaml for artifacts",
        code="too_large",
        status=413,
    )
