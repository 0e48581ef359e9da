// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// The tools, by mouse, pen and keyboard.
import { UNPAINTED } from "./mask.js";
import { capsule, fill, polygon, takeOver } from "./raster.js";

export const TOOLS = [
  ["brush", "B", "●", "Brush"],
  ["eraser", "E", "◌", "Eraser"],
  ["line", "L", "╱", "Line: two clicks, for wires"],
  ["polygon", "P", "⬠", "Polygon: clicks; Enter closes it"],
  ["fill", "F", "◧", "Fill what is enclosed"],
  ["take", "S", "✔", "Take over the suggestion of a region by a click"],
];
const SIZED = new Set(["brush", "eraser", "line"]), UNCLASSED = new Set(["eraser", "take"]);

export class Tools {
  constructor(view, state, changed) {
    Object.assign(this, { view, state, changed });
    this.tool = "brush";
    this.size = 8;
    this.points = []; // of a line or polygon that is begun
    this.cursor = null; // in px of the picture
    this.drawing = false;
    this.held = false; // while the mask is being undone, nothing is drawn on it
    const canvas = view.pointer;
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", () => this.up());
    canvas.addEventListener("pointercancel", () => this.up());
    canvas.addEventListener("pointerleave", () => { if (!this.drawing) { this.cursor = null; this.drawPointer(); } });
    canvas.addEventListener("dblclick", () => this.close());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this.changed();
    this.drawPointer();
  }

  resize(factor) {
    const next = this.size * factor;
    this.size = Math.min(600, Math.max(1, Math.round(factor > 1 ? Math.max(next, this.size + 1) : Math.min(next, this.size - 1))));
    this.changed();
    this.drawPointer();
  }

  get value() { return this.tool === "eraser" ? UNPAINTED : this.state.chosen; }
  get ready() { return this.state.mask && !this.state.item.fault && !this.held && (this.state.chosen >= 0 || UNCLASSED.has(this.tool)); }
  get names() { return this.state.classes.map((one) => one.name); }

  // --- mouse and pen -------------------------------------------------------------------------------------------------

  down(event) {
    this.view.pointer.focus({ preventScroll: true });
    if (event.button === 1 || event.button === 2 || event.altKey) {
      this.panning = [event.offsetX, event.offsetY];
      this.view.pointer.setPointerCapture(event.pointerId);
      return;
    }
    if (event.button || !this.ready) return;
    this.view.pointer.setPointerCapture(event.pointerId);
    this.cursor = this.view.toImage(event.offsetX, event.offsetY);
    this.press();
  }

  move(event) {
    if (this.panning) {
      this.view.pan(event.offsetX - this.panning[0], event.offsetY - this.panning[1]);
      this.panning = [event.offsetX, event.offsetY];
      return;
    }
    for (const one of event.getCoalescedEvents?.() ?? [event]) {
      const box = this.view.pointer.getBoundingClientRect();
      this.goTo(this.view.toImage(one.clientX - box.left, one.clientY - box.top));
    }
    if (!(event.getCoalescedEvents?.().length)) this.goTo(this.view.toImage(event.offsetX, event.offsetY));
  }

  up() {
    this.panning = null;
    if (this.drawing) this.finish();
  }

