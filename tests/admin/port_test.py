"""Who is answered on the admin port, what is cut off, how it starts and ends."""

import os
import socket
import subprocess
import tempfile
import time
import unittest

from admin_server import AdminServer, AdminTestCase
from server_process import ServerProcess


class Port(AdminTestCase):
    FLAGS = ("--admin-host", "box.example")

    def raw(self, request):
        """The first line of what is said to these bytes; empty if the connection is just closed."""
        host, port = self.server.admin_address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), 60) as connection:
            connection.sendall(request)
            reply = b""
            while piece := connection.recv(65536):
                reply += piece
        return reply.split(b"\r\n")[0].decode()

    def test_health_is_told(self):
        self.assertEqual(self.server.get("/healthz")[::2], (200, "ok\n"))

    def test_only_the_names_it_is_known_by_are_answered(self):
        for host, status in (("127.0.0.1", 200), ("localhost:99", 200), ("box.example", 200), ("evil.example", 421)):
            self.assertEqual(self.server.get("/healthz", Host=host)[0], status, host)

    def test_nothing_can_be_sent(self):
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            self.assertEqual(self.server.get("/metrics", method)[0], 405, method)

    def test_no_other_origin_may_read_it(self):
        _, headers, _ = self.server.get("/metrics", Origin="http://evil.example")
        self.assertIn("default-src 'self'", headers["Content-Security-Policy"])
        self.assertEqual([name for name in headers if name.lower().startswith("access-control")], [])

    def test_bytes_that_are_no_request_are_refused_and_harm_nobody(self):
        local = b"\r\nHost: localhost\r\n"
        for request, expected in (
            (b"\r\n\r\n", "400"),
            (b"\x00\xff\xfe\r\n\r\n", "400"),
            (b"GET /" + b"a" * 9000 + b" HTTP/1.1" + local + b"\r\n", "414"),
            (b"GET / HTTP/1.1" + local + b"a: b\r\n" * 3000 + b"\r\n", "431"),
            # Regular expressions of the library's recurse over what they match.
            (b"GET /healthz HTTP/1.1" + local + b"Range: bytes=" + b"1-2," * 3000 + b"1-2\r\n\r\n", "200"),
            (b"GET /%00%ff%zz/../.. HTTP/1.1" + local + b"\r\n", "404"),
            (b"POST / HTTP/1.1" + local + b"Content-Length: 99999999999\r\n\r\n", "405"),
            (b"POST / HTTP/1.1" + local + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n", "405"),
        ):
            self.assertIn(f" {expected} ", self.raw(request), request[:60])
        self.assertEqual(self.server.get("/healthz")[0], 200)

    def test_connections_that_say_nothing_do_not_keep_others_out(self):
        host, port = self.server.admin_address.rsplit(":", 1)
        silent = [socket.create_connection((host, int(port)), 60) for _ in range(80)]
        try:
            # They are let go when they are too many, or their time is over.
            while True:
                try:
                    self.assertEqual(self.server.get("/healthz")[0], 200)
                    break
                except OSError:
                    time.sleep(0.05)
        finally:
            for connection in silent:
                connection.close()


class StartAndEnd(unittest.TestCase):
    def test_without_the_flag_there_is_no_admin_port(self):
        with ServerProcess() as server:
            self.assertNotIn("admin port", server.log())

    def test_an_open_connection_does_not_hold_up_the_end(self):
        with AdminServer() as server:
            host, port = server.admin_address.rsplit(":", 1)
            with socket.create_connection((host, int(port)), 60) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n")
                server.stop()
                self.assertEqual(connection.recv(1), b"")

    def test_a_port_in_use_ends_the_start_and_is_named(self):
        with AdminServer() as server, tempfile.TemporaryDirectory() as scratch:
            ended = subprocess.run(
                [os.environ["NORMSERVE_SERVER_PROGRAM"], "--engine", "reference", "--listen", "127.0.0.1:0",
                 "--port-file", f"{scratch}/port", "--admin-listen", server.admin_address],
                capture_output=True, text=True, timeout=60)  # fmt: skip
            self.assertEqual(ended.returncode, 1)
            self.assertIn(f"cannot listen on {server.admin_address}: Address already in use", ended.stderr)
            self.assertIn("--admin-listen", ended.stderr)
            self.assertFalse(os.path.exists(f"{scratch}/port"))


if __name__ == "__main__":
    unittest.main()
