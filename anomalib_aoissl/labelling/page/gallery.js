// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// The pictures of the folder at the bottom; only those in sight exist, so that ten thousand are no burden.
import { address, get, inflate } from "./api.js";
import { replaceChildren } from "./focus.js";

const WIDE = 132;
const TABS = [["all", "All"], ["next", "Label next"], ["painted", "Labelled"]];

export class Gallery {
  constructor(state, open) {
    Object.assign(this, { state, open });
    this.tab = "all";
    this.element = document.getElementById("gallery");
    this.strip = document.getElementById("strip");
    this.shown = new Map();
    this.masks = new Map();
    this.element.addEventListener("scroll", () => this.draw());
    this.element.addEventListener("wheel", (event) => {
      if (!event.deltaX) { this.element.scrollLeft += event.deltaY; event.preventDefault(); }
    }, { passive: false });
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  names() {
    const { pictures, next, painted } = this.state;
    if (this.tab === "next") return next.map(([name]) => name).filter((name) => this.state.versions.has(name));
    const names = pictures.map(([name]) => name);
    return this.tab === "painted" ? names.filter((name) => painted[name]) : names;
  }

  update() {
    const tabs = document.getElementById("tabs"), { pictures, next, painted } = this.state;
    const counts = { all: pictures.length, next: next.length, painted: Object.keys(painted).length };
    const buttons = TABS.map(([key, label]) => {
      const button = document.createElement("button");
      button.role = "tab";
      button.textContent = `${label} ${counts[key]}`;
      button.ariaSelected = String(key === this.tab);
      button.onclick = () => { this.tab = key; this.element.scrollLeft = 0; this.update(); };
      return button;
    });
    const reason = document.createElement("span");
    reason.id = "reason";
    reason.textContent = this.reason(this.state.item?.name) ?? "";
    replaceChildren(tabs, [...buttons, reason]);
    for (const thumb of this.shown.values()) thumb.remove();
    this.shown.clear();
    this.draw();
  }

  reason(name) {
    const found = this.state.next.find(([other]) => other === name);
    return found && `Next: ${found[1]}`;
  }

  show(name) {
    const index = this.names().indexOf(name);
    if (index < 0) return;
    const left = index * WIDE, wide = this.element.clientWidth;
    if (left < this.element.scrollLeft || left + WIDE > this.element.scrollLeft + wide) this.element.scrollLeft = left - wide / 2 + WIDE / 2;
  }

  draw() {
    const names = this.names();
    this.strip.style.width = `${names.length * WIDE + 4}px`;
    const first = Math.max(0, Math.floor(this.element.scrollLeft / WIDE) - 1);
    const last = Math.min(names.length, first + Math.ceil(this.element.clientWidth / WIDE) + 3);
    const wanted = new Set(names.slice(first, last));
    for (const [name, thumb] of this.shown) if (!wanted.has(name)) { thumb.remove(); this.shown.delete(name); }
    for (let index = first; index < last; index++) if (!this.shown.has(names[index])) this.add(names[index], index);
  }

  add(name, index) {
    const { painted, suggested, item } = this.state;
    const thumb = document.createElement("button");
    thumb.className = "thumb" + (item?.name === name ? " open" : "");
    thumb.style.left = `${index * WIDE + 4}px`;
    thumb.title = [name, this.reason(name)].filter(Boolean).join("\n");
    thumb.onclick = () => this.open(name);
    const canvas = document.createElement("canvas"), label = document.createElement("span"), text = document.createElement("bdi");
    text.dir = "ltr"; // the label runs from right to left, so that the end of a long name shows
    text.textContent = name;
    label.append(text);
    thumb.append(canvas, label);
    const rank = this.state.next.findIndex(([other]) => other === name);
    const badge = document.createElement("b");
    if (painted[name]) { badge.className = "done"; badge.textContent = painted[name] > 0.995 ? "done" : `${(100 * painted[name]).toFixed(painted[name] < 0.1 ? 1 : 0)} %`; }
    else if (rank >= 0) { badge.className = "rank"; badge.textContent = `next ${rank + 1}`; }
    if (badge.textContent) thumb.append(badge);
    const info = suggested[name];
    if (info) {
      const unsure = document.createElement("i");
      unsure.textContent = `? ${Math.round(100 * info.unsure)} %`;
      unsure.title = "Share that the model does not know";
      thumb.append(unsure);
    }
    this.strip.append(thumb);
    this.shown.set(name, thumb);
    this.fill(canvas, name);
  }

  fill(canvas, name) {
    const image = new Image();
    image.onload = async () => {
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      if (!this.state.suggested[name] || !canvas.isConnected) return;
      const suggestion = await this.suggestion(name);
      if (suggestion) this.lay(context, suggestion, canvas.width, canvas.height);
    };
    image.src = address("thumbnail", { name, of: this.state.versions.get(name) });
  }

  async suggestion(name) {
    const key = `${name}\n${this.state.lesson}`;
    if (!this.masks.has(key)) {
      if (this.masks.size > 60) this.masks.clear();
      this.masks.set(key, loadSuggestion(name).catch(() => null));
    }
    return this.masks.get(key);
  }

  lay(context, { width, height, classes }, wide, high) {
    const image = context.getImageData(0, 0, wide, high);
    const colours = this.state.classes.map(({ colour }) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    for (let y = 0; y < high; y++) for (let x = 0; x < wide; x++) {
      const value = classes[Math.floor((y / high) * height) * width + Math.floor((x / wide) * width)];
      const at = 4 * (y * wide + x);
      if (value && colours[value]) for (let part = 0; part < 3; part++) image.data[at + part] = 0.5 * image.data[at + part] + 0.5 * colours[value][part];
    }
    context.putImageData(image, 0, 0);
  }
}

// Returns what the present lesson says of a picture; null where that is not there yet.
// A fine one, at the picture's size, may come after a coarse one.
export async function loadSuggestion(name, fine = 0) {
  const answer = await get("suggestion", { name, fine });
  if (answer.status === 204) return null;
  const [width, height, lesson] = ["x-width", "x-height", "x-lesson"].map((key) => Number(answer.headers.get(key)));
  const values = await inflate(await answer.arrayBuffer());
  const info = JSON.parse(answer.headers.get("x-info"));
  return { width, height, lesson, info, classes: values.subarray(0, width * height), flags: values.subarray(width * height) };
}
