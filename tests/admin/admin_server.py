"""A server with an admin port, and HTTP requests to it."""

import http.client
import json
import re
import unittest

from server_process import ServerProcess


class AdminServer(ServerProcess):
    """A server with an admin port of its own."""

    def __init__(self, flags=()):
        super().__init__(flags=["--admin-listen", "127.0.0.1:0", *flags])

    @property
    def admin_address(self):
        return re.search(r"admin port on http://([^/]+)/", self.log()).group(1)

    def get(self, path, method="GET", **headers):
        """One request: status, headers, body."""
        connection = http.client.HTTPConnection(self.admin_address, timeout=60)
        try:
            connection.request(method, path, headers=headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read().decode()
        finally:
            connection.close()

    def get_json(self, path):
        status, headers, body = self.get(path)
        assert (status, headers["Content-Type"]) == (200, "application/json"), (status, body)
        return json.loads(body)


class AdminTestCase(unittest.TestCase):
    """Tests that share one server; its log is shown with each that fails."""

    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(AdminServer(cls.FLAGS))
