"""The routes of one service: paths, weights, mirrors, time limits, repetition, rate limits. Pure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from leptonai import __version__
from leptonai.plan import streams
from leptonai.plan.cluster import hash_policies
from leptonai.plan.units import seconds
from leptonai.settings import Gateway
from leptonai.types import DEFAULT_WORKSPACE, RateLimit, Service, Spec

Json = dict[str, Any]
Table = dict[str, list[Json]]  # a prefix of the path -> the routes looked at, in order, when it is the longest

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_PREVIOUS = f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_PRIORITIES = f"{_EXTENSIONS}.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
_LOCAL_RATE = f"{_EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit"
RATE_FILTER = "envoy.filters.http.local_ratelimit"
EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics", "schedule_policy"]
WEIGHTS = 10_000  # parts that weights are rounded to
HEDGE_LATENCIES = 4.0  # times the promised latency: one that is only slow should rarely be asked for twice
SHED = 420  # what refuses says so with a code of its own, which becomes 429 on the way out
TOKENS = 10_000  # of one service that are counted apart; the longest unseen ones are forgotten
_FILL = 0.05  # seconds between fills of a bucket at least, as Envoy demands


def service_routes(
    service: Service,
    targets: list[tuple[str, float]],
    mirrors: list[tuple[str, float]],
    gateway: Gateway,
    usual: Json | None = None,
) -> Table:
    """The routes of one service: its protocol paths as they are, its own paths with the prefix stripped.

    ``usual``: the retry policy of the host of all routes, which is not said again.
    """
    spec = service.spec
    prefix = "" if spec.workspace == DEFAULT_WORKSPACE else f"/workspaces/{spec.workspace}"
    models, own = f"{prefix}/v2/models/{spec.name}", f"{prefix}/services/{spec.name}"
    if not targets:
        return {p: [{"match": {"path_separated_prefix": p}, "direct_response": {"status": 503}}] for p in (models, own)}
    action = _action(service, targets, mirrors, gateway)
    protocol = action | ({"prefix_rewrite": f"/v2/models/{spec.name}"} if prefix else {})
    table = {
        models: [
            *_shed(service.dials.shed, {"path_separated_prefix": models}),
            streams.generate(models, protocol),
            {"match": {"path_separated_prefix": models}, "route": protocol},
        ],
        own: [
            {"match": {"path_separated_prefix": f"{own}/-"}, "direct_response": {"status": 404}},
            *_shed(service.dials.shed, {"prefix": f"{own}/"}),
            *streams.before(own, action),
            {"match": {"prefix": f"{own}/"}, "route": action | {"prefix_rewrite": "/"}},
        ],
    }
    for made in table.values():
        for route in made:
            if "route" in route and route["route"]["retry_policy"] == usual:
                route["route"] = {k: v for k, v in route["route"].items() if k != "retry_policy"}
    return table


def _shed(share: float, match: Json) -> list[Json]:
    """The route that refuses ``share`` of the requests, the first that is looked at."""
    if share <= 0:
        return []
    fraction = {"default_value": {"numerator": round(share * 1e6), "denominator": "MILLION"}}
    return [{"match": match | {"runtime_fraction": fraction}, "direct_response": {"status": SHED}}]


def fixed_routes(control: str) -> list[Json]:
    """What the gateway says of itself, and what it hands to control, ``""`` when there is none.

    Ready is the gateway; whether a model is, its own path says: one that wakes up must not make the others unready.
    """
    server = {"name": "leptonai", "version": __version__, "extensions": EXTENSIONS}
    own = [
        _says("/v2/health/live", {"live": True}),
        _says("/v2/health/ready", {"ready": True}),
        _says("/v2", server),
        _says("/v2/", server),
    ]
    if not control:
        return own
    retry = {
        # control may be restarting: nothing was sent yet, so this is safe for any method
        "retry_on": "connect-failure",
        "num_retries": 5,
        "retry_back_off": {"base_interval": "0.2s", "max_interval": "1s"},
    }
    feedback = {
        "match": {"path": "/feedback"},
        "route": {"cluster": control, "prefix_rewrite": "/api/v1/feedback", "timeout": "10s", "retry_policy": retry},
    }
    repository = {
        "match": {"path_separated_prefix": "/v2/repository"},
        "route": {
            "cluster": control,
            "prefix_rewrite": "/api/v1/repository",
            "timeout": "10s",
            "retry_policy": retry,
        },
    }
    survey = {
        "match": {"path_separated_prefix": "/survey"},
        "route": {"cluster": control, "timeout": "10s", "retry_policy": retry},
    }
    return [*own, feedback, survey, repository]


def _says(path: str, answer: Json) -> Json:
    return {
        "match": {"path": path},
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(answer, separators=(",", ":"))}},
        "response_headers_to_add": [
            {
                "header": {"key": "content-type", "value": "application/json"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
    }


def rate_limits(specs: list[Spec]) -> Json:
    """The buckets of all services, for the one host of the table: both paths of a service draw from the same."""
    limited = [s for s in specs if s.rate_limit]
    if not limited:
        return {}
    return {
        RATE_FILTER: {
            "@type": _LOCAL_RATE,
            "stat_prefix": "gateway",
            # The filter wants one for what no descriptor names; it must never bind.
            "token_bucket": {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"},
            "always_consume_default_token_bucket": False,
            "filter_enabled": {"default_value": {"numerator": 100}},
            "filter_enforced": {"default_value": {"numerator": 100}},
            "max_dynamic_descriptors": TOKENS,
            "descriptors": [d for s in limited if s.rate_limit for d in _descriptors(s.key, s.rate_limit)],
            "response_headers_to_add": [{"header": {"key": "retry-after", "value": "1"}}],
        }
    }


def _descriptors(key: str, limit: RateLimit) -> list[Json]:
    anonymous = limit if limit.anonymous is None else RateLimit(rate=limit.anonymous, burst=limit.burst)
    service = {"key": "service", "value": key}
    return [
        {"entries": [service, {"key": "token"}], "token_bucket": _bucket(limit)},
        {"entries": [service, {"key": "anonymous", "value": "yes"}], "token_bucket": _bucket(anonymous)},
    ]


def _bucket(limit: RateLimit) -> Json:
    tokens = max(1, math.ceil(limit.rate * _FILL))
    return {
        "max_tokens": limit.burst or max(1, math.ceil(limit.rate)),
        "tokens_per_fill": tokens,
        "fill_interval": seconds(tokens / limit.rate),
    }


def _rate_actions(key: str) -> list[Json]:
    service = {"generic_key": {"descriptor_key": "service", "descriptor_value": key}}
    token = {"request_headers": {"header_name": "authorization", "descriptor_key": "token"}}
    nobody = {
        "header_value_match": {
            "descriptor_key": "anonymous",
            "descriptor_value": "yes",
            "headers": [{"name": "authorization", "present_match": True, "invert_match": True}],
        }
    }
    return [{"actions": [service, token]}, {"actions": [service, nobody]}]


def _action(
    service: Service, targets: list[tuple[str, float]], mirrors: list[tuple[str, float]], gateway: Gateway
) -> Json:
    spec = service.spec
    idempotent = _kind(service)[0]
    total = sum(weight for _, weight in targets)
    action: Json = {
        "timeout": seconds(spec.timeout),
        # A stalled upload ends like a stalled answer; the default (5 min) would also cut longer timeouts short.
        "idle_timeout": seconds(spec.timeout + 5.0),
        "retry_policy": _repeating(service, gateway),
    }
    # A failed health check takes a hung replica out of rotation, but nothing resets the requests that wait on it. So
    # a request without an answer for long is sent to another replica too, and the first answer wins. Cutting it off
    # instead (a per-try timeout without hedging) would make every slow service fail.
    patience = max(gateway.hedge_after, HEDGE_LATENCIES * spec.slo.latency)
    if idempotent and gateway.hedge_after > 0 and patience < spec.timeout and action["retry_policy"]["num_retries"]:
        action["retry_policy"]["per_try_timeout"] = seconds(patience)
        action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    hashed = hash_policies(spec)
    if hashed:
        action["hash_policy"] = hashed
    if len(targets) == 1:
        action["cluster"] = targets[0][0]
    else:
        parts = [{"name": name, "weight": max(1, round(WEIGHTS * weight / total))} for name, weight in targets]
        # A session that stays on one replica must first of all stay with one variant.
        sticky = {"use_hash_policy": True} if hashed else {}
        action["weighted_clusters"] = {"clusters": parts} | sticky
    if mirrors:
        action["request_mirror_policies"] = [
            {
                "cluster": name,
                "runtime_fraction": {
                    "default_value": {"numerator": min(1_000_000, round(share * 1e6)), "denominator": "MILLION"}
                },
            }
            for name, share in mirrors
        ]
    if spec.rate_limit:
        action["rate_limits"] = _rate_actions(spec.key)
    return action


def usual_retry(services: Sequence[Service], gateway: Gateway) -> Json | None:
    """What most services want of repetition, where no try is limited in time: the host of all routes says it once.

    Of what Envoy does to take over the routes of a thousand services, repeating this policy was more than half.
    """
    kinds = Counter(map(_kind, services))
    if not kinds:
        return None
    most = kinds.most_common(1)[0][0]
    return _repeating(next(s for s in services if _kind(s) == most), gateway)


def _kind(service: Service) -> tuple[bool, int | None, bool]:
    """What a retry policy follows from: idempotent, attempts, whether the edge has answers."""
    spec = service.spec
    remembers = spec.fallback is not None and bool(service.dials.fallback)
    return all(v.idempotent for v in spec.variants), spec.retry.attempts, remembers


def _repeating(service: Service, gateway: Gateway) -> Json:
    idempotent, _, remembers = _kind(service)
    policy = _retry(service.spec, idempotent, gateway)
    if remembers:
        _ask_the_edge(policy)
    return policy


def _retry(spec: Spec, idempotent: bool, gateway: Gateway) -> Json:
    """Always on another replica and almost at once. What may have run is repeated only when it is idempotent."""
    when = "connect-failure,refused-stream"
    policy: Json = {
        "retry_on": f"{when},reset,retriable-status-codes" if idempotent else when,
        "num_retries": gateway.retries if spec.retry.attempts is None else spec.retry.attempts,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
        "retry_host_predicate": [
            {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": _PREVIOUS}}
        ],
        # Of two replicas the dead one is the less busy, so least request picks it 3 times in 4: after 8 tries one
        # repetition in 13 still went there.
        "host_selection_retry_max_attempts": 32,
        # When two tries have found no replica that answers, the third asks the edge, which holds the request.
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {"@type": _PRIORITIES, "update_frequency": 2},
        },
    }
    if idempotent:
        policy["retriable_status_codes"] = [503]
    return policy


def _ask_the_edge(policy: Json) -> None:
    """With a fallback the second try is the edge's, also of what was shed: it asks a ready replica once more first."""
    if "retriable-status-codes" not in policy["retry_on"]:
        policy["retry_on"] += ",retriable-status-codes"
    policy["retriable_status_codes"] = [*policy.get("retriable_status_codes", ()), 429]
    policy["retry_priority"]["typed_config"]["update_frequency"] = 1
    policy["num_retries"] = 2  # the third is for a dead edge; each one more would only load what sheds
