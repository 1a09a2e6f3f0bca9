"""The page as a browser shows it: on a phone, on a desk and on paper, in the light and the dark."""

import os
import shutil
from dataclasses import dataclass

import pytest

from geotranslate.report.page import write_report

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
QUIET = (
    *("headless", "disable-gpu", "no-first-run", "disable-quic"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)
PHONE, DESK, PAPER = 390, 1280, 688
"""Widths in pixels; paper is A4 between its margins."""

VIEWS = (
    {"width": PHONE},
    {"width": PHONE, "scheme": "dark"},
    {"width": DESK},
    {"width": PAPER, "media": "print"},
)


@dataclass(frozen=True)
class Seen:
    """What a browser found.

    Attributes:
        title: of the page.
        console: errors and warnings.
        pictures: how many there are.
        missing: those of them that show nothing.
        beyond: elements that reach beyond the right edge, as far as one could scroll to them.
    """

    title: str
    console: list[str]
    pictures: int
    missing: list[str]
    beyond: int


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    """Shows a page at a width, as a screen or paper, and tells what came of it."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium with its driver: `make browser` installs Debian's where it may")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*QUIET, f"user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(f"--{flag}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))

    def look(page, width, *, scheme="light", media="screen"):
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": features}
        )
        browser.get(page.as_uri())
        return Seen(
            title=browser.title,
            console=[entry["message"] for entry in browser.get_log("browser")],
            pictures=browser.execute_script("return document.images.length"),
            missing=browser.execute_script(
                "return [...document.images].filter(i => !i.complete || !i.naturalWidth)"
                ".map(i => i.src.slice(0, 40))"
            ),
            beyond=browser.execute_script(
                "const e = document.documentElement; return e.scrollWidth - e.clientWidth"
            ),
        )

    yield look
    browser.quit()


def test_the_page_fits_a_phone_a_desk_and_paper_with_all_its_pictures_and_no_complaint(
    look, make_run, make_chips
):
    run = make_run(
        chips=make_chips([(0, 0, "train"), (1, 0, "val"), (300, 1, "test")]),
        settings={"attribution": "x" * 300},  # a word that finds no place to break
        samples=range(10, 70, 10),
        side=(900, 400),
        guards=[(30, "collapse", f"See {'long/' * 60}."), (40, "copy", "Begin anew.")],
        name="a-run-with-a-name-" + "that-is-long-" * 8,
    )
    page = write_report(run)
    for view in VIEWS:
        seen = look(page, **view)
        assert seen.title == f"{run.name}: training report"
        assert seen.console == []
        assert seen.pictures == 6
        assert seen.missing == []
        assert seen.beyond <= 0, view


def test_a_spoiled_page_is_noticed(look, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><title>bad</title>"
        "<img src='data:image/png;base64,AAAA'><div style='width:500px'>wide</div>"
        "<script>console.error('loud')</script>"
    )
    seen = look(page, PHONE)
    assert any("loud" in message for message in seen.console)
    assert len(seen.missing) == 1
    assert seen.beyond > 100
