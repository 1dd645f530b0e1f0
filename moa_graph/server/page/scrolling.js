// The page follows what is written, until the reader scrolls up.

import { at } from "/moa/dom.js";

const NEAR = 80; // pixels

/** Follow the end of an element that grows, and offer the way back to it. */
export function followEnd(growing, toEnd) {
  const page = document.scrollingElement;
  let following = true;
  let before = page.scrollTop;
  const distance = () => page.scrollHeight - page.scrollTop - page.clientHeight;
  const end = () => {
    following = true;
    page.scrollTop = page.scrollHeight;
    before = page.scrollTop;
    toEnd.hidden = true;
  };
  addEventListener(
    "scroll",
    () => {
      // What grows moves the end away without a step upwards: only that is the reader's.
      if (distance() < NEAR) following = true;
      else if (page.scrollTop < before - 2) following = false;
      before = page.scrollTop;
      toEnd.hidden = following || distance() < NEAR;
    },
    { passive: true },
  );
  new ResizeObserver(() => {
    if (following && document.body.classList.contains("busy")) end();
    else toEnd.hidden = following || distance() < NEAR;
  }).observe(growing);
  toEnd.addEventListener("click", end);
  return end;
}
