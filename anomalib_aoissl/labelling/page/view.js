// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// What is seen: tiles of the picture, and over them the masks, computed for the pixels of the screen alone, so that a
// picture of any size costs the same.
import { address } from "./api.js";
import { UNPAINTED } from "./mask.js";

const MOST_TILES = 160;

export class View {
  constructor(stage, state) {
    this.state = state;
    this.stage = stage;
    [this.picture, this.overlay, this.pointer] = ["picture", "overlay", "pointer"].map((id) => document.getElementById(id));
    this.scale = 1; this.left = 0; this.top = 0;
    this.tiles = new Map();
    this.asked = false;
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  resize() {
    for (const canvas of [this.picture, this.overlay, this.pointer]) {
      canvas.width = this.stage.clientWidth;
      canvas.height = this.stage.clientHeight;
    }
    this.image = null;
    this.redraw();
  }

  get width() { return this.picture.width; }
  get height() { return this.picture.height; }

  fit() {
    const item = this.state.item;
    if (!item) return;
    this.scale = Math.min(this.width / item.width, this.height / item.height);
    this.left = (item.width - this.width / this.scale) / 2;
    this.top = (item.height - this.height / this.scale) / 2;
    this.redraw();
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const item = this.state.item;
    if (!item) return;
    const least = 0.5 * Math.min(this.width / item.width, this.height / item.height);
    const scale = Math.min(40, Math.max(least, this.scale * factor));
    this.left += x / this.scale - x / scale;
    this.top += y / this.scale - y / scale;
    this.scale = scale;
    this.redraw();
  }

  pan(dx, dy) {
    this.left -= dx / this.scale;
    this.top -= dy / this.scale;
    this.redraw();
  }

  toImage(x, y) { return [this.left + x / this.scale, this.top + y / this.scale]; }
  toScreen(x, y) { return [(x - this.left) * this.scale, (y - this.top) * this.scale]; }

  redraw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  draw() {
    const started = performance.now();
    this.drawPicture();
    this.drawMasks();
    this.state.tools?.drawPointer();
    this.spent = performance.now() - started;
  }

  // --- the picture ---------------------------------------------------------------------------------------------------

  drawPicture() {
    const item = this.state.item, context = this.picture.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    if (!item) return;
    const coarsest = Math.max(0, Math.ceil(Math.log2(Math.max(item.width, item.height) / item.tile)));
    const wanted = Math.max(0, Math.min(coarsest, Math.floor(Math.log2(1 / this.scale) + 0.3)));
    context.imageSmoothingEnabled = this.scale < 1;
    for (const level of wanted === coarsest ? [wanted] : [coarsest, wanted]) this.drawLevel(context, item, level);
  }

  drawLevel(context, item, level) {
    const side = item.tile << level;
    const [right, bottom] = this.toImage(this.width, this.height);
    for (let row = Math.max(0, Math.floor(this.top / side)); row * side < Math.min(bottom, item.height); row++)
      for (let column = Math.max(0, Math.floor(this.left / side)); column * side < Math.min(right, item.width); column++) {
        const tile = this.tile(item, level, column, row);
        if (!tile.complete || !tile.naturalWidth) continue;
        const [x, y] = this.toScreen(column * side, row * side);
        const w = Math.min(side, item.width - column * side), h = Math.min(side, item.height - row * side);
        context.drawImage(tile, x, y, w * this.scale, h * this.scale);
      }
  }

  tile(item, level, column, row) {
    const { channel, low, high } = this.state;
    const query = { name: item.name, of: item.version, channel, level, column, row, low, high };
    const url = address("tile", query);
    let tile = this.tiles.get(url);
    if (!tile) {
      tile = new Image();
      tile.onload = () => this.redraw();
      tile.src = url;
    }
    this.tiles.delete(url); // those used last stay
    this.tiles.set(url, tile);
    if (this.tiles.size > MOST_TILES) this.tiles.delete(this.tiles.keys().next().value);
    return tile;
  }

  // --- the masks -----------------------------------------------------------------------------------------------------

  columns(length, start, size, cells) {
    const places = new Int32Array(length);
    for (let x = 0; x < length; x++) {
      const at = (start + (x + 0.5) / this.scale) / size;
      places[x] = at < 0 || at >= 1 ? -1 : Math.floor(at * cells);
    }
    return places;
  }

  drawMasks() {
    const { item, mask, suggestion, hidden, showChanged } = this.state, { width, height } = this;
    const context = this.overlay.getContext("2d");
    if (!item || hidden || !width || !height) return context.clearRect(0, 0, width, height);
    this.image ??= context.createImageData(width, height);
    const out = new Uint32Array(this.image.data.buffer);
    out.fill(0);
    const colours = this.colours();
    const across = this.columns(width, this.left, item.width, item.width);
    const down = this.columns(height, this.top, item.height, item.height);
    const sAcross = suggestion && this.columns(width, this.left, item.width, suggestion.width);
    const sDown = suggestion && this.columns(height, this.top, item.height, suggestion.height);
    let above = new Int16Array(width).fill(-1);
    for (let y = 0; y < height; y++) {
      const row = new Int16Array(width).fill(-1);
      if (down[y] >= 0) {
        const m = mask ? down[y] * mask.width : 0, s = suggestion ? sDown[y] * suggestion.width : 0;
        let before = -1;
        for (let x = 0; x < width; x++) {
          if (across[x] < 0) continue;
          const painted = mask ? mask.values[m + across[x]] : UNPAINTED;
          let value = painted, flags = 0, kind = 0;
          if (suggestion) {
            const at = s + sAcross[x];
            flags = suggestion.flags[at];
            if (painted === UNPAINTED) { value = suggestion.classes[at]; kind = 256; }
          } else if (painted === UNPAINTED) continue;
          const key = value + kind;
          const edge = (before !== -1 && before !== key) || (above[x] !== -1 && above[x] !== key);
          row[x] = before = key;
          out[y * width + x] = edge && value !== UNPAINTED ? colours.edge[value] : colours.fill[key];
          if (kind && flags & 2 && (x - y + 4800) % 9 < 3) out[y * width + x] = (x - y + 4800) % 9 < 2 ? 0xd842e4f0 : 0xc0000000;
          if (kind && flags & 1 && (x + y) % 9 < 3) out[y * width + x] = (x + y) % 9 < 2 ? 0xd0ffffff : 0xc0000000;
          if (showChanged && kind && flags & 4 && x % 6 < 2 && y % 6 < 2) out[y * width + x] = 0xffffffff;
        }
      }
      above = row;
    }
    context.putImageData(this.image, 0, 0);
  }

  // ABGR of each key: values that are painted, and from 256 on suggested; a suggested background stays clear.
  colours() {
    const fill = new Uint32Array(512), edge = new Uint32Array(256), { classes, opacity } = this.state;
    const of = (text, alpha) => {
      const number = parseInt(text.slice(1), 16), byte = Math.round(255 * Math.min(1, alpha));
      return ((byte << 24) | ((number & 255) << 16) | (number & 0xff00) | (number >> 16)) >>> 0;
    };
    classes.forEach(({ colour }, index) => {
      fill[index] = of(colour, index ? opacity : opacity * 0.55);
      fill[256 + index] = index ? of(colour, opacity * 0.55) : 0;
      edge[index] = of(colour, index ? opacity + 0.35 : opacity * 0.7);
    });
    return { fill, edge };
  }
}
