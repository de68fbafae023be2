import asyncio
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from threading import Event, Thread

import numpy as np
import pytest
import torch
from ipywidgets import (
    Button,
    Checkbox,
    FileUpload,
    FloatRangeSlider,
    FloatSlider,
    IntSlider,
    SelectionSlider,
    ToggleButton,
    ToggleButtons,
    Widget,
)
from PIL import Image
from traitlets import Bunch

from tutorial_lib.widgets import panel as panel_module
from tutorial_lib.widgets.panel import STEPS_BACK, Panel, png, to_uint8


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)))


class Paint:
    """Draws the state as one colour, counts its pictures, and raises on red 13."""

    drawn = 0

    def __call__(self, state):
        self.drawn += 1
        if state["red"] == 13:
            raise RuntimeError("no <b>thirteen</b>\nand a second line")
        return np.broadcast_to(np.array([state["red"], state["green"], 0], np.uint8), (8, 8, 3)).copy()


def sample(seed):
    return {"red": 10 * seed + 20, "green": 10 * seed + 21}


@pytest.fixture
def paint():
    return Paint()


@pytest.fixture
def panel(paint):
    return Panel(
        {
            "warm": {"red": IntSlider(0, 0, 255, description="red")},
            "cold": {"green": SelectionSlider(options=range(256), description="green")},
        },
        paint,
        options={"lock": Checkbox(False, description="lock: green is red")},
        follow=lambda state: {"green": state["red"]} if state["lock"] else {},
        sample=sample,
        sources=3,
    )


def colour(panel: Panel) -> list[int]:
    return decode(panel.png)[3, 3].tolist()


def test_starts_with_first_sample(panel):
    assert panel.state == {"red": 20, "green": 21, "lock": False} and colour(panel) == [20, 21, 0]


def test_moved_control_is_drawn_without_front_end(panel):
    panel.controls["red"].value = 200
    assert colour(panel) == [200, 21, 0]


def test_set_draws_once(panel, paint):
    before = paint.drawn
    panel.set(red=1, green=2)
    assert paint.drawn == before + 1 and colour(panel) == [1, 2, 0]


def test_reset_goes_back_to_the_start(panel):
    panel.set(red=1, green=2, lock=True)
    panel.reset()
    assert panel.state == {"red": 20, "green": 21, "lock": False} and colour(panel) == [20, 21, 0]


def test_shuffle_shows_the_next_sample_and_keeps_options(panel):
    panel.set(lock=True)
    panel.shuffle()
    assert panel.state == {"red": 50, "green": 50, "lock": True}  # sample 3, its green overruled by the lock


