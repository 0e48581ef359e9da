// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// The page: its state, and what happens when.
import { getJson, inflate, listen, post, postJson, tab } from "./api.js";
import { replaceChildren } from "./focus.js";
import { Gallery, loadSuggestion } from "./gallery.js";
import { helpOfKeys, listenToKeys } from "./keys.js";
import { Saver } from "./mask.js";
import { Panel } from "./panel.js";
import { takeOver } from "./raster.js";
import { TOOLS, Tools } from "./tools.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const PLAIN = { classes: [], counts: [], shown: [], pictures: [], next: [], painted: {}, suggested: {}, curve: [], progress: {}, faults: [] };

const state = {
  ...PLAIN, item: null, mask: null, suggestion: null, chosen: 1, opacity: 0.55, channel: 0, low: 0, high: 1,
  hidden: false, showChanged: false, versions: new Map(), commit,
};
const view = new View($("stage"), state);
const tools = (state.tools = new Tools(view, state, drawTools));
const saver = new Saver(saved);
const panel = new Panel(state, { note, choose: chooseClass, loaded });
const gallery = new Gallery(state, open);
let opening = 0, heard = null, steps = Promise.resolve();

// --- what is there -----------------------------------------------------------------------------------------------------

// Answers overtake each other: one that is older than what is shown is left out.
function loaded(content) {
  if (content.number < state.number) return;
  const chosen = state.classes[state.chosen]?.name;
  Object.assign(state, content);
  state.versions = new Map(state.pictures);
  const at = state.classes.findIndex(({ name }) => name === chosen); // another tab may have removed one before it
  state.chosen = at >= 0 || chosen ? at : Math.min(state.chosen, state.classes.length - 1);
  if (at < 0 && chosen) note(`The class '${chosen}' is gone: choose another one to paint.`, true, "gone");
  if (!state.lesson) state.suggestion = null; // its classes may be others by now
  $("folder").textContent = content.folder ?? $("folder").textContent;
  document.title = `${$("folder").textContent} – labelling`;
  $("empty").hidden = state.pictures.length > 0;
  $("try").disabled = !state.exported;
  drawAll();
}

let faulty = "";
function sayFaults() {
  const { faults } = state, more = faults.length > 3 ? ` And ${faults.length - 3} more.` : "";
  const text = faults.length ? `Not shown: ${faults.slice(0, 3).join(" ")}${more}` : "";
  if (text === faulty) return; // one that was clicked away does not come back
  document.querySelector("#notes [data-key=faults]")?.remove();
  if (text) note(text, true, "faults");
  faulty = text;
}

function drawAll() {
  sayFaults();
  panel.drawClasses();
  panel.drawProgress();
  panel.drawCurve();
  gallery.update();
  drawTools();
  view.redraw();
}

async function refresh() {
  try { loaded(await getJson("state")); } catch (error) { note(error.message, true); }
}

async function open(name) {
  const mine = ++opening;
  heard = null;
  tools.cancel();
  try {
    const item = await getJson("open", { name });
    const mask = item.fault ? null : await saver.load(name);
    if (mine !== opening) return;
    tools.cancel(); // a stroke that was begun while the picture was loaded belongs to the old mask
    const same = state.item?.name === name;
    Object.assign(state, { item, mask, suggestion: null });
    if (!same) {
      state.channel = Math.min(state.channel, item.channels.length - 1);
      if (!state.resized) tools.size = Math.max(3, Math.round(Math.max(item.width, item.height) / 90));
    }
    if (mask) catchUp(mask);
    takeChannel(state.channel);
    if (!same) view.fit();
    history.replaceState(null, "", `#${encodeURIComponent(name)}`);
  } catch (error) {
    if (mine !== opening) return;
    tools.cancel();
    Object.assign(state, { item: null, mask: null, suggestion: null });
    note(error.message, true);
  }
  $("title").textContent = state.item?.name ?? name;
  $("fault").hidden = !state.item?.fault;
  $("fault").querySelector("p").textContent = state.item?.fault ?? "";
  gallery.update();
  gallery.show(name);
  drawTools();
  view.redraw();
  await loadSuggested(name);
}

// Loads what another tab painted on the picture since this mask was read.
function catchUp(mask) {
  if (heard?.name === mask.name && heard.version !== mask.version) saver.merge(mask).catch(() => open(mask.name));
}

