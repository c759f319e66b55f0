from daemon_machine import machine  # noqa: F401 - a fixture