def below(widget) -> Iterator[Widget]:
    """The widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from below(child)


def buttons(widget) -> dict[str, Button]:
    """All buttons below a widget by their text, or by what they say they do."""
    return {one.description or one.tooltip: one for one in below(widget) if isinstance(one, Button | ToggleButton)}


def test_buttons_do_what_they_say(panel):
    there = buttons(panel.widget)
    there["Shuffle"].click()
    assert panel.state["red"] == 50
    there["Reset"].click()
    assert panel.state["red"] == 20
    there["Undo"].click()
    assert panel.state["red"] == 50


def test_undo_takes_moves_back_one_by_one(panel):
    first = panel.state
    panel.set(red=1)
    panel.set(red=2, green=3)
    panel.undo()
    assert panel.state == first | {"red": 1} and colour(panel) == [1, 21, 0]
    panel.undo()
    assert panel.state == first and colour(panel) == [20, 21, 0]


def test_undo_at_the_start_does_nothing(panel):
    first, undo = panel.state, buttons(panel.widget)["Undo"]
    assert undo.disabled
    panel.undo()
    assert panel.state == first
    panel.set(red=1)
    assert not undo.disabled
    panel.undo()
    assert undo.disabled


def test_undo_takes_back_a_drag_as_one_move(panel):
    panel.controls["green"].value = 90
    for red in range(30, 130):
        panel.controls["red"].value = red
    panel.undo()
    assert panel.state["red"] == 20 and panel.state["green"] == 90


def test_moves_of_several_threads_wait_for_each_other(panel, paint):
    drawing, go_on = Event(), Event()

    def slow(state):
        if not drawing.is_set():  # the first picture takes longer than the second
            drawing.set()
            go_on.wait(60)
        return paint(state)

    panel._draw = slow
    moves = [Thread(target=setattr, args=(panel.controls[name], "value", 90)) for name in ("red", "green")]
    moves[0].start()
    drawing.wait(60)
    moves[1].start()
    moves[1].join(0.2)  # it would be done by now if it did not wait
    assert moves[1].is_alive()
    go_on.set()
    for move in moves:
        move.join(60)
    assert colour(panel) == [90, 90, 0]
    panel.undo()
    panel.undo()
    assert colour(panel) == [20, 21, 0]


@pytest.mark.parametrize(("threads", "drawing"), [(1, 1), (2, 1), (5, 2)])
def test_draws_with_half_the_threads(panel, paint, threads, drawing):
    seen = []
    panel._draw = lambda state: seen.append(torch.get_num_threads()) or paint(state)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        panel.set(red=50)
        panel.set(red=13)  # raises while it draws
        assert panel.error and seen == [drawing, drawing] and torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_two_panels_drawing_at_once_leave_pytorch_its_threads():
    began, go_on, left = [Event(), Event()], [Event(), Event()], []

    def panel_of(i: int) -> Panel:
        def draw(state):
            if state["x"]:
                began[i].set()
                go_on[i].wait(60)
            return np.zeros((8, 8, 3), np.uint8)

        return Panel({"x": {"x": IntSlider(0, 0, 9, description="x")}}, draw)

    def in_a_new_thread(work, **values) -> Thread:  # which takes over the number of threads that is set
        thread = Thread(target=work, kwargs=values)
        thread.start()
        return thread

    panels, before = [panel_of(0), panel_of(1)], torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        first = in_a_new_thread(panels[0].set, x=1)
        began[0].wait(60)
        second = in_a_new_thread(panels[1].set, x=1)
        began[1].wait(0.2)  # it would draw by now if it did not wait
        for event, move in zip(go_on, (first, second), strict=True):
            event.set()
            move.join(60)
        in_a_new_thread(lambda: left.append(torch.get_num_threads())).join(60)
        assert began[1].is_set() and left == [4]
    finally:
        torch.set_num_threads(before)


def test_undo_does_not_take_two_clicks_for_a_drag(panel):
    panel.controls["lock"].value = True
    panel.controls["lock"].value = False
    panel.undo()
    assert panel.state["lock"] is True


def test_undo_takes_back_what_followed(panel):
    first = panel.state
    panel.set(lock=True, red=77)
    panel.undo()
    assert panel.state == first and not panel.controls["green"].disabled


def test_the_uploads_place_is_empty_until_there_is_one():
    grey = [np.full((8, 8, 3), 60 * i, np.uint8) for i in range(3)]
    letters = ToggleButtons(options=[("A", 0), ("B", 1), ("C", 2)], value=0, description="from")
    other = ToggleButtons(options=[("low", 1), ("high", 2)], value=2, description="range")  # its 2 is no picture

    def upload(data):
        grey[2] = np.full((8, 8, 3), len(data), np.uint8)
        return grey[2]

    panel = Panel(
        {"x": {"from": letters}, "y": {"range": other}}, lambda state: grey[state["from"]], pictures=grey, upload=upload
    )
    tile, button = panel._tiles[-1], panel._tiles[-1].children[-1]
    assert panel.error == "" and "tl-empty" in tile._dom_classes and button.tooltip == "upload a picture of your own"
    panel.set(**{"from": 1})
    button.click()  # the page opens a chooser
    assert panel.error == "" and colour(panel) == [60, 60, 60]
    panel.set(**{"from": 2})
    assert panel.error == "ValueError: C is the place of a picture of yours: upload one first" and colour(panel) == [60, 60, 60]
    panel.upload(b"seven__")
    assert panel.error == "" and colour(panel) == [7, 7, 7]
    assert "tl-empty" not in tile._dom_classes and button.tooltip == "take everything from picture C"
    panel.reset()
    button.click()
    assert panel.state["from"] == 2 and panel.error == ""


def test_the_same_file_can_be_chosen_twice():
    grey, uploaded = np.zeros((8, 8, 3), np.uint8), []
    panel = Panel(
        {"x": {"red": IntSlider(0, 0, 9, description="red")}},
        lambda state: grey,
        pictures=[grey],
        upload=lambda data: uploaded.append(data) or grey,
    )

    (chooser,) = (widget for widget in below(panel.widget) if isinstance(widget, FileUpload))
    file = Bunch(name="a.png", type="image/png", size=3, content=b"one", last_modified=datetime.now(UTC))
    for _ in range(2):
        chooser.value = (file,)
    assert uploaded == [b"one", b"one"] and chooser.value == ()


def test_undo_goes_behind_an_upload_that_changes_what_follows():
    read = {"follows": 1}

    def upload(data):
        read["follows"] = len(data)
        return np.zeros((8, 8, 3), np.uint8)

    sliders = {name: IntSlider(0, min=0, max=9, description=name) for name in ("free", "follows")}
    panel = Panel(
        {"x": sliders}, lambda state: np.full((8, 8, 3), 10 * state["free"] + state["follows"], np.uint8),
        follow=lambda state: dict(read), pictures=[np.zeros((8, 8, 3), np.uint8)], upload=upload,
    )  # fmt: skip
    panel.set(free=3)
    panel.upload(b"four")
    assert panel.state == {"free": 3, "follows": 4}
    panel.undo()
    assert panel.state == {"free": 0, "follows": 4} and colour(panel) == [4, 4, 4]
    assert buttons(panel.widget)["Undo"].disabled


def test_picture_has_the_name_it_is_given(paint):
    control = IntSlider(0, min=0, max=9, description="red")
    panel = Panel({"colour": {"red": control}}, lambda state: np.zeros((8, 8, 3), np.uint8), name="apple")
    assert panel.name == "apple" and buttons(panel.widget)["Save"].tooltip == "download apple.png"


def test_a_front_end_that_rounds_is_no_move():
    drawn = []

    def draw(state):
        drawn.append(state["x"])
        return np.zeros((8, 8, 3), np.uint8)

    panel = Panel({"x": {"x": FloatSlider(0.3, min=0, max=1, step=0.1, description="x")}}, draw)
    panel.controls["x"].value = 0.1 * 3  # 0.30000000000000004
    panel.undo()
    assert drawn == [0.3] and buttons(panel.widget)["Undo"].disabled


def test_history_is_bounded(panel):
    for green in range(STEPS_BACK + 20):
        panel.set(green=green + 30)
    for _ in range(STEPS_BACK + 20):
        panel.undo()
    assert panel.state["green"] == 30 + 19


def test_undo_leaves_a_picture_that_could_not_be_drawn(panel):
    panel.set(red=13)
    panel.undo()
    assert panel.error == "" and colour(panel) == [20, 21, 0]


def test_saved_file_is_the_picture(panel, tmp_path):
    panel.set(red=5)
    assert decode(panel.save(tmp_path / "own.png").read_bytes())[0, 0].tolist() == [5, 21, 0]
    with pytest.raises(ValueError, match="path must end in .png, got own.jpg"):
        panel.save("own.jpg")


def test_code_is_shown_when_it_is_asked_for_and_follows(paint):
    red = IntSlider(1, 0, 255, description="red")
    green = IntSlider(2, 0, 255, description="green")
    panel = Panel({"warm": {"red": red, "green": green}}, paint, code=lambda state: f"paint({state['red']} < 255)")
    assert panel.code == "paint(1 < 255)" and panel._text.value == ""
    buttons(panel.widget)["Code"].value = True
    panel.set(red=7)
    assert panel._text.value == "<pre>paint(7 &lt; 255)</pre>" and panel._code_box.layout.display == ""


def test_panel_without_code_says_so(panel):
    assert "Code" not in buttons(panel.widget)
    with pytest.raises(ValueError, match="no `code`"):
        _ = panel.code


def test_take_moves_one_factor_only(panel):
    panel.take("warm", 2)
    assert colour(panel) == [40, 21, 0]


def test_a_click_on_a_picture_takes_everything_from_it_in_one_move(panel):
    first = panel.state
    buttons(panel.widget)["take everything from picture C"].click()
    assert panel.state == first | panel.sources[2]
    assert {taker.value for taker in panel.takers.values()} == {2}
    panel.undo()
    assert panel.state == first
    for place in (-1, len(panel.sources)):
        with pytest.raises(ValueError, match=f"place must be 0 … {len(panel.sources) - 1}, got {place}"):
            panel.take_all(place)


def test_a_click_on_a_real_picture_chooses_it_for_every_factor_that_has_a_choice():
    def source():
        return ToggleButtons(options=[("A", 0), ("B", 1), ("code", -1)], description="from")

    factors = {
        "shape": {"shape": source(), "p": IntSlider(3, 0, 9, description="p")},
        "light": {
            "light": source(),
            "also": source(),
            "strength": FloatSlider(1, min=0, max=2, description="strength"),
            "cuts": FloatRangeSlider(value=(1, 1), min=0, max=1, description="cuts"),
        },
        "mask": {"cut": IntSlider(5, 0, 9, description="cut")},
    }
    black = np.zeros((8, 8, 3), np.uint8)
    panel = Panel(factors, lambda state: black, pictures=[black, black])
    panel.set(p=4, cut=6, strength=0.5, cuts=(0.2, 0.7))
    panel.take_all(1)
    assert panel.state == {"shape": 1, "p": 4, "light": 1, "also": 1, "strength": 1.0, "cuts": (1.0, 1.0), "cut": 6}
    with pytest.raises(ValueError, match="place must be 0 … 1, got 2"):
        panel.take_all(2)


def test_taker_button_takes(panel):
    panel.takers["cold"].value = 1
    assert colour(panel) == [20, 31, 0]


def test_takers_show_where_factors_come_from(panel):
    panel.set(red=30, green=99)
    assert panel.takers["warm"].value == 1 and panel.takers["cold"].value is None


def test_lock_moves_follower_and_holds_it(panel):
    panel.set(lock=True, red=77)
    green, taker = panel.controls["green"], panel.takers["cold"]
    assert colour(panel) == [77, 77, 0] and green.disabled and taker.disabled


def test_open_lock_frees_follower(panel):
    panel.set(lock=True)
    panel.set(lock=False, green=5)
    assert panel.state["green"] == 5 and not panel.controls["green"].disabled


def test_error_in_draw_is_one_escaped_line_beside_the_last_picture(panel):
    panel.set(red=12)
    panel.set(red=13)
    assert panel.error == "RuntimeError: no <b>thirteen</b>" and colour(panel) == [12, 21, 0]
    assert "&lt;b&gt;thirteen" in panel._line.value


def test_panel_goes_on_after_an_error(panel):
    panel.set(red=13)
    panel.set(red=14)
    assert panel.error == "" and panel._line.value == "" and colour(panel) == [14, 21, 0]


def test_first_picture_raises():
    with pytest.raises(RuntimeError, match="thirteen"):
        Panel({"warm": {"red": IntSlider(13, description="red")}}, Paint())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blue": 1}, "no control .*blue"),
        ({"red": 999}, "red must lie in 0 … 255, got 999"),
        ({"green": -1}, "green cannot"),
    ],
)
def test_set_refuses_and_changes_nothing(panel, values, message):
    before = panel.state, panel.png
    with pytest.raises(ValueError, match=message):
        panel.set(**{"lock": True, **values})
    assert (panel.state, panel.png) == before


@pytest.mark.parametrize(("factor", "source"), [("sound", 0), ("warm", 3), ("warm", -1)])
def test_take_refuses_what_is_not_there(panel, factor, source):
    with pytest.raises(ValueError, match="no factor 'sound'|source must be 0 … 2"):
        panel.take(factor, source)


@pytest.fixture
def with_strip() -> Panel:
    def draw(state):
        tile = np.full((4, 4), state["x"], np.uint8)
        return np.full((8, 8, 3), state["x"], np.uint8), [tile, 255 - tile]

    return Panel({"x": {"x": IntSlider(0, 0, 255, description="x")}}, draw, strip=("mask", "rest"))


class Loop:
    """A kernel's event loop, whose time comes when the test says so."""

    def __init__(self):
        self.waiting = []

    def call_later(self, delay, call, *arguments):
        self.waiting.append((call, arguments))

    def run(self):
        for call, arguments in self.waiting:
            call(*arguments)
        self.waiting.clear()