async function loadSuggested(name) {
  if (!state.lesson || state.item?.name !== name) return;
  try {
    const suggestion = await loadSuggestion(name, 1);
    if (suggestion && state.item?.name === name) state.suggestion = suggestion;
  } catch (error) { note(error.message, true); }
  drawTools();
  view.redraw();
}

function takeChannel(index) {
  const channels = state.item.channels;
  state.channel = index % channels.length;
  $("channel").replaceChildren(...channels.map((one, at) => new Option(one.bits > 8 ? `${one.name} · ${one.bits} bit` : one.name, at, false, at === state.channel)));
  [state.low, state.high] = channels[state.channel].window;
  setWindow();
}

function setWindow() {
  // 12 of 16 bits fill a sixteenth of the range: the sliders move along a square root
  $("low").value = 1000 * Math.sqrt(state.low);
  $("high").value = 1000 * Math.sqrt(state.high);
}

function go(step) {
  const names = gallery.names(), at = names.indexOf(state.item?.name);
  if (names.length) open(names[(at + step + names.length) % names.length]);
}

function next() {
  const found = state.next.map(([name]) => name).find((name) => name !== state.item?.name && !state.painted[name]);
  if (found) return open(found);
  note(state.progress.reading !== undefined ? "The pictures are still being read; take the next one of the folder meanwhile ( . )." : "No picture is left to be labelled.");
}

// --- painting ----------------------------------------------------------------------------------------------------------

function commit(stroke) {
  view.redraw();
  if (stroke) saver.add(state.mask, stroke);
}

function saved(what, text, mask = null) {
  const label = $("saved");
  if (what === "merged") note("Someone else painted on this picture too: both are kept.");
  if (what === "merged" || what === "renewed") return view.redraw();
  if (what === "lost") {
    note(`A stroke was not taken: ${text}`, true);
    if (mask && mask === state.mask) return view.redraw();
    if (state.item) open(state.item.name);
    return;
  }
  label.className = what === "saved" ? "" : what;
  label.textContent = what === "saved" ? "saved" : what === "busy" ? "saving …" : "not saved";
  label.title = what === "bad" ? text : "Each stroke is on the disk within a second";
  if (what === "bad") note(text, true, "unsaved");
  if (what === "saved") {
    document.querySelector("#notes [data-key=unsaved]")?.remove();
    if ($("live").checked) teach();
  }
}

// Undo and redo wait for each other and for strokes, and new strokes wait for them: the answer is of the saved mask.
function step(back) {
  steps = steps.then(() => stepNow(back));
  return steps;
}

async function stepNow(back) {
  do {
    tools.cancel();
    await saver.settled();
  } while (tools.drawing);
  const mask = state.mask;
  if (!mask) return;
  tools.held = true;
  try {
    const answer = await post("step", { name: mask.name, back: back ? 1 : 0 });
    if (answer.status === 204) return note(back ? "There is nothing to undo." : "There is nothing to redo.");
    const [left, top, width, height] = answer.headers.get("x-box").split(",").map(Number);
    mask.put(left, top, width, height, await inflate(await answer.arrayBuffer()));
    mask.version = answer.headers.get("x-version");
    view.redraw();
  } catch (error) { note(error.message, true); } finally { tools.held = false; }
}

function accept() {
  const { mask, suggestion } = state;
  if (tools.held) return;
  if (!mask || !suggestion) return note("There is no suggestion yet: paint some of two classes and press Teach.");
  tools.once("accept", () => takeOver(mask, suggestion));
  const left = mask.values.reduce((sum, value) => sum + (value === 255), 0) / mask.values.length;
  note(left ? `Accepted, but for ${(100 * left).toFixed(1)} % that is hatched: take it with S, or paint it.` : "Accepted.");
}

async function teach() {
  await saver.settled();
  try { await post("teach", { name: state.item?.name ?? "" }); } catch (error) { note(error.message, true); }
}

function chooseClass(index) {
  if (index >= state.classes.length) return;
  state.chosen = index;
  document.querySelector("#notes [data-key=gone]")?.remove();
  if (["eraser", "take"].includes(tools.tool)) tools.choose("brush");
  panel.drawClasses();
  tools.drawPointer();
}

// --- files -------------------------------------------------------------------------------------------------------------

