// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// The panel at the right: classes with their counts, how good it is, and what is being computed.
import { postJson } from "./api.js";

const $ = (id) => document.getElementById(id);
const WORK = { teach: "teaching", gallery: "masks of the folder", reading: "reading pictures", export: "export" };

export class Panel {
  constructor(state, { note, choose, loaded }) {
    Object.assign(this, { state, note, choose, loaded });
    $("add-class").onclick = () => this.add();
    $("new-class").onkeydown = (event) => { if (event.key === "Enter") this.add(); };
    $("remove").onclick = () => this.remove(...this.leaving, $("into").value);
  }

  // The name says which class is meant where another tab has removed one since.
  async change(act, index, value, name) {
    try {
      this.loaded(await postJson("class", {}, JSON.stringify({ act, index, value, name })));
      return null;
    } catch (error) {
      return error;
    }
  }

  async add() {
    const name = $("new-class").value.trim();
    if (!name) return $("new-class").focus();
    const error = await this.change("add", 0, name);
    if (error) return this.note(error.message, true);
    $("new-class").value = "";
    this.choose(this.state.classes.length - 1);
  }

  async remove(index, name, into) {
    const error = await this.change("remove", index, into, name);
    $("removal").close();
    if (!error) return;
    if (error.status !== 409 || into) return this.note(error.message, true);
    this.leaving = [index, name];
    $("removal").querySelector("p").textContent = error.message;
    const options = ["unpainted", ...this.state.classes.map((one) => one.name).filter((_, at) => at !== index)];
    $("into").replaceChildren(...options.map((name) => new Option(name, name)));
    $("removal").showModal();
  }

  // A row stays as long as its class does: one renames, or chooses a colour, while others paint.
  drawClasses() {
    const { classes, counts, shown, chosen } = this.state, list = $("classes");
    while (list.children.length > classes.length) list.lastChild.remove();
    classes.forEach(({ name, colour }, index) => {
      let row = list.children[index];
      if (row?.title !== name) {
        const made = this.row(index, name);
        if (row) row.replaceWith(made); else list.append(made);
        row = made;
      }
      row.className = "class" + (index === chosen ? " chosen" : "");
      const [paint, label, count, drop] = [...row.children].slice(1);
      if (paint.dataset.known !== colour) paint.value = paint.dataset.known = colour;
      label.setAttribute("aria-pressed", index === chosen);
      count.textContent = counts[index] ? `${short(counts[index])} · ${shown[index]}` : "–";
      count.title = `${counts[index] ?? 0} painted pixels in ${shown[index] ?? 0} pictures`;
      drop.hidden = index === 0 || classes.length < 3;
    });
  }

  row(index, name) {
    const row = Object.assign(document.createElement("div"), { title: name });
    const key = document.createElement("kbd");
    key.textContent = index < 9 ? index + 1 : "";
    const paint = document.createElement("input");
    Object.assign(paint, { type: "color", title: `Colour of ${name}` });
    paint.onchange = async () => this.tell(await this.change("recolour", index, paint.value, name));
    const label = document.createElement("button");
    label.className = "name";
    label.textContent = name;
    label.title = `${name}: paint with it; double click or F2 renames it`;
    label.onclick = () => this.choose(index);
    label.ondblclick = () => this.rename(label, index, name);
    label.onkeydown = (event) => { if (event.key === "F2") this.rename(label, index, name); };
    const count = document.createElement("span");
    count.className = "count";
    const drop = document.createElement("button");
    drop.className = "drop";
    drop.textContent = "✕";
    drop.title = `Remove ${name}`;
    drop.setAttribute("aria-label", `Remove ${name}`);
    drop.onclick = () => this.remove(index, name, "");
    row.append(key, paint, label, count, drop);
    return row;
  }

  rename(label, index, name) {
    const field = Object.assign(document.createElement("input"), { value: name, maxLength: 60 });
    field.setAttribute("aria-label", `New name of ${name}`);
    label.replaceWith(field);
    field.focus();
    field.select();
    let done = false;
    const end = async (keep, stay) => {
      if (done) return;
      done = true;
      const wanted = field.value.trim();
      field.replaceWith(label);
      if (keep && wanted && wanted !== name) this.tell(await this.change("rename", index, wanted, name));
      if (stay) $("classes").children[index]?.querySelector(".name").focus();
    };
    field.onblur = () => end(true);
    field.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter") end(true, true);
      if (event.key === "Escape") end(false, true);
    };
  }

  tell(error) { if (error) this.note(error.message, true); }

  drawProgress() {
    $("export").disabled = this.state.progress.export !== undefined;
    $("progress").replaceChildren(...Object.entries(this.state.progress).map(([what, share]) => {
      const line = document.createElement("div"), bar = document.createElement("progress");
      line.textContent = `${WORK[what] ?? what} ${typeof share === "string" ? share : share ? Math.round(100 * share) + " %" : "…"}`;
      if (typeof share === "number" && share) bar.value = share;
      line.append(bar);
      return line;
    }));
  }

  drawCurve() {
    const { curve, classes } = this.state, svg = $("curve"), last = curve.at(-1);
    if (last) {
      const found = last.classes.map((value, index) => [value, classes[index]?.name]).filter(([value, name]) => value !== null && name);
      const text = ([value, name]) => `${name} ${Math.round(100 * value)}\u00a0%`;
      const [worst] = [...found].sort((a, b) => a[0] - b[0]);
      $("quality").textContent = `Mean IoU ${(100 * last.miou).toFixed(1)}\u00a0% of the painted pixels, ${last.pictures} pictures left out in turn.` + (worst ? ` Worst: ${text(worst)}` : "");
      $("quality").title = found.map(text).join("\n");
    }
    const make = (kind, attributes, text) => {
      const one = document.createElementNS("http://www.w3.org/2000/svg", kind);
      for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
      if (text) one.textContent = text;
      return one;
    };
    const parts = [];
    for (const level of [0, 0.5, 1]) {
      const y = 62 - 54 * level;
      parts.push(make("line", { x1: 24, x2: 216, y1: y, y2: y, stroke: "#3a424b" }), make("text", { x: 20, y: y + 3, fill: "#a9b2bc", "font-size": 9, "text-anchor": "end" }, Math.round(100 * level)));
    }
    const place = (point, index) => [24 + (curve.length > 1 ? (190 * index) / (curve.length - 1) : 95), 62 - 54 * point.miou];
    if (curve.length > 1) parts.push(make("polyline", { points: curve.map((point, index) => place(point, index).join()).join(" "), fill: "none", stroke: "#56b4e9", "stroke-width": 1.8 }));
    if (last) { const [cx, cy] = place(last, curve.length - 1); parts.push(make("circle", { cx, cy, r: 3, fill: "#56b4e9" })); }
    svg.replaceChildren(...parts);
  }
}

function short(number) {
  return number < 1000 ? String(number) : number < 1e6 ? `${(number / 1e3).toFixed(number < 1e4 ? 1 : 0)}k` : `${(number / 1e6).toFixed(1)}M`;
}
