"""TensorBoard, and a headless Chromium that looks at it.

Chromium and its driver are Debian's packages `chromium` and `chromium-driver`. Where they are
missing, root has them installed here; for anybody else the test is skipped.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

_SECONDS = 60  # to wait for what should be on the page
_PROGRAMS = ("chromium", "chromedriver")
_INSTALL = "apt-get update -qq && apt-get install -y -qq chromium chromium-driver"

# Most of TensorBoard lies in shadow roots, which selectors do not enter.
_WALK = """
function* walk(node) {
  yield node;
  for (const child of [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes]) yield* walk(child);
}
const seen = (element) => element && element.getClientRects().length > 0;
"""
_TEXTS = """
const hidden = ["SCRIPT", "STYLE", "TEMPLATE"];
return [...walk(document.body)]
  .filter((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())
  .filter((node) => !hidden.includes(node.parentElement?.tagName))
  .filter((node) => seen(node.parentElement ?? node.getRootNode().host))
  .map((node) => node.data.trim());
"""
_FIND = """
return [...walk(document.body)].filter((node) => node.matches?.(arguments[0]) && seen(node));
"""


class Page:
    """TensorBoard's page in a browser of 2000 by 1500 pixels."""

    def __init__(self, driver, url, folder):
        self._driver, self._url, self._folder = driver, url, folder

    def open(self, tab, query=""):
        """Loads the page anew, at that tab."""
        self._driver.get("about:blank")
        self._driver.get(f"{self._url}{query}#{tab}")

    def texts(self):
        """All that can be read on the page, piece by piece."""
        return self._driver.execute_script(_WALK + _TEXTS)

    def find(self, selector):
        """The elements on the page that a selector fits, also in shadow roots."""
        return self._driver.execute_script(_WALK + _FIND, selector)

    def click(self, element):
        self._driver.execute_script("arguments[0].click()", element)

    def size(self, image):
        """Width and height of what an image element has loaded, in the image's own pixels."""
        return self._driver.execute_script(
            "return [arguments[0].naturalWidth, arguments[0].naturalHeight]", image
        )

    def wait(self, condition, name):
        """Waits until the condition holds; a screenshot tells how the page was then, or at last."""
        try:
            return WebDriverWait(self._driver, _SECONDS).until(lambda _: condition(), name)
        finally:
            self._driver.save_screenshot(str(self._folder / f"{name}.png"))

    def wait_for(self, pieces, name):
        """Waits until all of the pieces can be read on the page."""
        try:
            self.wait(lambda: set(pieces) <= set(self.texts()), name)
        except Exception:
            missing = sorted(set(pieces) - set(self.texts()))
            raise AssertionError(f"not on the page {name}: {missing}; it has {self.texts()}") from None


@contextlib.contextmanager
def looking_at(logdir, folder):
    """Starts TensorBoard and a browser; yields the page. Screenshots go to the folder."""
    _have_chromium()
    with _tensorboard(logdir) as url, _chromium() as driver:
        yield Page(driver, url, folder)


def _have_chromium():
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(_INSTALL, shell=True, check=False, capture_output=True)
        missing = [program for program in _PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: as root, {_INSTALL}")


@contextlib.contextmanager
def _tensorboard(logdir):
    command = [sys.executable, "-m", "tensorboard.main", "--port=0", "--reload_interval=1"]
    process = subprocess.Popen([*command, f"--logdir={logdir}"], stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://\S+", line):
                break
        else:
            raise AssertionError(f"TensorBoard did not start:\n{said}")
        yield found[0]
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def _chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=2000,1500"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
