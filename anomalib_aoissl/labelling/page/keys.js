// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// The keyboard: all of the page without a mouse.
const HELP = [
  ["1 … 9", "paint with this class"], ["B E L P F S", "brush, eraser, line, polygon, fill, take suggestion"],
  ["[ ] or wheel", "size of the brush"], ["Ctrl+wheel, + −", "zoom"],
  ["0", "fit the picture"], ["right drag, Alt+drag", "move the picture"],
  ["arrows", "move the cursor (Shift: farther)"], ["Space", "pen down and up; a click for line, fill, polygon"],
  ["Enter", "close the polygon"], ["Esc", "give up a line or polygon"],
  ["Ctrl+Z, Ctrl+Y", "undo, redo"], ["T", "Teach"],
  ["A", "accept the suggestion"], ["N", "next picture to label"],
  [", .", "previous, next picture"], ["C", "next lighting channel"],
  ["D", "show what the last Teach changed"], ["O", "hide the masks"],
  ["F2, or double click", "rename a class"], ["?", "these keys"],
];

export function helpOfKeys(list) {
  list.replaceChildren(...HELP.flatMap(([keys, what]) => [
    Object.assign(document.createElement("kbd"), { textContent: keys }),
    Object.assign(document.createElement("span"), { textContent: what }),
  ]));
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOL_KEYS = { b: "brush", e: "eraser", l: "line", p: "polygon", f: "fill", s: "take" };

export function listenToKeys(page) {
  const { state, view, tools } = page;
  const resize = (factor) => { state.resized = true; tools.resize(factor); };
  const acts = {
    "[": () => resize(1 / 1.2), "]": () => resize(1.2), "+": () => view.zoom(1.25), "=": () => view.zoom(1.25),
    "-": () => view.zoom(0.8), 0: () => view.fit(), Enter: () => tools.close(), Escape: () => tools.cancel(),
    t: page.teach, a: page.accept, n: page.next, ",": () => page.go(-1), ".": () => page.go(1),
    c: () => { if (state.item) { page.takeChannel(state.channel + 1); view.redraw(); } },
    d: () => { state.showChanged = !state.showChanged; view.redraw(); },
    o: page.hide,
    "?": () => document.getElementById("keys").showModal(),
  };
  addEventListener("keydown", (event) => {
    const target = event.target, typing = target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing || document.querySelector("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z" || key === "y") { event.preventDefault(); page.step(key === "z" && !event.shiftKey); }
      return;
    }
    const onButton = target.matches("button, input, [role=tab]");
    if (event.altKey || (onButton && (key === " " || key === "Enter"))) return;
    if (target.matches("input[type=range]") && ARROWS[key]) return;
    if (ARROWS[key]) tools.step(...ARROWS[key], event.shiftKey);
    else if (key === " ") tools.pen();
    else if (key >= "1" && key <= "9") page.chooseClass(Number(key) - 1);
    else if (TOOL_KEYS[key]) tools.choose(TOOL_KEYS[key]);
    else if (acts[key]) acts[key]();
    else return;
    event.preventDefault();
  });
}
