"""JupyterLab on a free port, and a panel on one of its pages as a person uses it. For the tests and the benchmark."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CODES = ("code", "prior", "label")  # sources that a slider of their own goes with
PATIENCE = 600  # seconds for anything to appear; a slow machine is not a failure
KERNEL = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"

# The kernel answers in turn, because JupyterLab is told to send widgets' messages to no other of its threads (subshells) than
# the one for cells: what it was asked before is done, and what it drew has arrived. A control that moves fast has one message
# under way and one waiting, so three rounds are enough for both.
SETTLE = f"""async () => {{
    for (let i = 0; i < 3; i++) {{
        await {KERNEL}.requestExecute({{code: '', silent: true, store_history: false}}).done;
        await new Promise(resolve => setTimeout(resolve, 20));  // the kernel brings a strip a frame after its picture
        await new Promise(requestAnimationFrame);
    }}
}}"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, its token, and the folder that it serves."""

    url: str
    token: str
    folder: Path


def script(name: str):
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tagged = script("demo").tagged  # a panel's own cells; the others would take minutes


def panels() -> dict[str, nbformat.NotebookNode]:
    """A page for every cell tagged `sliders`: under its notebook's name, and from the second one on with a number."""
    pages = {}
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = tagged(notebook)
        sliders = [cell for cell in page.cells if "sliders" in cell.metadata.get("tags", ())] if page else []
        for i, own in enumerate(sliders, 1):
            cells = [cell for cell in page.cells if cell is own or cell not in sliders]
            pages[notebook.stem + (f"_{i}" if i > 1 else "")] = nbformat.v4.new_notebook(cells=cells, metadata=page.metadata)
    return pages


PANELS = panels()


