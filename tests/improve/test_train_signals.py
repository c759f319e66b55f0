"""A run's numbers as they arrive: a real client, a real server, the platform's own reader of remote-write."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from leptonai.client import Client
from leptonai.improve.train.signals import Signals


class Server(ThreadingHTTPServer):
    bodies: list[bytes]
    code = 200


@pytest.fixture
def server() -> Iterator[Server]:
    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert isinstance(self.server, Server) and self.path == "/api/v1/write?workspace=default"
            data = b""
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                data = self.rfile.read(int(self.headers["content-length"]))
            self.server.bodies.append(data)
            self.send_response(self.server.code)
            self.send_header("content-length", "0")  # as the platform answers
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    one = Server(("127.0.0.1", 0), Take)
    one.bodies = []
    thread = Thread(target=one.serve_forever)
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def plain(body: bytes) -> bytes:
    from leptonai.ops.remote_write import unpack

    return bytes(unpack(body, 1 << 20))


def test_the_last_of_each_second_arrives(server: Server) -> None:
    now = [100.0]
    with Client(f"http://127.0.0.1:{server.server_port}", "secret") as client:
        told = Signals(client, "digits", clock=lambda: now[0])
        for step in range(25):
            told.tell(step, loss__train=1.0 / (1 + step))
            now[0] += 0.1
        told.tell(25, ended_count=1.0)
        told.close()
    assert told.lost == 0 and 3 <= len(server.bodies) <= 4
    for part in (b"training_loss_train", b"training_steps_count", b"training-digits"):
        assert part in plain(server.bodies[0])
    assert b"training_ended_count" in plain(server.bodies[-1])
    assert not any(b"training_ended_count" in plain(body) for body in server.bodies[:-1])


def test_a_platform_that_is_away_costs_the_run_nothing() -> None:
    with Client("http://127.0.0.1:9", "secret") as client:
        told = Signals(client, "digits")
        told.tell(1, loss__train=1.0)
        told.close()
    assert told.lost == 2 and told.problem
