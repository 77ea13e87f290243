"""Grafana's dashboard names nothing that a server does not have."""

import json
import os
import re
import unittest

import normserve
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from admin_server import AdminTestCase

# Labels that Prometheus itself adds; one of ours would be renamed.
SCRAPED = {"instance", "job"}


class Dashboard(AdminTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(os.environ["NORMSERVE_DASHBOARD"], encoding="utf-8") as file:
            cls.dashboard = json.load(file)
        with normserve.Client(cls.server.address) as client:
            bn = client.create("net/a", num_features=2)
            trained = bn.forward(np.random.default_rng(5).random((8, 2), np.float32), save_for_backward=True)
            bn.backward(np.ones((8, 2), np.float32), trained)
        cls.labels = {}  # by sample, those it has
        for family in text_string_to_metric_families(cls.server.get("/metrics")[2]):
            cls.labels.setdefault(family.name, set())
            for sample in family.samples:
                cls.labels.setdefault(sample.name, set()).update(sample.labels)

    def expressions(self):
        for panel in self.dashboard["panels"]:
            for target in panel["targets"]:
                yield panel["title"], target["expr"], target["legendFormat"]
        for variable in self.dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield variable["name"], variable["query"], ""

    def test_every_metric_and_label_is_in_the_exposition(self):
        for title, expression, legend in self.expressions():
            names = re.findall(r"\bnormserve_\w+", expression)
            self.assertTrue(names, title)
            for name in names:
                self.assertIn(name, self.labels, title)
            used = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")}
            used |= {label for braces in re.findall(r"\{([^}]*)\}", expression)
                     for label in re.findall(r"(\w+) *[=!]", braces)}  # fmt: skip
            used |= set(re.findall(r"\{\{(\w+)\}\}", legend))
            for name in names:
                self.assertLessEqual(used, self.labels[name] | SCRAPED, (title, name))

    def test_no_label_is_one_of_prometheus(self):
        self.assertEqual({name for name, labels in self.labels.items() if labels & SCRAPED}, set())

    def test_metrics_that_nobody_can_read_from_it_are_none_of_ours(self):
        shown = {name for _, expression, _ in self.expressions() for name in re.findall(r"\bnormserve_\w+", expression)}
        base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
        families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in self.labels}
        self.assertEqual(families - base, {"normserve_session_generation", "normserve_session_update_timestamp_seconds"})

    def test_panels_lie_beside_each_other(self):
        taken = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
        self.assertEqual(len({panel["id"] for panel in self.dashboard["panels"]}), len(self.dashboard["panels"]))


if __name__ == "__main__":
    unittest.main()
