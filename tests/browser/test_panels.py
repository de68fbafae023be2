"""Every panel of notebooks 00 to 06, used in a real browser: what it offers is found by looking."""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from driver import KERNEL, PANELS, PanelPage, open_panel
from PIL import Image

from tutorial_lib.training.checkpoints import load

pytestmark = pytest.mark.browser

ERRORS = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type$='stderr'], .tl-error span"


@pytest.fixture(scope="module", params=PANELS)
def opened(request, lab, context, screenshots):
    """A panel on its page, and what the console has complained about."""
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    panel = open_panel(lab, page, request.param)
    panel.root.screenshot(path=screenshots / f"{panel.name}.png")
    yield panel, problems
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()


@pytest.fixture
def panel(opened) -> PanelPage:
    """At its start. Afterwards nothing has gone wrong in kernel or console, and nothing has moved but the picture."""
    panel, problems = opened
    panel.press("Reset")
    boxes = panel.boxes()
    yield panel
    assert problems == []
    assert panel.page.locator(ERRORS).all_inner_texts() == []
    assert panel.boxes() == boxes, "the panel or the picture has another place or size"


def test_every_slider_is_reached_by_tabs_in_the_order_of_the_page(panel):
    panel.free_slider()
    expected = [handle.get_attribute("aria-label") for handle in panel.sliders() if not panel.locked(handle)]
    panel.root.locator("button:not([disabled])").first.focus()
    reached = []
    for _ in range(20 + 4 * len(panel.sliders()) + panel.root.locator("button").count()):
        panel.page.keyboard.press("Tab")
        script = "() => document.activeElement?.matches('.tl-panel [role=slider]') && document.activeElement.ariaLabel"
        label = panel.page.evaluate(script)
        if label in expected:  # one that is locked can be looked at too
            reached.append(label)
        if label == expected[-1]:
            break
    assert reached == expected


def test_one_thread_of_the_kernel_answers(panel):
    threads = f"async () => (await Promise.all([...{KERNEL}._comms.values()])).map(comm => comm.subshellId)"
    assert set(panel.page.evaluate(threads)) == {None}


def test_everything_has_a_name(panel):
    panel.page.evaluate("() => new Promise(done => setTimeout(done, 150))")  # names are given a tenth of a second later
    handles = panel.root.get_by_role("slider").all()
    names = [handle.get_attribute("aria-label") or "" for handle in handles]
    assert all(": " in name for name in names) and len(set(names)) == len(names)
    assert all(panel.root.locator("img").evaluate_all("images => images.map(image => image.alt)"))
    # Named by what stands in it, also by a style sheet, or else by its tooltip.
    script = (
        "all => all.map(one => one.textContent.trim() || (getComputedStyle(one, '::before').content === 'none' && one.title))"
    )
    assert all(panel.root.locator("button").evaluate_all(script))
    script = "all => all.map(one => one.ariaPressed === String(one.classList.contains('mod-active')))"
    assert all(panel.root.locator(".widget-toggle-button").evaluate_all(script))
    for handle in panel.sliders():
        assert handle.get_attribute("aria-disabled") == str(panel.locked(handle)).lower()
    assert panel.root.get_by_role("group").count() == panel.root.locator(".widget-toggle-buttons").count()


def each_slider(panel: PanelPage, move: Callable) -> None:
    """Move every slider: those that can be moved at the start, and then, unlocked, the others."""

    def free(handles: list) -> list:
        locked = []
        for handle in handles:
            if panel.locked(handle):
                locked.append(handle)
                continue
            before, name = panel.look(), handle.get_attribute("aria-label")
            move(handle)
            assert panel.look() != before, f"{name!r} was moved, and everything is as it was"
            panel.press("Undo")
            assert panel.look() == before, f"undo did not take back the move of {name!r}"
        return locked

    if locked := free(panel.sliders()):
        panel.unlock()
        locked = free(locked)
    assert [handle.get_attribute("aria-label") for handle in locked] == []


def test_a_key_on_each_slider_changes_the_picture_and_undo_brings_it_back(panel):
    each_slider(panel, panel.to_other_end)


def test_every_slider_can_be_dragged(panel):
    def drag(handle) -> None:
        name, value = handle.get_attribute("aria-label"), handle.get_attribute("aria-valuenow")
        pictures, late, sizes = panel.drag(handle, events=10)
        assert handle.get_attribute("aria-valuenow") != value, f"{name!r} stayed where it was"
        assert late <= 3 and sizes == 0, f"{name!r}: {late} of {pictures} pictures came late, {sizes} changes of size"

    each_slider(panel, drag)


