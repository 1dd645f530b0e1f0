// One HTML file with a thread in it: it opens offline, needs no scripts and loads nothing.

import { summaryOf } from "/moa/footer.js";
import { factsOf } from "/moa/dialogs.js";
import { htmlOf } from "/moa/rendering.js";
import { decisionWords, problemWords } from "/moa/words.js";

const SIGNS = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const text = (given) => String(given).replace(/[&<>"']/g, (sign) => SIGNS[sign]);

/**
 * The file.
 * @param {import("/moa/thread.js").Thread} thread
 * @param {object} data The same thread as data, which the file has as well.
 * @param {import("/moa/anonymous.js").Anonymous} anonymous Whether and how names are hidden.
 * @returns {Promise<string>}
 */
export async function pageOf(thread, data, anonymous) {
  const sheets = await Promise.all(
    ["/moa/style.css", "/moa/reading.css"].map(async (path) => (await fetch(path)).text()),
  );
  const turns = [];
  for (const node of thread.path) turns.push(await turnOf(node.record, anonymous.copied(node.record)));
  const title = text(thread.title || "A thread");
  // In a script that is data, only `<` can end it.
  const json = JSON.stringify(data).replaceAll("<", "\\u003c");
  const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
<style>
${sheets.join("\n")}
</style>
</head>
<body class="shared">
<header><h1>${title}</h1></header>
<main id="turns">
${turns.join("\n")}
</main>
<script type="application/json" id="thread">${json}</script>
</body>
</html>
`;
}

async function turnOf(record, copied) {
  const layers = [];
  for (const layer of record.layers) {
    const cards = [];
    for (const proposal of copied.proposals) {
      if (proposal.layer === layer) cards.push(await cardOf(proposal));
    }
    layers.push(`<section class="layer"><h3>Layer ${layer}</h3>${cards.join("")}</section>`);
  }
  const decisions = copied.decisions
    .map((decision) => `<li>${text(decisionWords(decision, (name) => name))}</li>`)
    .join("");
  const { problem } = record;
  const { answer } = copied;
  const by = answer?.chosen
    ? `${answer.chosen.proposer}’s proposal of layer ${answer.chosen.layer}, word for word`
    : answer?.model && `by ${answer.model}`;
  return `<article class="turn">
<div class="asked"><p class="question" dir="auto">${text(record.question)}</p></div>
${layers.length ? `<details class="panel"><summary>${record.proposals.size} proposals</summary><div class="layers">${layers.join("")}</div></details>` : ""}
${decisions ? `<ul class="decisions">${decisions}</ul>` : ""}
${answer ? `<section class="answer"><div class="answer-head"><h3>Answer</h3><span class="by">${text(by ?? "")}</span></div><div class="markdown" dir="auto">${await htmlOf(answer.text)}</div><p class="footer">${text(await summaryOf(record))}</p></section>` : ""}
${problem ? `<div class="problem"><p>${text(problemWords(problem))}</p></div>` : ""}
</article>`;
}

async function cardOf(proposal) {
  const body = proposal.error
    ? `<p>${text(proposal.error)}</p>`
    : `<div class="markdown" dir="auto">${await htmlOf(proposal.text)}</div>`;
  return `<details class="card" data-state="${text(proposal.state)}"><summary><span class="name">${text(proposal.proposer)}</span> <span class="facts">${text(factsOf(proposal))}</span></summary>${body}</details>`;
}
