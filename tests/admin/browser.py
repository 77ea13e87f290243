"""Headless Chromium, by Selenium."""

import tempfile

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")  # fmt: skip


class Browser:
    """Use as a context manager, which gives the driver."""

    def __init__(self, width=1400, height=1500, dark=False):
        self._options = Options()
        self._options.binary_location = "/usr/bin/chromium"
        for flag in _FLAGS:
            self._options.add_argument(flag)
        self._options.add_argument(f"--window-size={width},{height}")
        if dark:
            self._options.add_argument("--blink-settings=preferredColorScheme=0")
        self._options.set_capability("goog:loggingPrefs", {"browser": "ALL"})

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory()
        self._options.add_argument(f"--user-data-dir={self._profile.name}")
        self._driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=self._options)
        return self._driver

    def __exit__(self, *exception):
        self._driver.quit()
        self._profile.cleanup()
