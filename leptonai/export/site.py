"""What an export must know beside the service: where things are, and how often they are looked at."""

from __future__ import annotations

import re
from typing import NamedTuple

from leptonai.errors import SpecError
from leptonai.plan.render.names import legal

_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
Files = dict[str, str]  # relative path -> text, in the order to read them


class Site(NamedTuple):
    namespace: str = "default"  # of the service on a cluster
    platform: str = "http://leptonai-control:8310"  # the control API, as other tools reach it
    scrape: float = 15.0  # seconds between two scrapes
    source: str = "platform"  # where promises are counted: the platform's own page, or the replicas' pages

    def checked(self) -> Site:
        """Itself. SpecError for what cannot be."""
        legal(self.namespace, "namespace")
        if not _URL.fullmatch(self.platform):
            raise SpecError(f"{self.platform!r} is no URL of a platform", hint="as in http://leptonai-control:8310")
        if not 0.1 <= self.scrape <= 3600.0:
            raise SpecError(f"a scrape each {self.scrape:g} s", hint="0.1 to 3600 seconds")
        return self

    @property
    def address(self) -> str:
        """``host:port`` of the platform."""
        scheme, _, rest = self.platform.partition("://")
        host = rest.partition("/")[0]
        bare = host.rpartition("]")[2] if host.startswith("[") else host
        return host if ":" in bare else f"{host}:{443 if scheme == 'https' else 80}"
