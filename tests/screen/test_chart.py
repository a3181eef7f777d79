import math
import re
import xml.etree.ElementTree as ET

import pytest

from autoinit.screen.chart import HEIGHT, WIDTH, Interval, Series, intervals, lines

SVG = "{http://www.w3.org/2000/svg}"


def svg(html):
    return ET.fromstring(re.match(r"<svg.*?</svg>", html, re.DOTALL)[0])


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]


def test_lines_go_from_corner_to_corner_inside_the_frame():
    html = lines(
        [Series("own weights", [(0, 2.0), (10, 2.0)]), Series("chosen", [(0, 2.0), (10, 1.0)])], "step", "loss"
    )
    own, chosen = (points(line) for line in svg(html).iter("polyline"))
    assert own[0][1] == own[1][1] == chosen[0][1]
    assert chosen[1][1] > own[1][1]  # y grows downwards: a lower loss is lower
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in own + chosen)
    assert "own weights" in html
    assert "chosen" in html


def test_a_logarithmic_axis_puts_tenths_at_equal_distances():
    html = lines([Series("std", [(0, 1.0), (1, 0.1), (2, 0.01)])], "layer", "std", logarithmic=True)
    ((first, second, third),) = (points(line) for line in svg(html).iter("polyline"))
    assert second[1] - first[1] == pytest.approx(third[1] - second[1], abs=0.2)


@pytest.mark.parametrize("points_", [[], [(0, 1.0)], [(0, math.nan), (1, math.inf)], [(0, 0.0), (1, -1.0)]])
def test_nothing_to_draw_is_nothing(points_):
    assert lines([Series("x", points_)], "step", "loss", logarithmic=True) == ""
    assert intervals([], "gain") == ""


def test_constant_lines_are_drawn():
    html = lines([Series("x", [(0, 1.0), (1, 1.0)])], "step", "loss")
    assert all(math.isfinite(y) for line in svg(html).iter("polyline") for _, y in points(line))


def test_intervals_say_on_which_side_of_the_middle_they_are():
    rows = [Interval("he_normal", -0.5, -0.7, -0.3), Interval("lsuv", 0.1, -0.2, 0.4)]
    found = svg(intervals(rows, "gain"))
    clear, unclear = found.iter("circle")
    assert clear.get("fill") != unclear.get("fill")
    assert float(clear.get("cx")) < float(unclear.get("cx"))
    assert [text.text for text in found.iter("text")][:2] == ["he_normal", "lsuv"]