async function add(files) {
  const before = new Set(state.versions.keys());
  for (const [index, file] of files.entries()) {
    const last = index + 1 === files.length; // the other tabs are told once
    try { await post("upload", { file: file.name, more: last ? 0 : 1 }, file); } catch (error) { note(error.message, true); }
  }
  await refresh();
  const first = state.pictures.map(([name]) => name).find((name) => !before.has(name));
  if (first) open(first);
}

async function tryOn(files) {
  const list = [...files];
  $("trial-said").textContent = "…";
  $("trial-result").hidden = true; // the last one's picture would be taken for this one's
  try {
    let answer = null;
    for (const [index, file] of list.entries()) answer = await post("try", { file: file.name, more: index + 1 < list.length ? 1 : 0 }, file);
    $("trial-result").src = URL.createObjectURL(await answer.blob());
    $("trial-result").hidden = false;
    $("trial-said").textContent = list[0].name;
  } catch (error) { $("trial-said").textContent = error.message; }
}

async function exportAll() {
  await saver.settled();
  try {
    await post("export");
    note("Fitting in full: this takes minutes, and you can go on painting.");
  } catch (error) { note(error.message, true); }
}

// --- what is shown -----------------------------------------------------------------------------------------------------

export function note(text, bad = false, key = "") {
  const old = key && document.querySelector(`#notes [data-key=${key}]`);
  const one = old || document.createElement("div");
  one.textContent = text;
  one.className = bad ? "bad" : "";
  one.dataset.key = key;
  one.onclick = () => one.remove();
  if (!old) $("notes").append(one);
  for (const passing of [...$("notes").querySelectorAll("[data-key='']")].slice(0, -4)) passing.remove();
  if (!key) setTimeout(() => one.remove(), bad ? 15000 : 6000);
}

