// Dialogs: one proposal, the proposals of a layer side by side, and the server's API key.

import * as api from "/moa/api.js";
import { at, button, el } from "/moa/dom.js";
import { Rendered } from "/moa/rendering.js";
import { count, stateWords } from "/moa/words.js";

/** What is known of a proposal beside its text, in one line. */
export function factsOf({ model, state, seconds, tokens, proposer }, named = true) {
  const parts = [
    named && model !== proposer ? model : "",
    stateWords(state),
    seconds === null ? "" : `${seconds.toFixed(1)} s`,
    tokens ? count(tokens, "token") : "",
  ];
  return parts.filter(Boolean).join(" · ");
}

function bodyOf(proposal) {
  const shown = new Rendered();
  shown.set([proposal.error, proposal.text].filter(Boolean).join("\n\n"));
  return shown.root;
}

/** Show one proposal. */
export function showProposal(proposal, name, named) {
  at("full-name").textContent = `${name}, layer ${proposal.layer}`;
  at("full-facts").textContent = factsOf(proposal, named);
  at("full-text").replaceChildren(bodyOf(proposal));
  at("full").showModal();
}

/**
 * Show the proposals of a layer side by side.
 * @param {import("/moa/record.js").TurnRecord} record
 * @param {number} layer
 * @param {{named: (proposal: object) => string, hidden: boolean, votes: Function|null,
 *   ofLayer: (layer: number) => object[]}} how Whether names are hidden, and what a vote does.
 */
export function compare(record, layer, how) {
  const dialog = at("compare");
  at("compare-name").textContent = `Proposals of layer ${layer}`;
  const columns = how.ofLayer(layer).map((proposal) => {
    const usable = ["ok", "cached"].includes(proposal.state);
    return el(
      "section",
      { class: "column", "aria-label": how.named(proposal), "data-state": proposal.state },
      el("header", {}, el("h3", { text: how.named(proposal) }), el("p", { text: factsOf(proposal, !how.hidden) })),
      el("div", { class: "column-text", tabindex: "0" }, bodyOf(proposal)),
      how.votes && usable
        ? button("This one is the best", () => how.votes(proposal), {
            class: "vote", "aria-label": `${how.named(proposal)} is the best`,
          })
        : null,
    );
  });
  at("compare-columns").replaceChildren(...columns);
  at("compare-layers").replaceChildren(
    ...record.layers.map((number) =>
      button(`Layer ${number}`, () => compare(record, number, how), {
        class: "quiet", "aria-pressed": String(number === layer),
      }),
    ),
  );
  if (!dialog.open) dialog.showModal();
}

/** Ask for the server's API key whenever it needs one. */
export function askForKeys() {
  api.onKeyNeeded(
    (reason) =>
      new Promise((resolve, reject) => {
        at("key-reason").textContent = reason;
        at("key-value").value = "";
        at("key").onclose = () => {
          const key = at("key-value").value.trim();
          if (key) resolve(key);
          else reject(new Error(reason));
        };
        if (!at("key").open) at("key").showModal();
      }),
  );
}

/** Let every dialog be closed by its button, and by a click beside it. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      const beside = event.target === dialog && dialog.id !== "key";
      if (beside || event.target.closest(".close")) dialog.close();
    });
  }
}
