"""How long a slider takes from its event in the browser to the painted picture, and what that time goes into.

    python benchmarks/sliders_browser.py [--changes 100] [--drags 5] [01_finegan …]

Without names all panels are measured, and data/results/sliders_browser.json is written, panel by panel; with names figures are
only printed. Needs Chromium. Browser and kernel share the machine and its clock.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "browser"))

from driver import KERNEL, PANELS, PATIENCE, ROOT, PanelPage, chromium, jupyterlab, open_panel
from playwright.sync_api import sync_playwright

from tutorial_lib.training.checkpoints import machine

RESULTS = ROOT / "data" / "results" / "sliders_browser.json"
TARGETS = {"median_ms": 50, "p95_ms": 100, "drag_ms": 150}
UNDISTURBED = 0.3  # seconds after a key in which nothing is asked of page or kernel
PARTS = ("to_kernel", "kernel", "to_page", "paint")

# Milliseconds since 1970: of the last key, a slider's last new value, the picture's new bytes, and their painting.
WATCH = """panel => {
    const picture = panel.querySelector('.tl-left .tl-picture'), now = () => performance.timeOrigin + performance.now();
    window.marks = {key: 0, moved: 0, pictures: [], painted: 0};
    document.addEventListener('keydown', event => (window.marks.key = performance.timeOrigin + event.timeStamp), true);
    const values = {subtree: true, attributeFilter: ['aria-valuenow'], attributeOldValue: true};
    new MutationObserver(changes => {
        if (changes.some(change => change.oldValue !== change.target.ariaValueNow)) window.marks.moved = now();
    }).observe(panel.querySelector('.tl-right'), values);
    new MutationObserver(async () => {
        window.marks.pictures.push(now());
        await picture.decode().catch(() => null);
        requestAnimationFrame(() => {  // the task after a frame's callbacks comes when it is painted
            const channel = new MessageChannel();
            channel.port1.onmessage = () => (window.marks.painted = now());
            channel.port2.postMessage(null);
        });
    }).observe(picture, {attributeFilter: ['src']});
}"""

PAINTED = "() => !window.marks.pictures.length || window.marks.painted > window.marks.pictures.at(-1)"

# In the kernel: when a drawing began, and when its picture was handed over. (Then come those of the strip.)
TIMED = """
import json, time
from tutorial_lib.widgets.panel import Panel
drawings, update = [], Panel._update
def timed(self, *arguments):
    handed, begin = [], time.time()
    note = lambda change: handed.append(time.time())
    self._image.observe(note, "value")
    update(self, *arguments)
    self._image.unobserve(note, "value")
    drawings.extend((1e3 * begin, 1e3 * end) for end in handed)
Panel._update = timed
"""

ASK = f"""async code => {{
    const future = {KERNEL}.requestExecute({{code, store_history: false}});
    let printed = '';
    future.onIOPub = message => printed += message.content.text ?? '';
    await future.done;
    return printed;
}}"""


def key_times(panel: PanelPage, changes: int) -> np.ndarray:
    """Milliseconds of the four parts (changes, 4) of single key presses, the sliders taking turns."""
    times, turn = [], 0
    panel.free_slider()
    handles = [handle for handle in panel.sliders() if not panel.locked(handle)]
    while len(times) < changes and turn < 3 * changes:
        handle, turn = handles[turn % len(handles)], turn + 1
        handle.focus()
        value, high = (float(handle.get_attribute(name)) for name in ("aria-valuenow", "aria-valuemax"))
        panel.page.evaluate("window.marks.pictures = []; window.marks.painted = 0")
        panel.page.evaluate(ASK, "drawings.clear()")
        panel.page.keyboard.press("ArrowLeft" if value == high or turn // len(handles) % 2 else "ArrowRight")
        time.sleep(UNDISTURBED)
        panel.settle()
        panel.page.wait_for_function(PAINTED)
        marks = panel.page.evaluate("window.marks")
        drawings = json.loads(panel.page.evaluate(ASK, "print(json.dumps(drawings))"))
        if len(drawings) == 1 and len(marks["pictures"]) == 1:  # a small step can leave every pixel as it was
            times.append(np.diff([marks["key"], *drawings[0], marks["pictures"][0], marks["painted"]]))
    return np.array(times)


def drag_times(panel: PanelPage, drags: int) -> tuple[list[float], list[int]]:
    """Milliseconds from a drag's last value to its picture on the screen, and how many pictures each drag drew."""
    handle = panel.free_slider()
    times, pictures = [], []
    for _ in range(drags):
        panel.page.evaluate("window.marks.pictures = []")
        panel.drag(handle, events=100)
        panel.page.wait_for_function(PAINTED)
        marks = panel.page.evaluate("window.marks")
        times.append(marks["painted"] - marks["moved"])
        pictures.append(len(marks["pictures"]))
    return times, pictures


def measure(panel: PanelPage, changes: int, drags: int) -> dict:
    panel.root.evaluate(WATCH)
    panel.page.evaluate(ASK, TIMED)
    key_times(panel, 10)  # the first pictures are slower
    parts = key_times(panel, changes)
    total = parts.sum(1)
    last, pictures = drag_times(panel, drags)
    return {
        "changes": len(parts),
        "median_ms": round(float(np.median(total)), 1),
        "p95_ms": round(float(np.percentile(total, 95)), 1),
        **{f"{name}_ms": round(float(np.median(part)), 1) for name, part in zip(PARTS, parts.T, strict=True)},
        "drag_ms": round(max(last), 1),
        "drag_pictures": max(pictures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--drags", type=int, default=5)
    parser.add_argument("panels", nargs="*", metavar="PANEL", help=f"one of {', '.join(PANELS)}; all if none is named")
    arguments = parser.parse_args()
    if unknown := set(arguments.panels) - PANELS.keys():
        parser.error(f"no panel {', '.join(sorted(unknown))}; there are {', '.join(PANELS)}")
    if chromium() is None:
        sys.exit("No Chromium here: install it, for example with: apt-get install chromium")
    result = {"machine": machine(), "targets": TARGETS}
    with TemporaryDirectory() as home, jupyterlab(Path(home)) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        for name in arguments.panels or PANELS:
            page = browser.new_page(viewport={"width": 1280, "height": 1400})
            page.set_default_timeout(1000 * PATIENCE)
            measured = measure(open_panel(lab, page, name), arguments.changes, arguments.drags)
            page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
            page.close()
            result[name] = measured
            if not arguments.panels:
                RESULTS.write_text(json.dumps(result, indent=2) + "\n")  # minutes lie between two panels
            shares = " + ".join(f"{part.replace('_', ' ')} {measured[f'{part}_ms']}" for part in PARTS)
            print(f"{name}: median {measured['median_ms']} ms ({shares}), 95th percentile {measured['p95_ms']} ms")
            print(f"    a drag of 100 events: {measured['drag_pictures']} pictures, the last {measured['drag_ms']} ms after it")
        browser.close()


if __name__ == "__main__":
    main()