function drawTools() {
  const buttons = TOOLS.map(([tool, key, sign, title]) => {
    const button = document.createElement("button");
    button.title = `${title} (${key})`;
    button.setAttribute("aria-label", title);
    button.setAttribute("aria-pressed", tool === tools.tool);
    button.append(sign, Object.assign(document.createElement("small"), { textContent: `${tool} ${key}` }));
    button.onclick = () => tools.choose(tool);
    return button;
  });
  const size = Object.assign(document.createElement("div"), { className: "size", textContent: `${tools.size} px`, title: "Size: wheel, or [ and ]" });
  const other = [["↶", "undo", "Ctrl+Z", () => step(true)], ["↷", "redo", "Ctrl+Y", () => step(false)], ["⤢", "fit", "0", () => view.fit()]];
  const more = other.map(([sign, name, key, act]) => {
    const button = Object.assign(document.createElement("button"), { title: `${name} (${key})`, id: name });
    button.append(sign, Object.assign(document.createElement("small"), { textContent: name }));
    button.onclick = act;
    return button;
  });
  replaceChildren($("tools"), [...buttons, size, document.createElement("hr"), ...more]);
  $("accept").disabled = !state.suggestion || !state.mask;
  const s = state.suggestion;
  if (!s) $("said").textContent = state.lesson ? "" : "Paint some of two classes – scribbles are enough – and press Teach.";
  else $("said").textContent = `Suggestion of lesson ${s.lesson}: ${percent(s.info.changed)} changed, ${percent(s.info.unsure)} not known, ${percent(s.info.novel)} new.`;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

// --- what happens ------------------------------------------------------------------------------------------------------

const HEARD = {
  mask(event) {
    Object.assign(state, { counts: event.counts, shown: event.shown });
    if (event.share) state.painted[event.name] = event.share; else delete state.painted[event.name];
    panel.drawClasses();
    gallery.update();
    const mask = state.mask;
    if (event.who === tab) return;
    heard = event; // a picture that is being opened may have been read before
    if (state.item?.name !== event.name) return;
    if (!mask) return open(event.name);
    if (saver.idle) catchUp(mask);
  },
  totals(event) { Object.assign(state, event); panel.drawClasses(); gallery.update(); },
  classes: refresh,
  async forgotten() { state.suggestion = null; await refresh(); if (state.item) open(state.item.name); },
  async pictures() {
    const before = state.item && state.versions.get(state.item.name), name = state.item?.name;
    await refresh();
    if (!name) return state.pictures.length && open(state.pictures[0][0]);
    if (!state.versions.has(name)) return note(`${name}: the file is gone. Put it back, or open another picture; its mask is kept.`, true);
    if (state.versions.get(name) !== before) { note(`${name}: the picture was changed by another program; it is shown anew.`); open(name); }
  },
  progress({ what, share }) {
    if (share === null) delete state.progress[what]; else state.progress[what] = share;
    panel.drawProgress();
  },
  taught(event) {
    state.lesson = event.lesson;
    state.suggested = {};
    note(`Lesson ${event.lesson}: ${event.pictures} picture${event.pictures === 1 ? "" : "s"} in ${event.seconds} s` + (event.changed ? `; ${percent(event.changed)} of this mask changed (D shows where).` : "."));
    event.problems.forEach((text) => note(`Left out: ${text}`, true));
    if (state.item) loadSuggested(state.item.name);
  },
  suggestion({ name }) { if (state.item?.name === name) loadSuggested(name); },
  gallery({ name, unsure, novel, changed }) {
    state.suggested[name] = { unsure, novel, changed };
    const thumb = gallery.shown.get(name);
    if (thumb) { thumb.remove(); gallery.shown.delete(name); gallery.draw(); }
  },
  judged(event) { state.curve.push(event); panel.drawCurve(); },
  next(event) { state.next = event.next; gallery.update(); },
  exported({ folder, model, note: more }) {
    state.exported = folder;
    $("try").disabled = !model;
    note(`Exported to ${folder}. ${more}`);
  },
  problem({ text }) { note(text, true); },
};

let away = false;
listen((event) => HEARD[event.kind]?.(event), (lost) => {
  if (lost && !away) note("The server does not answer. Is the program still running? What you paint is kept here and saved when it is back.", true, "away");
  if (!lost && away) {
    state.number = -1; // it may be another program, which counts anew
    document.querySelector("#notes [data-key=away]")?.remove();
    refresh().then(() => { if (state.mask && saver.idle) saver.merge(state.mask).catch(() => open(state.mask.name)); });
  }
  away = lost;
});

$("previous").onclick = () => go(-1);
$("following").onclick = () => go(1);
$("next").onclick = next;
$("teach").onclick = teach;
$("accept").onclick = accept;
$("export").onclick = exportAll;
$("try").onclick = () => $("trial").showModal();
$("help").onclick = () => $("keys").showModal();
$("aside").onclick = async () => {
  try { note(`The old mask lies in ${(await postJson("set_aside", { name: state.item.name })).where}.`); } catch (error) { note(error.message, true); }
  open(state.item.name);
};
$("channel").onchange = () => { takeChannel(Number($("channel").value)); view.redraw(); };
for (const id of ["low", "high"]) $(id).onchange = () => {
  state.low = Math.round(1e4 * ($("low").value / 1000) ** 2) / 1e4;
  state.high = Math.max(state.low + 2e-4, Math.round(1e4 * ($("high").value / 1000) ** 2) / 1e4);
  view.redraw();
};
$("opacity").oninput = () => { state.opacity = $("opacity").value / 100; view.redraw(); };
document.querySelectorAll("dialog .close").forEach((one) => (one.onclick = () => one.closest("dialog").close()));

let chosenFor = add;
$("choose").onclick = () => { chosenFor = add; $("files").click(); };
$("trial-choose").onclick = () => { chosenFor = tryOn; $("files").click(); };
$("files").onchange = () => { chosenFor([...$("files").files]); $("files").value = ""; };
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.toggle("dropping", !$("trial").open); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const files = [...event.dataTransfer.files];
  if (files.length) ($("trial").open ? tryOn : add)(files);
});
addEventListener("beforeunload", (event) => { if (!saver.idle) event.preventDefault(); });

function hide() {
  state.hidden = !state.hidden;
  if (state.hidden) note("The masks are hidden; you can paint. O shows them.", false, "hidden");
  else document.querySelector("#notes [data-key=hidden]")?.remove();
  view.redraw();
}

listenToKeys({ state, view, tools, chooseClass, step, accept, teach, next, go, takeChannel, hide });
helpOfKeys($("keylist"));
window.labelling = { state, view, tools, saver, tryOn }; // for tests, and for the curious

await refresh();
const asked = decodeURIComponent(location.hash.slice(1));
const first = state.versions.has(asked) ? asked : state.pictures[0]?.[0];
if (first) open(first);
