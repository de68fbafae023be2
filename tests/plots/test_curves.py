import json

import numpy as np
import pytest

from tutorial_lib.plots.curves import compared_curves, metric_curves, read_log, series

FLAT = [{"step": s, "images": 8 * s, "seconds": 0.1 * s, "critic": 1.0 / s, "generator": 2.0} for s in (50, 100, 150)]


def test_every_loss_has_a_panel_with_its_curve():
    figure = metric_curves(FLAT, title="A run")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["critic", "generator"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[50, 1 / 50], [100, 1 / 100], [150, 1 / 150]]


def test_bookkeeping_is_drawn_only_when_asked_for():
    assert list(series(FLAT)[1]) == ["critic", "generator"]
    assert list(series(FLAT, ["seconds"])[1]) == ["seconds"]


def test_nested_losses_are_found():
    assert series([{"step": 1, "losses": {"critic": 3.0}}])[1]["critic"].tolist() == [3.0]


def test_a_value_missing_from_a_line_leaves_a_gap():
    values = series([*FLAT, {"step": 200, "critic": 0.1}])[1]["generator"]
    assert np.isnan(values).tolist() == [False, False, False, True]


def test_what_is_not_in_every_line_is_drawn_through_the_gaps():
    lines = [{"step": s, "often": 1.0, **({"seldom": float(s)} if s % 3 == 0 else {})} for s in range(1, 9)]
    often, seldom = metric_curves(lines).axes
    assert seldom.lines[0].get_xydata().tolist() == [[3, 3], [6, 6]] and seldom.get_title(loc="right") == "6"
    assert often.get_xlim() == seldom.get_xlim() == (0, 8)
    never = metric_curves([{"step": 1, "a": float("nan")}]).axes[0]
    assert never.get_title(loc="right") == ""


def test_an_unknown_key_is_named_with_what_there_is():
    with pytest.raises(ValueError, match=r"no \['fid'\]; it has critic, generator"):
        metric_curves(FLAT, ["fid"])


@pytest.mark.parametrize("metrics", [[], [{"critic": 1.0}]])
def test_lines_need_a_step(metrics):
    with pytest.raises(ValueError, match="lines with a 'step'"):
        metric_curves(metrics)


def test_a_log_is_read_line_by_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in FLAT))
    assert read_log(tmp_path / "metrics.jsonl") == FLAT


def test_runs_of_a_group_share_a_colour_and_have_a_mean():
    one, other = {"step": [0, 1, 2], "a": [1.0, 2.0, 3.0]}, {"step": [0, 1, 2], "a": [3.0, 4.0, 5.0], "b": [0.0, 0.0, 1.0]}
    figure = compared_curves({"first": [one, other], "second": [other]}, {"a": "A", "b": "B"})
    left, right = figure.axes
    assert [left.get_title(loc="left"), right.get_title(loc="left")] == ["A", "B"]
    thin, thin_too, mean = left.lines[:3]
    assert thin.get_color() == thin_too.get_color() == mean.get_color() != left.lines[3].get_color()
    assert mean.get_ydata().tolist() == [2.0, 3.0, 4.0]
    assert len(right.lines) == 4  # `one` has no b
    lacking = compared_curves({"first": [other], "second": [one]}, {"b": "B", "a": "A"})
    assert [text.get_text() for text in lacking.legends[0].get_texts()] == ["first", "second"]


def test_runs_that_were_logged_at_other_steps_have_no_mean():
    often, seldom = {"step": [0, 10, 20], "a": [1.0, 2.0, 3.0]}, {"step": [0, 20], "a": [1.0, 3.0]}
    with pytest.raises(ValueError, match="runs of 'first' were logged at different steps: there is no mean of 'a'"):
        compared_curves({"first": [often, seldom]}, {"a": "A"})
    compared_curves({"first": [often], "second": [seldom]}, {"a": "A"})


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        compared_curves({"first": []}, {"a": "A"})
