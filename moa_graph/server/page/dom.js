// Elements of the page, made in one line.

/**
 * Make an element.
 * @param {string} tag Its name; `svg:rect` makes an element of SVG.
 * @param {Object<string, any>} [given] `class`, `text`, `on…` (a listener), or any attribute. An
 *   attribute that is null, undefined or false is left out; true is an empty one.
 * @param {...(Node|string|null|undefined)} children
 * @returns {any}
 */
export function el(tag, given = {}, ...children) {
  const svg = tag.startsWith("svg:");
  const made = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") made.textContent = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A button that does something. @returns {HTMLButtonElement} */
export const button = (text, onclick, given = {}) =>
  el("button", { type: "button", ...given, text, onclick });

/** The element with an id. @returns {any} */
export const at = (id) => document.getElementById(id);

/** Say something to readers who cannot see the page; it is not shown. */
export function say(text) {
  if (text) at("status").textContent = text;
}

/** Put a text on the clipboard, and say so on the button that did it. */
export async function copy(text, from) {
  const label = from.textContent;
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch {
    from.textContent = "Not allowed by the browser";
  }
  say(from.textContent);
  setTimeout(() => (from.textContent = label), 1500);
}

/** Save a text as a file. */
export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** An id that no other has; `crypto.randomUUID` needs HTTPS. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{3}).(.{3}).(.{3})(.{12}).*$/, "$1-$24-$3a-$4b-$5").slice(0, 36);
}