def test_a_click_on_a_picture_takes_everything_from_it(panel):
    pictures = panel.root.locator(".tl-take")
    if not pictures.count():
        pytest.skip("this panel has no pictures to take factors from")
    before = panel.look()
    pictures.nth(1).click()
    panel.settle()
    assert panel.look() != before
    for factor in panel.root.locator(".tl-factor:has([role=group])").all():
        assert factor.get_by_role("group").first.locator(".mod-active").all_inner_texts() == ["B"]
    panel.press("Undo")
    assert panel.look() == before, "undo did not take the click back as one move"
    pictures.nth(1).focus()
    panel.page.keyboard.press("Enter")
    panel.settle()
    assert panel.look() != before


def test_a_drag_draws_no_queue_and_ends_on_its_last_picture(panel):
    handle = panel.free_slider()
    before = panel.pixels()
    pictures, late, sizes = panel.drag(handle, events=100)
    assert pictures and late <= 3, f"{late} of {pictures} pictures of a drag with 100 events came after its end"
    assert sizes == 0, "the panel has changed its size while a slider was dragged"
    value = handle.get_attribute("aria-valuenow")
    assert value in (handle.get_attribute("aria-valuemax"), handle.get_attribute("aria-valuemin"))
    dragged = panel.pixels()
    panel.press("Undo")
    assert (panel.pixels() == before).all(), "undo did not take the drag back as one move"
    panel.key(handle, "End" if value == handle.get_attribute("aria-valuemax") else "Home")
    assert handle.get_attribute("aria-valuenow") == value
    assert (panel.pixels() == dragged).all(), "the drag did not end on the picture of its last value"


def test_a_number_typed_beside_a_slider_counts_when_the_field_is_left(panel):
    panel.free_slider()
    fields = {handle: panel.field(handle) for handle in panel.sliders() if not panel.locked(handle)}
    fields = {handle: field for handle, field in fields.items() if field.count()}
    if not fields:
        pytest.skip("this panel has no number to type")
    handle = min(fields, key=lambda handle: float(handle.get_attribute("aria-valuemin")))  # below 0, if there is one
    low, high, now = (handle.get_attribute(f"aria-value{name}") for name in ("min", "max", "now"))
    before, wanted = panel.look(), high if now == low else low
    fields[handle].click()
    panel.page.keyboard.press("Control+A")
    panel.page.keyboard.insert_text(wanted.replace("-", "\u2212"))  # as the field itself writes it
    panel.page.keyboard.press("Tab")
    panel.settle()
    assert handle.get_attribute("aria-valuenow") == wanted and panel.look() != before
    shown = panel.look()
    fields[handle].click()
    panel.page.keyboard.press("Control+A")
    panel.page.keyboard.insert_text("abc")
    panel.page.keyboard.press("Tab")
    panel.settle()
    assert "abc" not in fields[handle].inner_text() and panel.look() == shown


def test_buttons_take_factors_from_pictures(panel):
    groups = [group for group in panel.groups() if not group.locator("button[disabled]").count()]
    if not groups:
        pytest.skip("this panel has no pictures to take factors from")
    before = panel.look()
    takes = panel.root.get_by_text("take from").count()  # the pictures are the panel's own
    for box in panel.root.locator(".tl-options input[type=checkbox]:checked").all() if takes else ():
        box.click()
        panel.settle()
    for group in groups:
        button = group.get_by_role("button", name="B", exact=True)
        button.click()
        panel.settle()
        assert group.locator(".mod-active").all_inner_texts() == ["B"]
    assert panel.look() != before
    if takes:
        small = panel.pixels(panel.thumbnails().nth(1))
        shown = Image.fromarray(panel.pixels().astype(np.uint8))
        shown.thumbnail(small.shape[:2])
        assert np.abs(np.asarray(shown) - small).mean() < 1, "all factors of picture B do not make picture B"


def test_shuffle_undo_and_reset(panel):
    if not panel.root.get_by_role("button", name="Shuffle").count():
        pytest.skip("this panel has nothing to shuffle")
    first = panel.look()
    assert panel.root.get_by_role("button", name="Reset").is_enabled()
    panel.press("Shuffle")
    second = panel.look()
    panel.press("Shuffle")
    assert second != first and panel.look() != second
    panel.press("Undo")
    assert panel.look() == second
    panel.press("Reset")
    assert panel.look() == first


