"""`make demo`: a panel on a page of its own, without a notebook around it."""

import pytest
from driver import PATIENCE, PanelPage, free_port, script, serving

pytestmark = pytest.mark.browser


def test_panel_without_a_notebook(browser, tmp_path, screenshots):
    pytest.importorskip("voila", reason="NO DEMO TEST: voila is not installed")
    demo = script("demo")
    pages = demo.write_pages(tmp_path / "demo")
    assert pages, "no notebook has a panel"
    port = free_port()
    command = demo.command(tmp_path / "demo", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1")
    url, problems = f"http://127.0.0.1:{port}/", []
    with serving(command, url, tmp_path):
        context = browser.new_context(viewport={"width": 1000, "height": 800})
        context.set_default_timeout(1000 * PATIENCE)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        page = context.new_page()
        page.goto(url)
        assert page.get_by_role("link").count() == len(pages)
        page.screenshot(path=screenshots / "demo_list.png")
        with page.expect_popup() as popup:
            page.get_by_role("link", name=pages[0].name).click()
        page = popup.value
        panel = PanelPage(page)
        panel.wait()
        before = panel.file()
        shown = panel.picture.get_attribute("src")
        panel.sliders()[0].focus()
        page.keyboard.press("Home")
        page.wait_for_function("shown => document.querySelector('.tl-left .tl-picture').src !== shown", arg=shown)
        assert panel.file() != before
        assert page.locator(".jp-CodeCell .jp-Editor, .jp-InputArea-editor").count() == 0, "the code is on the page"
        with page.expect_download() as download:
            panel.root.get_by_role("button", name="Save", exact=True).click()
        assert download.value.path().read_bytes() == panel.file()
        page.screenshot(path=screenshots / "demo.png")
        context.close()
    assert problems == []
