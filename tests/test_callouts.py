"""Labels of a figure's frontier: none over another, none beyond the edge; looks of lines differ."""

from synthetic_rows import study_rows

from joulewise import callouts, chart_style, charts
from joulewise.chart_style import COLOURS, DASHES, SHAPES
from joulewise.summary import summary


def test_labels_that_would_overlap_or_leave_the_figure_are_left_out_the_first_first():
    places = [(200.0, 50.0), (205.0, 55.0), (200.0, 80.0), (20.0, 50.0), (399.0, 50.0)]
    assert callouts._fitting(["density=0.1"] * 5, places) == [True, False, True, False, True]
    assert callouts._fitting(["", "density=0.1"], places[:2]) == [False, True]


def test_a_figure_labels_points_of_the_frontier_alone():
    (found,) = summary(study_rows(densities=(0.01, 0.1), seeds=(0, 1, 2), rounds=3, clients=2))
    spec = callouts.in_figure(charts.frontier(found, "energy", "log"), 420, 294)
    shown = [point for point in spec["data"]["values"] if point["shown"]]
    assert shown
    assert all(point["frontier"] for point in shown)
    assert spec["layer"][-1]["encoding"]["text"] == {"field": "label", "type": "nominal"}


def test_a_dozen_lines_differ_in_colour_shape_or_dash():
    def looks(choices, around):
        return [str(chart_style._nth(choices, place, around)) for place in range(12)]

    both = list(zip(looks(COLOURS, False), looks(SHAPES, True), strict=True))
    assert len(set(both)) == 12
    assert len(set(zip(looks(COLOURS, False), looks(DASHES, True), strict=True))) == 12
