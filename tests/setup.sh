#!/bin/sh
# What the tests need beyond Python packages: a browser for the console, wrk and curl as real HTTP clients,
# Prometheus and Alertmanager, a registry of images, PostgreSQL.
set -eu
missing=""
command -v chromium >/dev/null || missing="$missing chromium"
command -v curl >/dev/null || missing="$missing curl"
command -v prometheus-alertmanager >/dev/null || missing="$missing prometheus-alertmanager"
command -v prometheus >/dev/null || missing="$missing prometheus"
command -v docker-registry >/dev/null || missing="$missing docker-registry"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests/setup.sh: please install:$missing (tests that need them are skipped, loudly)" >&2
    exit 0
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