def chromium() -> str | None:
    """The browser's path, or None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def away_from_home(folder: Path) -> dict[str, str]:
    """An environment for a server that neither reads the user's own settings nor writes any."""
    return os.environ | {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "user"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


@contextmanager
def serving(command: list[str], address: str, folder: Path) -> Iterator[None]:
    """A server that runs as long as the block, once `address` answers. RuntimeError with its last words if it never does."""
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=away_from_home(folder), stdout=output, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + PATIENCE
            while not _answers(address):
                if time.monotonic() > end or server.poll() is not None:
                    raise RuntimeError(f"{command[2]} did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()  # it ends its kernels
            server.wait(PATIENCE)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def jupyterlab(home: Path) -> Iterator[Lab]:
    """Starts without news, help tours and stored workspaces, away from the user's own settings."""
    token, port = secrets.token_hex(16), free_port()
    folder, settings = home / "notebooks", home / "settings"
    folder.mkdir()
    settings.mkdir()
    shutil.copyfile(ROOT / "scripts" / "jupyterlab_settings.json", settings / "overrides.json")
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"),
        *("--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        *("--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True"),
        *(f"--LabApp.app_settings_dir={settings}", "--allow-root"),
    ]
    url = f"http://127.0.0.1:{port}"
    with serving(command, f"{url}/api/status?token={token}", home):
        yield Lab(url, token, folder)


def open_panel(lab: Lab, page, name: str) -> "PanelPage":
    """Run the cells that a panel needs in a notebook of its own, on a page of its own, and wait for the panel."""
    nbformat.write(PANELS[name], lab.folder / f"{name}.ipynb")
    page.goto(f"{lab.url}/lab/workspaces/{name}/tree/{name}.ipynb?token={lab.token}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.wait_for_function(f"{KERNEL}?.status === 'idle'")  # JupyterLab asks which kernel to run on if it is not there yet
    page.evaluate("() => void window.jupyterapp.commands.execute('notebook:run-all-cells')")
    panel = PanelPage(page, name)
    panel.wait()
    panel.settle()
    return panel


class PanelPage:
    """The panel on a page. What it offers is found by looking, so that every method's panel can be used alike."""

    def __init__(self, page, name: str = "", within: str = ""):
        """within: a selector of what the panel lies in, for a page that has several."""
        self.page, self.name = page, name
        self.root = page.locator(f"{within} .tl-panel").first
        self.picture = self.root.locator(".tl-left .tl-picture").first

    def wait(self) -> None:
        """Until the panel is there."""
        self.picture.wait_for()
        self.page.wait_for_function("document.querySelector('.tl-panel').dataset.named")

    def settle(self) -> None:
        """Until the kernel has done what it was asked, and the page shows it."""
        self.page.evaluate(SETTLE)

    # ---- what it shows

    def pixels(self, image=None) -> np.ndarray:
        """The picture, or another image of the page, as the file that it is."""
        return np.asarray(Image.open(BytesIO(self.file(image))).convert("RGB")).astype(int)

    def file(self, image=None) -> bytes:
        script = "async img => [...new Uint8Array(await (await fetch(img.src)).arrayBuffer())]"
        return bytes((image or self.picture).evaluate(script))

    def look(self) -> list[bytes]:
        """The picture and the strip below it."""
        images = self.root.locator(".tl-left .tl-picture")
        return [self.file(images.nth(i)) for i in range(images.count())]

    def stage(self, caption: str) -> np.ndarray:
        return self.pixels(self.root.locator(f'.tl-strip img[alt="{caption}"]'))

    def thumbnails(self):
        return self.root.locator(".tl-columns img")

    @property
    def error(self) -> str:
        return self.root.locator(".tl-error").inner_text().strip()

    @property
    def code(self) -> str:
        """What the code box shows; it is opened for that and closed again."""
        self.press("Code")
        text = self.root.locator(".tl-code pre").inner_text()
        self.press("Code")
        return text

    def boxes(self) -> list[float]:
        """Where the picture lies in the panel, and the sizes of both."""
        script = """panel => {
            const all = panel.getBoundingClientRect();
            const picture = panel.querySelector('.tl-left .tl-picture').getBoundingClientRect();
            return [all.width, all.height, picture.x - all.x, picture.y - all.y, picture.width, picture.height];
        }"""
        return self.root.evaluate(script)

    # ---- what can be moved

    def sliders(self) -> list:
        """The handles, each of which can be focused and moved by keys."""
        return self.root.locator(".tl-right [role=slider]").all()

    def slider(self, label: str):
        return self.root.locator(f'[role=slider][aria-label="{label}"]')

    @staticmethod
    def field(handle):
        """Where a slider's number can be typed: there is none if it has two handles, or names in the place of numbers."""
        slider = "xpath=ancestor::*[contains(concat(' ', @class, ' '), ' widget-slider ')][count(.//*[@role='slider'])=1]"
        return handle.locator(slider).locator(".widget-readout[contenteditable=true]")

    def groups(self) -> list:
        """The rows of buttons that choose where a factor comes from."""
        return self.root.locator(".tl-right [role=group]").all()

    @staticmethod
    def locked(handle) -> bool:
        """Whether a handle cannot be moved: its slider is disabled, or the slider's other handle is in the way."""
        return handle.evaluate(
            "handle => !!handle.closest('.noUi-target[disabled]') || handle.ariaValueMin === handle.ariaValueMax"
        )

    @staticmethod
    def range_is_free(handle) -> bool:
        """Whether it is one of a range's two handles and neither is in the other's way."""
        return handle.evaluate(
            """handle => {
                const handles = [...handle.closest('.noUi-target').querySelectorAll('[role=slider]')];
                return handles.length > 1 && handles.every(one => one.ariaValueMin !== one.ariaValueMax);
            }"""
        )

    def free_slider(self):
        """The last slider that can be moved; if a picture is chosen in the place of each, a code is chosen first."""
        for group in [None, *reversed(self.groups())]:
            if group is not None:
                self.choose_code(group)
            for handle in reversed(self.sliders()):
                if not self.locked(handle):
                    return handle
        raise AssertionError("no slider of this panel can be moved")

    def choose_code(self, group) -> None:
        last = group.get_by_role("button").last
        if last.is_enabled() and last.inner_text() in CODES:
            last.click()
            self.settle()

    def unlock(self) -> None:
        """Open what locks sliders: checked boxes, pictures in codes' places, menus, and the other handles of ranges."""
        for box in self.root.locator(".tl-options input[type=checkbox]:checked").all():
            box.click()
            self.settle()
        for group in self.groups():
            self.choose_code(group)
        for menu in self.root.locator("select").all():  # the last entry leaves it to the sliders
            menu.select_option(index=menu.locator("option").count() - 1)
            self.settle()
        for handle in self.sliders():  # a slider may be locked because of where another one is
            if not (self.locked(handle) or self.range_is_free(handle)):  # a range with both ends at one place leaves nothing
                self.to_other_end(handle)

    def press(self, button: str) -> None:
        self.root.get_by_role("button", name=button, exact=True).click()
        self.settle()

    def key(self, handle, key: str) -> None:
        handle.focus()
        self.page.keyboard.press(key)
        self.settle()

    def to_other_end(self, handle) -> None:
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        self.key(handle, "Home" if at_end else "End")

    def watch(self) -> None:
        """From now on the page counts the pictures that it is given and the sizes that the panel takes."""
        script = """panel => {
            window.observers?.forEach(one => one.disconnect());  // those of the drag before
            window.shown = [];
            window.sizes = -1;  // an observer tells the first size too
            const picture = panel.querySelector('.tl-left .tl-picture');
            const shown = new MutationObserver(() => window.shown.push(picture.src));
            const sizes = new ResizeObserver(() => window.sizes++);
            shown.observe(picture, {attributeFilter: ['src']});
            sizes.observe(panel);
            window.observers = [shown, sizes];
        }"""
        self.root.evaluate(script)

    def drag(self, handle, events: int) -> tuple[int, int, int]:
        """Drag a handle to the right end, or to the left if it is there.

        Returns the number of pictures, how many of them came after the mouse was let go, and how often the size changed.
        """
        self.watch()
        handle.scroll_into_view_if_needed()
        track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]").bounding_box()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        right = x < track["x"] + 0.9 * track["width"]
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(track["x"] + track["width"] + 5 if right else track["x"] - 5, y, steps=events)
        self.page.mouse.up()
        before = self.page.evaluate("window.shown.length")
        self.settle()
        pictures, sizes = self.page.evaluate("[window.shown.length, window.sizes]")
        return pictures, pictures - before, sizes
