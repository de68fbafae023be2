// What ipywidgets has no trait for: names for screen readers, numbers typed and left, the picture as a file, text on the clipboard.
// Called with the panel's <style> element whenever that comes into the page, so once a view.
(sheet) => {
  const panel = sheet.closest(".tl-panel");
  if (!panel || panel.dataset.named) return;
  panel.dataset.named = "yes";
  const name = sheet.dataset.name;
  const picture = () => panel.querySelector(".tl-left .tl-picture");
  const text = (element) => element?.textContent.replace(/\s+/g, " ").trim() ?? "";
  const set = (element, attribute, value) => {
    if (element && element.getAttribute(attribute) !== value) element.setAttribute(attribute, value);
  };
  const pressed = (button) => set(button, "aria-pressed", String(button.classList.contains("mod-active")));

  const describe = () => {
    const values = [];
    for (const control of panel.querySelectorAll(".widget-slider, .widget-toggle-buttons")) {
      const factor = text(control.closest(".tl-factor")?.querySelector(".tl-name"));
      const label = text(control.querySelector(".widget-label"));
      const full = [factor, label].filter(Boolean).join(": ");
      const handles = control.querySelectorAll("[role=slider]");
      const readout = control.querySelector(".widget-readout");
      if (readout) {
        handles.forEach((handle, i) => set(handle, "aria-label", handles.length > 1 ? `${full}, ${i ? "end" : "start"}` : full));
        handles.forEach((handle) => {
          const blocked = handle.ariaValueMin === handle.ariaValueMax; // by the other handle
          set(handle, "aria-disabled", String(blocked || handle.closest(".noUi-target[disabled]") !== null));
        });
        if (handles.length === 1 && text(readout)) set(handles[0], "aria-valuetext", text(readout));
        set(readout, "role", "textbox");
        set(readout, "aria-label", `${full}, value`);
        values.push(`${label} ${text(readout)}`);
      } else {
        const buttons = [...control.querySelectorAll("button")];
        set(control, "role", "group");
        set(control, "aria-label", full);
        buttons.forEach(pressed);
        if (label) values.push(`${full} ${text(buttons.find((button) => button.classList.contains("mod-active")))}`);
      }
    }
    panel.querySelectorAll(".tl-tools .widget-toggle-button").forEach(pressed);
    panel.querySelectorAll("button i").forEach((icon) => set(icon, "aria-hidden", "true"));
    set(picture(), "alt", `${name}: ${values.join(", ")}`);
    for (const tile of panel.querySelectorAll(".tl-tile")) {
      const caption = tile.querySelector(".widget-html-content") ? text(tile.querySelector(".widget-html-content")) : "";
      const place = [...tile.parentElement.children].indexOf(tile);
      const letter = String.fromCharCode(65 + place);
      set(tile.querySelector("img"), "alt", tile.closest(".tl-strip") ? caption : `picture ${letter}`);
    }
  };

  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => ((waiting = false), describe()), 100); // not between a slider's event and its picture
  };
  let focused = null;
  panel.addEventListener("focusin", ({ target }) => (focused = target));
  const keepFocus = () => { // a button that has focus when it is disabled drops it on the page: Undo at the first picture
    const lost = document.activeElement === document.body || document.activeElement === focused;
    if (focused?.matches("button:disabled") && lost) focused.parentElement.querySelector("button:enabled")?.focus();
  };
  new MutationObserver(() => (keepFocus(), soon())).observe(panel, {
    subtree: true, childList: true, characterData: true, attributeFilter: ["class", "disabled", "aria-valuemin"],
  });
  describe();

  // ipywidgets takes a number that is typed beside a slider at Enter only, and does not read the minus sign that it shows.
  const isReadout = (element) => element.matches?.(".widget-readout[contenteditable=true]");
  let edited = null;
  panel.addEventListener("input", ({ target }) => { if (isReadout(target)) edited = target; });
  panel.addEventListener("keydown", ({ target, keyCode }) => {
    if (keyCode === 13 && isReadout(target)) target.textContent = target.textContent.replaceAll("\u2212", "-");
  }, true);
  panel.addEventListener("keydown", ({ target, keyCode }) => { if (keyCode === 13 && target === edited) edited = null; });
  panel.addEventListener("focusout", ({ target }) => {
    if (target === edited) target.dispatchEvent(new KeyboardEvent("keydown", { keyCode: 13, bubbles: true, cancelable: true }));
  });

  const copy = async (button) => {
    const code = panel.querySelector(".tl-code pre");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch { // no clipboard for pages that come neither over https nor from this machine
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.classList.add("tl-done");
    setTimeout(() => button.classList.remove("tl-done"), 1500);
  };
  panel.addEventListener("click", ({ target }) => {
    if (target.closest(".tl-save")) {
      const link = Object.assign(document.createElement("a"), { href: picture().src, download: `${name}.png` });
      link.click();
    }
    if (target.closest(".tl-empty .tl-take")) panel.querySelector(".tl-upload")?.click();
    const button = target.closest(".tl-copy");
    if (button) copy(button);
  });
}
