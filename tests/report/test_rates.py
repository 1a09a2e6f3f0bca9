import re
from xml.etree import ElementTree

import numpy as np

from geotranslate.report.curves import LEFT, RIGHT, WIDTH
from geotranslate.report.rates import draw_rates
from geotranslate.translation.lr_find import Advice


def test_the_picture_is_an_svg_with_both_rates_where_they_are_on_the_axis(tmp_path):
    rates = np.geomspace(1e-6, 1, 50)
    losses = tuple(np.linspace(9, 4, 50))
    path = tmp_path / "rates.svg"
    draw_rates(Advice(1e-4, 1e-3, tuple(rates), losses), path)
    root = ElementTree.fromstring(path.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    marks = [float(each.get("x1")) for each in root.iter() if each.get("class") == "mark"]
    width = WIDTH - RIGHT - LEFT
    assert np.allclose(marks, [LEFT + width * 2 / 6, LEFT + width * 3 / 6], atol=0.1)
    title = next(root.iter("{http://www.w3.org/2000/svg}title")).text
    assert re.search(r"valley 1.0e-04, steepest 1.0e-03", title)