@pytest.fixture
def loop(monkeypatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(panel_module, "_running_loop", lambda: loop)
    monkeypatch.setattr(panel_module, "_BEHIND", 1e9)
    return loop


def shades(panel: Panel) -> list[int]:
    """Of what the page shows: the picture and the strip."""
    images = (panel._image, *panel._strip.values())
    return [int(decode(bytes(image.value)).flat[0]) for image in images]


def test_strip_follows_the_state(with_strip):
    with_strip.set(x=9)
    assert {caption: decode(data)[0, 0] for caption, data in with_strip.strip.items()} == {"mask": 9, "rest": 246}


def test_strip_waits_until_a_drag_pauses(with_strip, loop):
    shown = []
    with_strip._strip["mask"].observe(lambda change: shown.append(shades(with_strip)[1]), "value")
    for x in (3, 4, 5):
        with_strip.controls["x"].value = x
        assert shades(with_strip) == [x, 0, 255]
    loop.run()
    assert shades(with_strip) == [5, 5, 250] and shown == [5]


def test_strip_does_not_stay_behind_for_long(with_strip, loop, monkeypatch):
    with_strip.controls["x"].value = 3
    monkeypatch.setattr(panel_module, "_BEHIND", 0.0)
    with_strip.controls["x"].value = 4
    assert shades(with_strip) == [4, 4, 251]
    loop.run()
    assert shades(with_strip) == [4, 4, 251]


def test_strip_that_is_asked_for_is_that_of_the_picture(with_strip, loop):
    with_strip.controls["x"].value = 3
    assert decode(with_strip.strip["mask"])[0, 0] == 3
    with_strip.controls["x"].value = 4
    with_strip.set(x=7)
    assert shades(with_strip) == [7, 7, 248]
    loop.run()
    assert shades(with_strip) == [7, 7, 248]


def test_strip_comes_by_itself_in_a_running_loop(with_strip):
    async def move():
        with_strip.controls["x"].value = 3
        for _ in range(1000):
            if shades(with_strip)[1] == 3:
                break
            await asyncio.sleep(0.01)

    asyncio.run(move())
    assert shades(with_strip) == [3, 3, 252]


def test_code_that_comes_late_is_that_of_the_picture(loop):
    def draw(state):
        if state["x"] == 13:
            raise RuntimeError("thirteen")
        return np.zeros((8, 8, 3), np.uint8)

    def code(state):
        return f"x = {7 // (state['x'] - 5)}"

    panel = Panel({"x": {"x": IntSlider(0, 0, 255, description="x")}}, draw, code=code)
    next(button for button in panel.widget.children[1].children[1].children if button.description == "Code").value = True
    panel.controls["x"].value = 6
    panel.controls["x"].value = 13
    loop.run()
    assert panel._text.value == "<pre>x = 7</pre>" and panel.error == "RuntimeError: thirteen"
    panel.controls["x"].value = 5  # of which there is no code
    loop.run()
    assert panel.error.startswith("ZeroDivisionError")


def test_control_without_label_is_refused():
    with pytest.raises(ValueError, match="'red' has no description"):
        Panel({"warm": {"red": IntSlider()}}, Paint())


def test_two_controls_of_one_name_are_refused():
    slider = IntSlider(description="red")
    with pytest.raises(ValueError, match="two controls are called 'red'"):
        Panel({"warm": {"red": slider}, "cold": {"red": slider}}, Paint())


@pytest.mark.parametrize("picture", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)])
def test_png_refuses_what_is_no_picture(picture):
    with pytest.raises(ValueError, match="uint8 \\(H, W, 3\\)"):
        png(picture)


