"""The web page in headless Chromium: what it shows of a network that was trained for real, and what it does not run."""

import unittest

import normserve
import numpy as np
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

import trained_model
from admin_server import AdminTestCase
from browser import Browser

WAIT_SECONDS = 60


class Page(AdminTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.enterClassContext(normserve.Client(cls.server.address))
        trained_model.train(cls.client)
        cls.driver = cls.enterClassContext(Browser())

    def open(self, fragment=""):
        self.driver.get("about:blank")  # the same page with another fragment is not loaded anew
        self.driver.get(f"http://{self.server.admin_address}/{fragment}")

    def tearDown(self):
        # An error of a script, a file that is missing, a violation of the content security policy.
        self.assertEqual(self.driver.get_log("browser"), [])

    def texts(self, selector):
        return [found.text for found in self.driver.find_elements(By.CSS_SELECTOR, selector)]

    def wait_for(self, what):
        return WebDriverWait(self.driver, WAIT_SECONDS).until(lambda _: what())

    def test_the_drifted_layer_comes_first_and_is_explained(self):
        self.open()
        ranked = self.wait_for(lambda: self.texts("#ranking tbody th"))
        expected = self.server.get_json("/api/models/bars")["layers"]
        self.assertEqual(ranked, [layer["name"].removeprefix("bars/") for layer in expected])
        self.assertEqual(ranked[0], "stem.1")
        self.wait_for(lambda: self.texts("#layer-title") == ["bars/stem.1"])
        self.assertEqual(self.texts("#explanation"), [expected[0]["explanation"]])
        self.assertIn("train eval gap", self.texts("#verdict")[0])

    def test_the_chart_has_each_channel_where_its_numbers_say(self):
        self.open("#layer/bars%2Fstem.1")
        self.wait_for(lambda: self.driver.find_elements(By.CSS_SELECTOR, "#channels svg circle.batch-mean"))
        channels = self.server.get_json("/api/sessions/bars/stem.1")["channels"]
        heights = {}
        for part, selector, attribute in (("batch", "circle.batch-mean", "cy"), ("running", "line.running-mean", "y1")):
            found = self.driver.find_elements(By.CSS_SELECTOR, f"#channels svg {selector}")
            self.assertEqual(len(found), 16)
            heights[part] = [float(each.get_attribute(attribute)) for each in found]
        # One straight line leads from values to heights, whichever they are.
        values = channels["batch_mean"] + channels["running_mean"]
        slope, offset = np.polyfit(values, heights["batch"] + heights["running"], 1)
        self.assertLess(slope, 0)
        np.testing.assert_allclose(np.array(values) * slope + offset, heights["batch"] + heights["running"], atol=1e-6)
        drifted = self.driver.find_elements(By.CSS_SELECTOR, "#channels svg path.drifted")
        self.assertEqual(len(drifted), sum(drift > 1 for drift in channels["drift"]))
        label = self.driver.find_element(By.CSS_SELECTOR, "#channels svg").get_attribute("aria-label")
        self.assertIn(f"{len(drifted)} lie more than one deviation apart", label)

    def test_history_is_a_chart_and_a_table(self):
        self.open("#layer/bars%2Fstem.1")
        self.wait_for(lambda: self.driver.find_elements(By.CSS_SELECTOR, "#past svg path.series"))
        points = self.server.get_json("/api/sessions/bars/stem.1")["history"]
        known = [point for point in points if point["relative_gap"] is not None]
        self.assertGreater(len(known), 5)
        self.assertEqual(len(self.driver.find_elements(By.CSS_SELECTOR, "#past svg circle")), len(known))
        self.driver.find_element(By.CSS_SELECTOR, "#history summary").click()
        self.assertEqual(self.texts("#history tbody th"), [str(point["update"]) for point in reversed(points)])
        self.assertEqual(float(self.texts("#history tbody td:nth-child(3)")[0]),
                         float(f"{points[-1]['relative_gap']:.3g}"))

    def test_channels_come_by_the_page_and_by_drift(self):
        self.open("#layer/bars%2Fblock2.1")
        self.wait_for(lambda: self.texts("#range") == ["1 to 64 of 64, in order"])
        Select(self.driver.find_element(By.ID, "count")).select_by_visible_text("32")
        self.wait_for(lambda: self.texts("#range") == ["1 to 32 of 64, in order"])
        self.driver.find_element(By.ID, "next").click()
        self.wait_for(lambda: self.texts("#range") == ["33 to 64 of 64, in order"])
        Select(self.driver.find_element(By.ID, "order")).select_by_value("drift")
        self.wait_for(lambda: self.texts("#range") == ["1 to 32 of 64, most drifted first"])
        self.driver.find_element(By.CSS_SELECTOR, "#values summary").click()
        shown = [int(text) for text in self.texts("#values tbody th")]
        expected = self.server.get_json("/api/sessions/bars/block2.1?order=drift&count=32")
        self.assertEqual(shown, expected["channels"]["channel"])

    def test_numbers_have_three_digits_and_what_is_not_known_a_dash(self):
        self.client.create("digits", 4, running_mean=[100, -1234.5, 0.00012345, 0], running_var=[1, 4, 9, 0])
        self.open("#layer/digits")
        self.wait_for(lambda: self.texts("#layer-title") == ["digits"])
        self.driver.find_element(By.CSS_SELECTOR, "#values summary").click()
        rows = [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")][:4]
                for row in self.driver.find_elements(By.CSS_SELECTOR, "#values tbody tr")]  # fmt: skip
        self.assertEqual(rows, [["100", "1", "–", "–"], ["-1230", "2", "–", "–"], ["0.000123", "3", "–", "–"],
                                ["0", "0", "–", "–"]])
        self.driver.get("about:blank")
        self.client.session("digits").delete()

    def test_a_channel_far_out_does_not_flatten_the_others(self):
        means = np.arange(40.0)
        self.client.create("far", 41, running_mean=[*means, 1e12], running_var=np.ones(41))
        self.open("#layer/far")
        self.wait_for(lambda: self.texts("#layer-title") == ["far"])
        found = self.driver.find_elements(By.CSS_SELECTOR, "#channels svg line.running-mean")
        heights = np.array([float(each.get_attribute("y1")) for each in found])
        self.assertTrue((np.diff(heights[:40]) < -2).all(), heights)
        self.assertIn("1 channels reach beyond the picture", self.texts("#beyond")[0])
        self.driver.get("about:blank")
        self.client.session("far").delete()

    def test_it_refreshes_by_itself_and_keeps_the_focus(self):
        bn = self.client.create("fresh/a", num_features=2)
        self.open("#model/fresh%2F")
        self.wait_for(lambda: self.texts("#ranking tbody th") == ["a"])
        self.assertEqual(self.texts("#ranking tbody td:nth-child(8)"), ["0"])
        self.driver.find_element(By.CSS_SELECTOR, "#ranking a").send_keys(Keys.NULL)
        self.assertEqual(self.driver.switch_to.active_element.text, "a")
        bn.forward(np.random.default_rng(4).random((16, 2), np.float32))
        self.wait_for(lambda: self.texts("#ranking tbody td:nth-child(8)") == ["1"])
        self.assertEqual(self.driver.switch_to.active_element.text, "a")
        # And without a mouse: Enter follows the link to the layer.
        self.driver.switch_to.active_element.send_keys(Keys.ENTER)
        self.wait_for(lambda: self.driver.current_url.endswith("#layer/fresh%2Fa"))
        self.driver.get("about:blank")
        bn.delete()

    def test_what_clients_name_things_is_text(self):
        attack = "<img src=x onerror=document.title=1>"
        bn = self.client.create("hostile", num_features=1, labels={attack: '"><script>document.title=2</script>'})
        self.open("#layer/hostile")
        self.wait_for(lambda: self.texts("#layer-title") == ["hostile"])
        self.driver.find_element(By.CSS_SELECTOR, "#facts summary").click()
        self.assertIn(f"label {attack}", self.texts("#facts dt"))
        self.assertIn('"><script>document.title=2</script>', self.texts("#facts dd"))
        self.assertEqual(self.driver.find_elements(By.CSS_SELECTOR, "img:not([src='icon.svg'])"), [])
        self.assertEqual(self.driver.title, "Normserve")
        self.driver.get("about:blank")
        bn.delete()

    def test_no_script_runs_that_is_not_the_servers(self):
        self.open()
        self.driver.execute_script(
            "const made = document.createElement('script'); made.textContent = 'document.title = 3';"
            "document.body.append(made);")  # fmt: skip
        self.assertEqual(self.driver.title, "Normserve")
        self.assertIn("Content Security Policy", self.driver.get_log("browser")[0]["message"])

    def test_every_control_has_a_name_and_every_part_a_heading(self):
        self.open()
        self.wait_for(lambda: self.texts("#layer-title") != [""])
        unnamed = [found.get_attribute("outerHTML")
                   for found in self.driver.find_elements(By.CSS_SELECTOR, "a, button, select, input, svg, summary, [role=region], [role=group]")
                   if found.is_displayed() and not found.accessible_name]  # fmt: skip
        self.assertEqual(unnamed, [])
        self.assertEqual(self.texts("h1"), ["Normserve"])
        self.assertIn("Models", self.texts("h2"))


if __name__ == "__main__":
    unittest.main()
