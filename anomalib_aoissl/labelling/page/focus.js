// Copyright (C) 2026 The anomalib-aoissl authors. SPDX-License-Identifier: Apache-2.0

// Puts new children into an element; the one in the place of the one that had the focus has it then.
export function replaceChildren(element, children) {
  const at = [...element.children].indexOf(document.activeElement);
  element.replaceChildren(...children);
  if (at >= 0) element.children[at]?.focus({ preventScroll: true });
}