def test_undo_at_the_first_picture_keeps_the_focus_in_the_panel(panel):
    panel.press("Reset")
    undo = panel.root.get_by_role("button", name="Undo", exact=True)
    undo.focus()
    for _ in range(120):  # more than a panel remembers
        if undo.is_disabled():
            break
        panel.page.keyboard.press("Enter")
        panel.settle()
    assert undo.is_disabled()
    panel.page.wait_for_function("() => document.activeElement.closest('.tl-tools')")


def test_save_downloads_the_picture(panel):
    with panel.page.expect_download() as download:
        panel.press("Save")
    name = panel.root.locator("style[data-name]").get_attribute("data-name")
    assert download.value.suggested_filename == f"{name}.png"
    assert panel.root.locator(".tl-left .tl-picture").first.get_attribute("alt").startswith(f"{name}: ")
    saved = download.value.path().read_bytes()
    assert saved == panel.file() and Image.open(BytesIO(saved)).format == "PNG"


def test_code_follows_the_picture_and_is_copied(panel):
    if not panel.root.get_by_role("button", name="Code", exact=True).count():
        pytest.skip("this panel offers no code")
    panel.press("Code")
    text = panel.root.locator(".tl-code pre")
    first = text.inner_text()
    panel.to_other_end(panel.free_slider())
    second = text.inner_text()
    assert second != first
    compile(second, "copied", "exec")
    panel.press("Copy")
    assert panel.page.evaluate("navigator.clipboard.readText()").strip() == second.strip()
    panel.press("Code")
    assert not text.is_visible()


def test_upload(panel, tmp_path):
    if not panel.root.locator(".tl-upload").count():
        pytest.skip("this panel takes no uploads")
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "yours.jpg")
    (tmp_path / "notes.png").write_text("no picture")
    photograph = np.random.default_rng(1).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "photograph.png")
    assert (tmp_path / "photograph.png").stat().st_size > 11 * 2**20  # more than Tornado takes in one message by itself

    def upload(name: str, button: str = ".tl-upload") -> None:
        with panel.page.expect_file_chooser() as chooser:
            panel.root.locator(button).click()
        chooser.value.set_files(tmp_path / name)
        panel.settle()

    last = panel.thumbnails().last
    panel.thumbnails().nth(1).wait_for()
    small, before, place = panel.file(last), panel.look(), panel.thumbnails().count() - 1
    panel.groups()[0].get_by_role("button").nth(place).click()
    panel.settle()
    assert "upload one first" in panel.error and panel.look() == before
    panel.press("Undo")
    upload("yours.jpg", ".tl-empty .tl-take")
    assert panel.error == "" and panel.file(last) != small and not panel.root.locator(".tl-empty").count()
    for group in panel.groups():  # a model may well read one factor of noise as it is already
        button = group.get_by_role("button").nth(place)
        if button.is_enabled():
            button.click()
    panel.settle()
    own = panel.look()
    assert own != before
    for _ in range(2):  # the same file once more, after the error has gone
        upload("notes.png")
        assert "not an image file" in panel.error and "\n" not in panel.error
        assert panel.look() == own
        if panel.root.get_by_role("button", name="Shuffle", exact=True).count():
            panel.press("Shuffle")
        else:
            panel.to_other_end(next(handle for handle in panel.sliders() if not panel.locked(handle)))
        assert panel.error == ""
        panel.press("Undo")
    small = panel.file(last)
    upload("photograph.png")
    for _ in range(100):  # it is on its way for a while
        if panel.file(last) != small:
            break
        panel.page.wait_for_timeout(200)
    assert panel.error == "" and panel.file(last) != small
    panel.press("Reset")
    assert panel.error == ""


@pytest.mark.parametrize("theme", ["Light", "Dark"])
@pytest.mark.parametrize("width", [1280, 700])
def test_nothing_sticks_out_or_gapes(panel, screenshots, request, theme, width):
    """At both widths and in both themes; the test for a person is the screenshot."""
    themes = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"
    panel.page.evaluate(themes, f"JupyterLab {theme}")
    panel.page.set_viewport_size({"width": width, "height": 1400})
    script = """panel => {
        const room = panel.parentElement.getBoundingClientRect();
        return [...panel.querySelectorAll('*')].filter(one => one.getBoundingClientRect().right > room.right + 1)
            .map(one => one.className);
    }"""
    # A line of buttons and, in a narrow window, one for its label.
    stretched = "panel => [...panel.querySelectorAll('.widget-toggle-buttons')].filter(one => one.clientHeight > 60).length"
    try:
        panel.page.wait_for_timeout(500)  # the window's parts follow its size
        panel.root.screenshot(path=screenshots / f"{request.node.callspec.id}.png")
        assert panel.root.evaluate(script) == []
        assert panel.root.evaluate(stretched) == 0
    finally:
        panel.page.evaluate(themes, "JupyterLab Light")
        panel.page.set_viewport_size({"width": 1280, "height": 1400})
        panel.page.wait_for_timeout(500)