def test_png_loses_nothing():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (decode(png(picture)) == picture).all()


def test_to_uint8_maps_the_ends_of_the_range():
    torch = pytest.importorskip("torch")
    picture = torch.tensor([-1.0, 0.0, 1.0])[:, None, None]
    assert to_uint8(picture).tolist() == [[[0, 128, 255]]] and to_uint8(torch.ones(1, 1, 1)).tolist() == [[255]]


def test_notebook_on_the_web_shows_the_picture(panel):
    bundle = panel._repr_mimebundle_()
    assert b64decode(bundle["image/png"]) == panel.png and "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize("drawn", [(np.zeros((4, 4, 3)), []), (np.zeros((4, 4, 3), np.uint8), [])], ids=["floats", "no strip"])
def test_what_is_no_picture_is_one_line_of_error(drawn):
    right = np.zeros((4, 4, 3), np.uint8), [np.zeros((4, 4, 3), np.uint8)]
    panel = Panel(
        {"x": {"red": IntSlider(0, 0, 9, description="red")}}, lambda state: drawn if state["red"] else right, strip=("tile",)
    )
    before = panel.png
    panel.set(red=1)
    assert panel.error and panel.png == before
    panel.set(red=0)
    assert panel.error == ""


def test_an_upload_that_fails_in_any_way_is_one_line_of_error():
    grey = np.zeros((8, 8, 3), np.uint8)

    def upload(data):
        raise RuntimeError("out of memory")

    panel = Panel({"x": {"red": IntSlider(0, 0, 9, description="red")}}, lambda state: grey, pictures=[grey], upload=upload)
    panel.upload(b"")
    assert panel.error == "RuntimeError: out of memory"


def test_what_follows_follows_while_the_uploads_place_is_empty():
    grey = np.zeros((8, 8, 3), np.uint8)
    letters = [("A", 0), ("B", 1)]
    panel = Panel(
        {
            "shape": {"shape": ToggleButtons(options=letters, value=0, description="from")},
            "pose": {"pose": ToggleButtons(options=letters, value=0, description="from")},
        },
        lambda state: grey,
        options={"tied": Checkbox(False, description="tied")},
        follow=lambda state: {"pose": state["shape"]} if state["tied"] else {},
        pictures=[grey, grey],
        upload=lambda data: grey,
    )
    panel.set(pose=1)
    assert "upload one first" in panel.error
    panel.set(tied=True)
    assert panel.error == "" and panel.state["pose"] == 0 and panel.controls["pose"].disabled
