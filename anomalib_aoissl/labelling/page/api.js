// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0
// Asks the server, and hears what other tabs and the worker did.

export const tab = sessionStorage.tab || (sessionStorage.tab = crypto.getRandomValues(new Uint32Array(2)).join("-"));

export class RequestError extends Error {
  constructor(text, status, version) {
    super(text);
    this.status = status;
    this.version = version;
  }
}

export function address(name, query = {}) {
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined)).toString();
  return `/api/${name}${text ? "?" + text : ""}`;
}

async function ask(method, name, query, body) {
  let answer;
  try {
    answer = await fetch(address(name, query), { method, body, headers: { "x-labelling": "1", "x-tab": tab } });
  } catch {
    throw new RequestError("The server does not answer. Is the program still running?", 0);
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let content = { error: text };
  try { content = JSON.parse(text); } catch { /* plain text */ }
  throw new RequestError(content.error || answer.statusText, answer.status, content.version);
}

export const get = (name, query) => ask("GET", name, query);
export const post = (name, query, body) => ask("POST", name, query, body);
export const getJson = async (name, query) => (await get(name, query)).json();
export const postJson = async (name, query, body) => (await post(name, query, body)).json();

async function through(stream, bytes) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}
export const deflate = (bytes) => through(new CompressionStream("deflate"), bytes);
export const inflate = (bytes) => through(new DecompressionStream("deflate"), bytes);

// Calls `heard` with each event, and `lost(true)` while the server is away.
export function listen(heard, lost) {
  const source = new EventSource("/api/events");
  source.onopen = () => lost(false);
  source.onerror = () => lost(true);
  source.onmessage = (message) => heard(JSON.parse(message.data));
}
