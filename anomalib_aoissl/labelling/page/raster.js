// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// Shapes into a mask, and regions of one; pure functions of arrays.
import { UNPAINTED } from "./mask.js";

// A line with round ends, radius r; a dot where both ends are one.
export function capsule(mask, x0, y0, x1, y1, r, value) {
  const left = Math.floor(Math.min(x0, x1) - r), right = Math.ceil(Math.max(x0, x1) + r) + 1;
  const top = Math.floor(Math.min(y0, y1) - r), bottom = Math.ceil(Math.max(y0, y1) + r) + 1;
  if (!mask.touch(left, top, right, bottom)) return;
  const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy, limit = Math.max(r * r, 0.5);
  for (let y = Math.max(0, top); y < Math.min(mask.height, bottom); y++)
    for (let x = Math.max(0, left), at = y * mask.width + x; x < Math.min(mask.width, right); x++, at++) {
      const px = x + 0.5 - x0, py = y + 0.5 - y0;
      const t = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
      const ex = px - t * dx, ey = py - t * dy;
      if (ex * ex + ey * ey <= limit) mask.values[at] = value;
    }
}

// The inside of a polygon by the even-odd rule, pixel centres count.
export function polygon(mask, points, value) {
  const ys = points.map((p) => p[1]), xs = points.map((p) => p[0]);
  const top = Math.floor(Math.min(...ys)), bottom = Math.ceil(Math.max(...ys)) + 1;
  if (!mask.touch(Math.floor(Math.min(...xs)), top, Math.ceil(Math.max(...xs)) + 1, bottom)) return;
  for (let y = Math.max(0, top); y < Math.min(mask.height, bottom); y++) {
    const cuts = [], centre = y + 0.5;
    points.forEach(([x0, y0], index) => {
      const [x1, y1] = points[(index + 1) % points.length];
      if ((y0 <= centre) !== (y1 <= centre)) cuts.push(x0 + ((centre - y0) / (y1 - y0)) * (x1 - x0));
    });
    cuts.sort((a, b) => a - b);
    for (let index = 0; index + 1 < cuts.length; index += 2) {
      const from = Math.max(0, Math.ceil(cuts[index] - 0.5)), to = Math.min(mask.width, Math.ceil(cuts[index + 1] - 0.5));
      if (from < to) mask.values.fill(value, y * mask.width + from, y * mask.width + to);
    }
  }
}

// Marks the connected pixels of the value at (x, y); returns the marks and their box, or null.
export function connected(values, width, height, x, y) {
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  const value = values[y * width + x], marks = new Uint8Array(width * height), stack = [y * width + x];
  const box = [x, y, x + 1, y + 1];
  while (stack.length) {
    const start = stack.pop();
    if (marks[start] || values[start] !== value) continue;
    const row = Math.floor(start / width), first = row * width, last = first + width;
    let left = start, right = start + 1;
    while (left > first && values[left - 1] === value && !marks[left - 1]) left--;
    while (right < last && values[right] === value && !marks[right]) right++;
    marks.fill(1, left, right);
    box[0] = Math.min(box[0], left - first); box[2] = Math.max(box[2], right - first);
    box[1] = Math.min(box[1], row); box[3] = Math.max(box[3], row + 1);
    for (const other of [row - 1, row + 1]) {
      if (other < 0 || other >= height) continue;
      const shift = (other - row) * width;
      let inside = false;
      for (let at = left + shift; at < right + shift; at++) {
        const open = values[at] === value && !marks[at];
        if (open && !inside) stack.push(at);
        inside = open;
      }
    }
  }
  return { value, marks, box };
}

export function fill(mask, x, y, value) {
  const found = connected(mask.values, mask.width, mask.height, x, y);
  if (!found) return;
  const [left, top, right, bottom] = found.box;
  mask.touch(left, top, right, bottom);
  for (let row = top; row < bottom; row++)
    for (let at = row * mask.width + left; at < row * mask.width + right; at++) if (found.marks[at]) mask.values[at] = value;
}

// Takes a suggestion over where nothing is painted; of the whole picture, or of the region at (x, y).
export function takeOver(mask, suggestion, x = -1, y = -1) {
  const { width, height, classes, flags } = suggestion;
  const column = (at) => Math.floor(((at + 0.5) / mask.width) * width), row = (at) => Math.floor(((at + 0.5) / mask.height) * height);
  let marks = null, box = [0, 0, mask.width, mask.height];
  if (x >= 0) {
    const found = connected(classes, width, height, column(x), row(y));
    if (!found) return;
    marks = found.marks;
    box = [found.box[0] / width * mask.width, found.box[1] / height * mask.height, found.box[2] / width * mask.width, found.box[3] / height * mask.height];
    box = [Math.floor(box[0]), Math.floor(box[1]), Math.ceil(box[2]), Math.ceil(box[3])];
  }
  const [left, top, right, bottom] = box;
  mask.touch(left, top, right, bottom);
  const columns = Int32Array.from({ length: right - left }, (_, index) => column(left + index));
  for (let at = top; at < Math.min(bottom, mask.height); at++) {
    const cell = row(at) * width, start = at * mask.width;
    for (let index = 0; index < columns.length && left + index < mask.width; index++) {
      const place = cell + columns[index];
      const taken = marks ? marks[place] : !(flags[place] & 1);
      if (taken && mask.values[start + left + index] === UNPAINTED) mask.values[start + left + index] = classes[place];
    }
  }
}
