"""Our alerts, posted to an Alertmanager as Prometheus does it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from leptonai.ops.alert.sources import FOREIGN
from leptonai.settings import Alertmanager
from leptonai.types import Alert

log = logging.getLogger(__name__)
OURS = "leptonai"  # label ``source`` of what we send, by which we know it when it comes back
ENDS_AFTER = 4  # resends that may fail until the Alertmanager takes an alert for resolved (Prometheus' number)


def payload(alert: Alert, now: float, settings: Alertmanager) -> dict[str, Any]:
    """One element of ``POST /api/v2/alerts``. Times are RFC 3339; what fires ends ENDS_AFTER resends from now."""
    ends = alert.resolved if alert.resolved is not None else now + ENDS_AFTER * settings.resend
    labels = {**settings.labels, **{k: v for k, v in alert.labels.items() if v}, "source": OURS}
    notes = {"summary": alert.summary} | ({"incident": str(alert.incident)} if alert.incident else {})
    begins = alert.fired if alert.fired is not None else alert.since
    return {"labels": labels, "annotations": notes, "startsAt": spell(begins), "endsAt": spell(max(ends, begins))}


def spell(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Exporter:
    """Says at once what fires and what ends, and repeats what fires. One post at a time, in the background.

    An alert that was muted here before it was ever sent is not sent, nor one that an Alertmanager told us of; for all
    others its own silences and inhibitions decide. When the severity rises, the old alert is ended beside the new one.
    """

    def __init__(self, settings: Alertmanager) -> None:
        self.counts: Counter[str] = Counter()
        self.failure = ""  # why the last post failed; "": it did not
        self._settings = settings
        self._sent: dict[str, tuple[Alert, float]] = {}  # fingerprint -> what was sent last, and when
        self._running: asyncio.Task[str] | None = None
        self._batch: dict[str, Alert] = {}

    def due(self, alerts: Mapping[str, Alert], now: float) -> dict[str, Alert]:
        """What is to be posted at ``now``, by a name that is unique in the post."""
        out: dict[str, Alert] = {}
        for name, alert in alerts.items():
            old, at = self._sent.get(name, (None, float("-inf")))
            if alert.state == "pending" or alert.labels.get("source") == FOREIGN:
                continue
            if old is None and (alert.state != "firing" or alert.muted):
                continue
            changed = old is None or (old.state, old.labels, old.fired) != (alert.state, alert.labels, alert.fired)
            # an end is repeated as long as it is remembered: the Alertmanager may have been away
            if changed or now - at >= self._settings.resend:
                out[name] = alert
            if old is not None and old.state == "firing" and old.labels != alert.labels:
                out[f"{name} before"] = _ended(old, now)
        return out

    def step(self, alerts: Mapping[str, Alert], now: float) -> None:
        """Never waits. A post that failed is made anew, with what is true by then."""
        if not self._settings.url:
            return
        if self._running is not None:
            if not self._running.done():
                return
            failed, self._running = self._running.result(), None
            if failed != self.failure:
                log.warning("alertmanager: %s", failed) if failed else log.info("alertmanager: takes alerts again")
            self.failure = failed
            self.counts["failed" if failed else "sent"] += len(self._batch)
            if not failed:
                self._sent |= {name: (alert, now) for name, alert in self._batch.items() if " " not in name}
        self._sent = {name: sent for name, sent in self._sent.items() if name in alerts}
        self._batch = self.due(alerts, now)
        if self._batch:
            self._running = asyncio.create_task(self._post(self._batch.values(), now))

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _post(self, alerts: Iterable[Alert], now: float) -> str:
        import httpx  # only where there is an Alertmanager

        body = [payload(alert, now, self._settings) for alert in alerts]
        url = self._settings.url.rstrip("/") + "/api/v2/alerts"
        try:
            async with httpx.AsyncClient(timeout=self._settings.timeout, trust_env=False) as http:
                answer = await http.post(url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            return f"{url} cannot be reached: {e or type(e).__name__}"
        return "" if answer.status_code < 300 else f"{url} answered {answer.status_code}: {answer.text[:300]}"


def _ended(alert: Alert, now: float) -> Alert:
    return Alert(
        labels=alert.labels, state="resolved", summary=alert.summary, since=alert.since, last=alert.last,
        fired=alert.fired, resolved=now, incident=alert.incident,
    )  # fmt: skip