  wheel(event) {
    event.preventDefault();
    if (!event.ctrlKey && !event.metaKey && SIZED.has(this.tool)) {
      this.state.resized = true; // the next picture keeps it
      return this.resize(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    }
    this.view.zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
  }

  // --- what both, and the keyboard, do -------------------------------------------------------------------------------

  goTo(place) {
    const last = this.cursor;
    this.cursor = place;
    if (this.drawing) {
      capsule(this.state.mask, ...(last ?? place), ...place, this.size / 2, this.value);
      this.view.redraw();
    }
    this.drawPointer();
  }

  // Presses the tool at the cursor.
  press() {
    if (!this.ready || !this.cursor) return;
    const { mask, suggestion } = this.state, [x, y] = this.cursor.map(Math.floor);
    if (this.tool === "brush" || this.tool === "eraser") {
      mask.begin(this.names);
      this.drawing = true;
      this.goTo(this.cursor);
    } else if (this.tool === "line") {
      this.points.push([...this.cursor]);
      if (this.points.length === 2) {
        const [a, b] = this.points;
        this.once("line", () => capsule(mask, ...a, ...b, this.size / 2, this.value));
      }
    } else if (this.tool === "polygon") this.points.push([...this.cursor]);
    else if (this.tool === "fill") this.once("fill", () => fill(mask, x, y, this.value));
    else if (this.tool === "take" && suggestion) this.once("region", () => takeOver(mask, suggestion, x, y));
    this.drawPointer();
  }

  close() {
    if (this.tool !== "polygon" || this.points.length < 3) return;
    const points = this.points;
    this.once("polygon", () => polygon(this.state.mask, points, this.value));
  }

  once(kind, act) {
    if (this.held) return;
    if (this.drawing) this.finish();
    const mask = this.state.mask;
    mask.begin(this.names);
    act();
    this.points = [];
    this.state.commit(mask.end(kind));
  }

  finish() {
    this.drawing = false;
    this.state.commit(this.state.mask.end(this.tool));
  }

  cancel() {
    if (this.drawing) this.finish();
    this.points = [];
    this.drawPointer();
  }

  // --- keyboard ------------------------------------------------------------------------------------------------------

  step(dx, dy, far) {
    const { item } = this.state;
    if (!item) return;
    const step = (far ? 10 : 1) * Math.max(1, Math.round(4 / this.view.scale));
    const [x, y] = this.cursor ?? this.view.toImage(this.view.width / 2, this.view.height / 2);
    this.goTo([Math.min(item.width - 0.5, Math.max(0.5, x + dx * step)), Math.min(item.height - 0.5, Math.max(0.5, y + dy * step))]);
    const [sx, sy] = this.view.toScreen(...this.cursor), edge = 40;
    const pan = (at, length) => (at < edge ? edge - at : at > length - edge ? length - edge - at : 0);
    if (pan(sx, this.view.width) || pan(sy, this.view.height)) this.view.pan(pan(sx, this.view.width), pan(sy, this.view.height));
  }

  pen() {
    this.cursor ??= this.view.toImage(this.view.width / 2, this.view.height / 2);
    if (this.drawing) this.finish();
    else this.press();
    this.drawPointer();
  }

  // --- what is shown of it -------------------------------------------------------------------------------------------

  drawPointer() {
    const canvas = this.view.pointer, context = canvas.getContext("2d"), { item, classes, chosen, mask } = this.state;
    context.clearRect(0, 0, canvas.width, canvas.height);
    const where = document.getElementById("where");
    if (!item) return (where.textContent = "");
    const colour = this.tool === "eraser" ? "#ffffff" : classes[chosen]?.colour ?? "#ffffff";
    const points = this.points.map((p) => this.view.toScreen(...p));
    if (this.cursor) {
      const [x, y] = this.view.toScreen(...this.cursor);
      if (points.length) points.push([x, y]);
      context.lineWidth = 1.5;
      const radius = SIZED.has(this.tool) ? Math.max(2, (this.size / 2) * this.view.scale) : 5;
      for (const [stroke, more] of [["#000", 1], [colour, 0]]) {
        context.strokeStyle = stroke;
        context.beginPath();
        context.arc(x, y, radius + more, 0, 7);
        context.moveTo(x - 4, y); context.lineTo(x + 4, y); context.moveTo(x, y - 4); context.lineTo(x, y + 4);
        context.stroke();
      }
    }
    if (points.length) {
      context.strokeStyle = colour;
      context.globalAlpha = 0.8;
      context.lineCap = "round";
      context.lineWidth = this.tool === "line" ? Math.max(1.5, this.size * this.view.scale) : 2;
      context.beginPath();
      points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (this.tool === "polygon") context.closePath();
      context.stroke();
      context.globalAlpha = 1;
    }
    const at = this.cursor?.map(Math.floor), inside = at && at[0] >= 0 && at[1] >= 0 && at[0] < item.width && at[1] < item.height;
    const value = inside && mask ? mask.values[at[1] * mask.width + at[0]] : UNPAINTED;
    const name = value === UNPAINTED ? "unpainted" : classes[value]?.name ?? value;
    where.textContent = `${item.width}×${item.height}  ${Math.round(this.view.scale * 100)} %` + (inside ? `  ${at[0]},${at[1]} ${name}` : "") + (this.drawing ? "  pen down" : "");
  }
}
