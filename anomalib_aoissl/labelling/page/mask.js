// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// The mask in the browser: a uint8 index layer, what a stroke changed of it, and how changes reach the disk.
import { RequestError, deflate, get, inflate, post } from "./api.js";

export const UNPAINTED = 255;
const TILE = 256;

export class Mask {
  constructor(name, width, height, values, version) {
    Object.assign(this, { name, width, height, values, version });
    this.tiles = null;
  }

  static async load(name) {
    const answer = await get("mask", { name });
    const values = await inflate(await answer.arrayBuffer());
    const [width, height] = ["x-width", "x-height"].map((key) => Number(answer.headers.get(key)));
    return new Mask(name, width, height, values, answer.headers.get("x-version"));
  }

  // Between begin and end the tiles that are touched are kept as they were. `names` are those of the classes now: the
  // server compares them, since an index may be another class's when the stroke gets there.
  begin(names) {
    this.names = names;
    this.tiles = new Map();
    this.box = [Infinity, Infinity, -Infinity, -Infinity];
  }

  touch(left, top, right, bottom) {
    left = Math.max(0, left); top = Math.max(0, top);
    right = Math.min(this.width, right); bottom = Math.min(this.height, bottom);
    if (left >= right || top >= bottom) return false;
    const b = this.box;
    this.box = [Math.min(b[0], left), Math.min(b[1], top), Math.max(b[2], right), Math.max(b[3], bottom)];
    const across = Math.ceil(this.width / TILE);
    for (let row = Math.floor(top / TILE); row * TILE < bottom; row++)
      for (let column = Math.floor(left / TILE); column * TILE < right; column++) {
        const key = row * across + column;
        if (!this.tiles.has(key)) this.tiles.set(key, this.cut(column * TILE, row * TILE, TILE, TILE));
      }
    return true;
  }

  // Returns the region that changed, before and after; null where nothing did.
  end(kind) {
    const [left, top, right, bottom] = this.box, width = right - left, height = bottom - top;
    const tiles = this.tiles, across = Math.ceil(this.width / TILE);
    this.tiles = null;
    if (!(width > 0)) return null;
    const after = this.cut(left, top, width, height), before = after.slice();
    for (const [key, tile] of tiles) {
      const x0 = (key % across) * TILE, y0 = Math.floor(key / across) * TILE;
      const w = Math.min(TILE, this.width - x0), h = Math.min(TILE, this.height - y0);
      const from = Math.max(left, x0), to = Math.min(right, x0 + w);
      for (let y = Math.max(top, y0); y < Math.min(bottom, y0 + h); y++)
        before.set(tile.subarray((y - y0) * w + from - x0, (y - y0) * w + to - x0), (y - top) * width + from - left);
    }
    const seen = new Uint8Array(256);
    for (let index = 0; index < after.length; index++) if (after[index] !== before[index]) seen[after[index]] = 1;
    const drawn = Object.fromEntries(this.names.flatMap((name, value) => (seen[value] ? [[value, name]] : [])));
    return seen.includes(1) ? { kind, left, top, width, height, before, after, drawn } : null;
  }

  cut(left, top, width, height) {
    width = Math.min(width, this.width - left); height = Math.min(height, this.height - top);
    const part = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      const start = (top + y) * this.width + left;
      part.set(this.values.subarray(start, start + width), y * width);
    }
    return part;
  }

  put(left, top, width, height, part) {
    for (let y = 0; y < height; y++)
      this.values.set(part.subarray(y * width, (y + 1) * width), (top + y) * this.width + left);
  }
}

// Sends strokes one after the other, again where it did not work, and onto the newest mask where another tab painted.
export class Saver {
  constructor(told) {
    this.told = told; // called with (state, text) and, where the mask was loaded again, with ("renewed"), or ("merged") with strokes of this tab
    this.queue = [];
    this.busy = false;
    this.merges = Promise.resolve();
  }

  add(mask, stroke) {
    this.queue.push({ mask, stroke });
    this.told("busy", this.queue.length);
    this.run();
  }

  get idle() { return !this.busy && !this.queue.length; }

  async settled() {
    while (!this.idle) await new Promise((go) => setTimeout(go, 20));
  }

  async run() {
    if (this.busy) return;
    this.busy = true;
    while (this.queue.length) {
      const { mask, stroke } = this.queue[0];
      try {
        const { left, top, width, height, kind, drawn } = stroke;
        const query = { name: mask.name, box: [left, top, width, height].join(), version: mask.version, kind, drawn: JSON.stringify(drawn) };
        const answer = await post("stroke", query, await deflate(stroke.after));
        mask.version = (await answer.json()).version;
        this.queue.shift();
        this.told(this.queue.length ? "busy" : "saved", this.queue.length);
      } catch (error) {
        if (error instanceof RequestError && error.status === 409 && error.version !== undefined) {
          try { await this.merge(mask); continue; } catch (other) { error = other; }
        }
        if ([400, 404, 409, 410, 413].includes(error.status)) { // it will never work
          this.queue.shift();
          await this.lose(mask, error.message);
        } else {
          this.told("bad", error.message);
          await new Promise((go) => setTimeout(go, 2000));
        }
      }
    }
    this.busy = false;
  }

  // Takes a stroke that was rejected out of the mask: later ones, whose boxes hold its pixels, must not bring it along.
  async lose(mask, text) {
    try { await this.merge(mask, true); } catch { mask = null; }
    this.told("lost", text, mask);
  }

  // Loads the mask of a picture; the one that strokes wait for, where there is such a one.
  async load(name) {
    const pending = this.queue.find(({ mask }) => mask.name === name)?.mask;
    try {
      if (pending) { await this.merge(pending, true); return pending; }
    } catch { /* of another size: its strokes are rejected when they are sent */ }
    return Mask.load(name);
  }

  // Loads the mask again, and puts what is not saved yet of this one onto it; one after the other, so that the newest stays.
  merge(mask, quiet = false) {
    return (this.merges = this.merges.catch(() => {}).then(() => this.mergeNow(mask, quiet)));
  }

  async mergeNow(mask, quiet) {
    const fresh = await Mask.load(mask.name);
    if (mask.width !== fresh.width || mask.height !== fresh.height)
      throw new RequestError("The picture has another size now. Load the page again.", 410);
    const drawing = mask.tiles !== null; // a stroke that is being drawn is cut in two
    if (drawing) {
      const part = mask.end("brush");
      if (part) this.queue.push({ mask, stroke: part });
    }
    const waiting = this.queue.filter(({ mask: other }) => other === mask);
    for (const { stroke } of waiting) {
      const { left, top, width, height, before, after } = stroke;
      const now = fresh.cut(left, top, width, height), next = now.slice();
      for (let index = 0; index < next.length; index++) if (after[index] !== before[index]) next[index] = after[index];
      stroke.before = now;
      stroke.after = next;
      fresh.put(left, top, width, height, next);
    }
    mask.values.set(fresh.values);
    mask.version = fresh.version;
    if (drawing) mask.begin(mask.names);
    if (!quiet) this.told(waiting.length ? "merged" : "renewed", mask.name);
  }
}
