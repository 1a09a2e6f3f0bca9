import re
from html.parser import HTMLParser

import pytest

from geotranslate.errors import OutputError, SettingError
from geotranslate.report.page import _draw_rate, write_report
from geotranslate.report.run import read_run
from geotranslate.report.templates import spell_bytes, spell_duration

ADDRESSES = {"src", "href", "data", "srcset", "poster", "action", "xlink:href"}
FOUR_PLACES = [(0, 0, "train"), (1, 0, "train"), (0, 1, "val"), (1, 1, "test")]


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self._inside = [], [], ""
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside != "style":
            self.words.append(data)

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


def read(run):
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_a_page_tells_what_the_run_folder_holds(make_run, make_chips):
    run = make_run(
        chips=make_chips(FOUR_PLACES),
        settings={"width": 24, "attribution": "Copernicus data 2024"},
        guards=[(30, "collapse", "All outputs are alike: begin anew.")],
        best=40,
    )
    page = read(run)
    for words in (
        "finished after 60 updates. model/ holds the generators of update 40.",
        "Copernicus data 2024",
        "Update 30, collapse. All outputs are alike: begin anew.",
        "score 13.25 dB",
        "After update 60",
        "PSNR 8 x 8",
        "mean distance to the truth, pixel by pixel",
        "VV, VH to R, G, B",
        "2 train 1 val 1 test",
        "Updates 1 to 60",
        "2026-03-04 05:06 UTC",
        "NVIDIA H200",
        "bf16, compiled",
        "40 GB",
        "2.5 GB",
        "average over 0.08333",
    ):
        assert words in page.text
    changed = [attributes for tag, attributes in page.tags if attributes.get("class") == "changed"]
    assert len(changed) == 3  # updates, width, attribution; not crop, precision
    # psnr8, score, d, l1, learning rate, updates a second; and the map
    assert page.count("svg") == 7
    assert page.count("img") == 3


def test_a_page_needs_no_network_and_no_script(make_run, make_chips):
    page = read(make_run(chips=make_chips(FOUR_PLACES)))
    assert page.count("script") == 0
    found = [a[name] for _, a in page.tags for name in ADDRESSES & a.keys()]
    assert found
    assert all(address.startswith("data:") for address in found)
    assert not any(name.startswith("on") for _, a in page.tags for name in a)
    style = re.search(
        "<style>(.*)</style>", write_report(page_run := make_run(name="b")).read_text(), re.S
    )
    assert not re.search(r"url\(|@import", style[1])
    assert (page_run / "report.html").exists()


def test_what_a_user_wrote_is_text_and_never_markup(make_run):
    hostile = '<script>alert("1")</script>'
    run = make_run(
        name="<img src=x onerror=alert(2)>",
        chips="/data/<b>'\"chips</b>",
        settings={"attribution": hostile},
        guards=[(10, "<i>g</i>", "</style><a href='http://e.org'>now</a>")],
    )
    page = read(run)
    assert {"script", "i", "a"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.count("b") == read(make_run(name="plain", guards=[(10, "g", "now")])).count("b")
    assert page.count("img") == 3
    for text in (hostile, run.name, "<b>'\"chips</b>", "<i>g</i>", "<a href='http://e.org'>"):
        assert text in page.text


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ({"rows": 0}, "nothing was logged when this page was written"),
        ({"rows": 3}, "30 of 60 updates when this page was written"),
        ({"samples": ()}, "None were drawn yet."),
        ({"best": None}, "There is no model yet."),
        ({"guards": None}, "None fired."),
        ({"session": False}, "Nothing was noted before the first checkpoint."),
        ({"chips": "/gone/chips"}, "The chips were in /gone/chips, which is gone"),
        ({"chips": "."}, ". has no chips.gpkg, the index that `geotranslate tile` writes"),
    ],
)
def test_what_a_run_lacks_is_said(make_run, missing, sentence):
    assert sentence in read(make_run(**missing)).text


def test_a_damaged_index_is_said_and_the_rest_is_there(make_run, make_chips):
    chips = make_chips(FOUR_PLACES)
    (chips / "chips.gpkg").write_bytes(b"no table")
    page = read(make_run(chips=chips))
    assert "There is no map of the chips: the index" in page.text
    assert page.count("img") == 3


def test_unpaired_chips_have_a_map_for_each_domain(make_run, make_chips):
    page = read(make_run(chips=make_chips(FOUR_PLACES, paired=False)))
    assert "Chips of A VV, VH" in page.text
    assert "Chips of B R, G, B" in page.text


def test_a_long_run_of_large_noisy_samples_still_fits_into_a_mail(make_run):
    run = make_run(
        rows=5000, samples=range(20, 620, 20), side=(800, 1060), settings={"updates": 50_000}
    )
    path = write_report(run)
    assert path.stat().st_size < 4e6


def test_the_pace_is_taken_over_whole_stretches_between_checkpoints(make_run):
    run = read_run(make_run(rows=6))  # 10 updates in 5 seconds, a checkpoint every 20
    curve = _draw_rate(run)
    assert len(curve.line.split()) == 5
    assert len({corner.split(",")[1] for corner in curve.line.split()}) == 1
    assert _draw_rate(read_run(make_run(rows=1, name="begun"))) is not None
    assert _draw_rate(read_run(make_run(rows=0, name="bare"))) is None


def test_a_page_may_lie_elsewhere_and_the_run_is_not_touched(make_run, tmp_path):
    run = make_run()
    before = sorted(run.rglob("*"))
    assert write_report(run, tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(("name", "found"), [("", "holds no job.json"), ("no", "does not exist")])
def test_a_folder_that_is_no_run_is_refused_with_the_mend(tmp_path, name, found):
    mend = f"{found}.* Give the folder that `geotranslate train` wrote"
    with pytest.raises(SettingError, match=mend):
        write_report(tmp_path / name)


def test_a_page_that_cannot_be_written_is_said_with_the_mend(make_run, tmp_path):
    with pytest.raises(OutputError, match="Make the folder, or choose another output"):
        write_report(make_run(), tmp_path / "not there" / "page.html")


def test_numbers_are_spelled_as_people_read_them():
    assert [spell_duration(s) for s in (0.4, 250, 93_784)] == [
        "0:00:00",
        "0:04:10",
        "1 day, 2:03:04",
    ]
    assert [spell_bytes(n) for n in (12, 2.5e6, 4e10)] == ["12 bytes", "2.5 MB", "40 GB"]
