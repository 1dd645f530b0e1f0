// Words for what the server says in codes.

const WORDS = {
  waiting: "waiting",
  writing: "writing …",
  ok: "answered",
  cached: "from the cache",
  failed: "failed",
  timed_out: "timed out",
  abandoned: "not waited for",
  stopped: "stopped",
};

/** The state of a proposal, in words. */
export const stateWords = (state) => WORDS[state] ?? state;

/** "1 model", "3 models" */
export const count = (number, one, several = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : several}`;

/** Dollars, with two digits that say something. */
export function dollars(amount) {
  if (amount === 0) return "$0";
  const digits = Math.min(8, Math.max(2, 1 - Math.floor(Math.log10(amount))));
  return `$${amount.toFixed(digits)}`;
}

const list = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;

const BASIS = {
  judge: "a judge’s verdict",
  agreement: "the proposals’ similarity",
  votes: "their answers",
  "tie: first": "a tie: the first of them",
  similarity: "their similarity",
  change: "what is new in it",
  samples: "its samples",
  peers: "the proposers’ scores of each other",
  all: "no scores",
  diversity: "how they differ",
  shuffle: "a random order",
  residual: "what is new in them",
};

/**
 * A decision of the run, in one sentence.
 * @param {object} decision A `Decision` of the state.
 * @param {(proposer: string) => string} named What a proposer is called.
 */
export function decisionWords(decision, named) {
  const { step, layer, outcome, by } = decision;
  const kept = list((decision.kept ?? []).map(named));
  const left = Object.entries(decision.left_out ?? {});
  const reasons = left.map(([name, reason]) => `${named(name)} (${reason})`);
  const basis = by ? ` Decided by ${BASIS[by] ?? by}.` : "";
  const out = reasons.length ? ` Left out: ${list(reasons)}.` : "";
  const trouble = decision.error ? ` ${decision.error}` : "";
  const scores = Object.entries(decision.scores ?? {});
  const scored = scores.length
    ? ` Scores: ${scores.map(([name, score]) => `${named(name)} ${Number(score.toFixed(2))}`).join(", ")}.`
    : "";
  const what = {
    alone: "The first pass was sure, and answered alone.",
    mixture: "The first pass was not sure: the proposers were asked.",
    go_on: `The proposals of layer ${layer} differ: the run went on.`,
    exit: `The proposals of layer ${layer} agree: no further layer was asked.`,
    answer: `The proposals of layer ${layer} agree: ${kept}’s is the answer.`,
    chosen:
      (decision.kept ?? []).length > 1
        ? `${kept} gave the chosen answer.`
        : `${kept} was chosen.`,
  }[outcome];
  if (step === "analysis") return `The proposals were analysed before the synthesis.${trouble}`;
  const words = what ?? (kept ? `Kept of layer ${layer}: ${kept}.` : `${step}: ${outcome}.`);
  return `${words}${out}${scored}${basis}${trouble}`;
}

// By the names of errors, what the reader can do.
const ADVICE = {
  AggregationFailed: "The proposals are kept: Retry asks only the aggregator again.",
  NotEnoughProposals: "Ask all again asks every proposer anew; another assistant may help, too.",
  GraphRecursionError: "The mixture has more steps than this server allows for a run.",
};

/**
 * What went wrong, in words for this page.
 * @param {Error|{error?: string, message?: string}|string} problem
 * @returns {string}
 */
export function problemWords(problem) {
  if (typeof problem === "string") return problem;
  const message = problem.message || String(problem.error ?? problem);
  if (problem instanceof TypeError) {
    return "The server does not answer. Check that it runs and that you are connected, then retry.";
  }
  if (problem.status === 404) return "The server does not have this thread or assistant any more.";
  if (problem.status === 409) {
    return "Another run of this thread is going on. Wait for its end, or stop it, then retry.";
  }
  if (problem.status >= 500) return `The server failed (${problem.status}). Retry in a moment.`;
  const advice = ADVICE[problem.error];
  return advice ? `${message} ${advice}` : withoutPrice(message);
}

// Only code can give prices.
function withoutPrice(message) {
  const [, , model] = /\busd=…\)?: .*?\bprice (?:of|for) (['"])(.+?)\1/.exec(message) ?? [];
  if (!model) return message;
  return `“Most dollars” needs the price of every model, and this server has none for ${model}. ` +
    "In the builder, leave it empty, or set “Most tokens” instead.";
}

// The builder's fields whose labels are not the names of their settings.
const FIELDS = {
  "limits.usd": "Most dollars", "limits.tokens": "Most tokens", "limits.timeout": "Most seconds",
  max_tokens: "longest answer", select: "selection", until: "early exit", route: "first pass",
  progressive: "streaming", prompt: "role", proposers: "the layer",
};
const fieldWords = (name) => FIELDS[name] ?? name.replaceAll("_", " ");
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/**
 * What is wrong with a mixture, in words for the builder: the server's name the fields of the context.
 * @param {Error} problem
 * @returns {string}
 */
export function formWords(problem) {
  const message = problemWords(problem)
    .replace(/^The assistant's context: /, "")
    .replace(/\blimits\.\w+/g, fieldWords)
    .replace(/\b(?:[A-Z]\w*\()?(\w+)=(…|'[^']*'|[^()\s]+)\)?/g, (_, name, value) =>
      value === "…" ? fieldWords(name) : `${fieldWords(name)} ${value}`);
  return sentence(message);
}

/** The error of a task in a thread's state, which is Python's `repr` of it. */
export function taskProblem(text) {
  const found = /^(\w+)\((['"])([\s\S]*)\2,?.*\)$/.exec(text);
  if (!found) return { message: text };
  return { error: found[1], message: found[3].replaceAll("\\n", "\n").replaceAll("\\'", "'") };
}