def test_tools_wrap_where_they_do_not_fit(panel, screenshots, request):
    """As wide as a laptop's window is at 200 %."""
    cut = """panel => [...panel.querySelectorAll('.tl-tools button')].filter(one => one.scrollWidth > one.clientWidth)
        .map(one => one.textContent)"""
    panel.page.set_viewport_size({"width": 640, "height": 1400})
    try:
        panel.page.wait_for_timeout(500)  # the window's parts follow its size
        panel.root.screenshot(path=screenshots / f"{request.node.callspec.id}-narrow.png")
        assert panel.root.evaluate(cut) == []
    finally:
        panel.page.set_viewport_size({"width": 1280, "height": 1400})
        panel.page.wait_for_timeout(500)


# ---- what single notebooks are about


def only(panel: PanelPage, *names: str) -> None:
    if panel.name not in names:
        pytest.skip(f"is about {', '.join(names)}")


def move(panel: PanelPage, factor: str) -> np.ndarray:
    """Move a factor's first slider to its other end, off any picture; how much each pixel changes, (H, W)."""
    code = panel.root.get_by_role("group", name=factor, exact=False).get_by_role("button", name="code", exact=True)
    if code.count():
        code.click()
        panel.settle()
    before = panel.pixels()
    panel.to_other_end(panel.root.locator(f'.tl-right [role=slider][aria-label^="{factor}:"]').first)
    return np.abs(panel.pixels() - before).mean(-1)


def test_renderer_gives_the_exact_answer(panel):
    only(panel, "00_start_here")
    for factor, inside_stays in (("background", True), ("texture", False)):
        change = move(panel, factor)
        made: dict = {}
        exec(panel.code, made)
        image = ((made["image"][0].permute(1, 2, 0) + 1) * 127.5).numpy()
        assert np.abs(panel.pixels() - image).max() <= 1, "the copied code makes another picture than the page shows"
        mask = made["render"](made["scene"], size=256)["mask"][0, 0].numpy()
        stays, changes = (mask == 1, mask == 0) if inside_stays else (mask == 0, mask == 1)
        assert change[stays].max() <= 1 < 10 < change[changes].mean()


def test_copied_code_makes_the_picture_of_the_page(panel):
    only(panel, "01_finegan")
    panel.press("Shuffle")
    made = {"model": load("finegan").eval()}
    exec(panel.code, made)
    image = ((made["image"][0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).numpy()
    assert np.abs(panel.pixels() - image).max() <= 1


def test_background_changes_outside_the_bird_and_texture_inside(panel):
    only(panel, "01_finegan", "02_mixnmatch_code", "03_mixnmatch_feature")
    for factor in ("background", "texture"):
        bird = np.maximum(panel.stage("parent mask"), panel.stage("child mask"))[..., 0] > 127
        change = move(panel, factor)
        inside, outside = change[bird].mean(), change[~bird].mean()
        high, low = (outside, inside) if factor == "background" else (inside, outside)
        assert high > 4 * low, f"{factor}: {inside:.1f} of 255 inside the bird, {outside:.1f} outside"


def test_feature_mode_ties_the_pose_to_the_shape(panel):
    only(panel, "03_mixnmatch_feature")
    shape, pose = (panel.root.get_by_role("group", name=factor) for factor in ("shape", "pose"))
    shape.get_by_role("button", name="B", exact=True).click()
    panel.settle()
    assert pose.locator(".mod-active").all_inner_texts() == ["B"] and pose.get_by_role("button").first.is_disabled()
    exact = panel.look()
    panel.root.get_by_label("feature mode").click()
    panel.settle()
    assert panel.look() != exact and pose.get_by_role("button").first.is_enabled()
    pose.get_by_role("button", name="C", exact=True).click()
    panel.settle()
    assert shape.locator(".mod-active").all_inner_texts() == ["B"]
