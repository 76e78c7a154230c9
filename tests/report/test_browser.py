"""The page in a browser: it opens without a complaint, its figures are there and its tables sort.

Needs Chromium; the first of its usual names on the path is taken.
"""

import re
import shutil
import subprocess
import tempfile

import pytest

from jaxinit.records import SuggestedLayer, Suggestion
from jaxinit.report import report

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

#: What a reader does, in the words of a page; its findings are left on the root element.
VISIT = """
<script>
const told = (name, value) => { document.documentElement.dataset[name] = JSON.stringify(value); };
const tables = [...document.querySelectorAll("table.numbers")];
const table = tables.find((t) => t.textContent.includes("far"));
const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent);
const button = (n) => table.tHead.rows[0].cells[n].querySelector("button");
told("before", column(1));
button(1).focus();
told("focus", document.activeElement === button(1));
button(1).click();
told("up", column(1));
told("sorted", table.tHead.rows[0].cells[1].getAttribute("aria-sort"));
button(1).click();
told("down", column(1));
button(1).click();
told("again", column(1));
told("figures", [...document.querySelectorAll("figure svg")].map((s) => s.getBoundingClientRect().height > 100));
told("panels", document.querySelector("figure.whole svg").getBoundingClientRect().width);
told("wide", document.documentElement.scrollWidth <= window.innerWidth);
told("paper", getComputedStyle(document.body).backgroundColor);
told("line", getComputedStyle(document.documentElement).getPropertyValue("--figure-0"));
</script>
"""


def opened(page, *options):
    """The page as the browser leaves it, and what the browser complained of."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        command += [f"--user-data-dir={own}", *options, "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "<html" in done.stdout, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def visit(page, *options):
    """The findings of a visit, and what the browser complained of."""
    source, complaints = opened(page, *options)
    root = source[source.index("<html") : source.index("<head")].replace("&quot;", "'")
    return dict(re.findall(r'data-(\w+)="([^"]*)"', root)), complaints


@pytest.fixture(scope="module")
def pages(synthetic, tmp_path_factory):
    """The page as it is, and with a visitor in it (whom the page's own policy would keep out)."""
    record = synthetic.propagation
    folder = tmp_path_factory.mktemp("browser")
    layer = SuggestedLayer("l", "Dense", "kernel_init", "ji.he_normal()", "normal", 0.2, 0.1, 1.0, 0.5)
    records = {
        "far": record(1e-30, 30), "he": record(1.1), "training": synthetic.convergence(("far", "he")),
        "two panels": Suggestion("model", (layer,)),
    }  # fmt: skip
    page = report(records, folder / "page.html", rerun="jaxinit demo")
    text = page.read_text(encoding="utf-8")
    visited = folder / "visited.html"
    visited.write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", VISIT + "</body>"), "utf-8"
    )
    return page, visited


def test_it_opens_without_a_complaint_and_makes_its_buttons(pages):
    """Under its own policy, by which another script, its twin, is kept out."""
    page, _ = pages
    source, complaints = opened(page)
    assert not complaints and '<button type="button"' in source
    twin = page.with_name("twin.html")
    twin.write_text(page.read_text("utf-8").replace("// Tables", "// tables"), "utf-8")
    source, complaints = opened(twin)
    assert complaints and '<button type="button"' not in source


def test_figures_are_there_and_tables_sort(pages):
    found, complaints = visit(pages[1], "--window-size=1200,900")
    assert not complaints
    assert found["before"].startswith("['1'") and found["again"] == found["before"]
    up = found["up"].strip("[]").replace("'", "").split(",")
    assert up[0].endswith("e-870") and up[-1] == "1"  # sorted beyond what floats hold
    assert found["down"].strip("[]").replace("'", "").split(",") == up[::-1]
    assert found["sorted"] == "'ascending'" and found["focus"] == "true"
    assert found["figures"].count("true") == 8 and "false" not in found["figures"]
    assert found["paper"] == "'rgb(255, 255, 255)'" and "#0072B2" in found["line"]


def test_dark_and_on_a_phone(pages):
    dark = "--blink-settings=preferredColorScheme=0"
    found, complaints = visit(pages[1], "--window-size=500,900", dark)
    assert not complaints and found["wide"] == "true" and float(found["panels"]) >= 600
    assert found["paper"] == "'rgb(21, 24, 28)'" and "#56B4E9" in found["line"]
