// The last line of an answer: models, seconds, tokens, dollars.

import * as api from "/moa/api.js";
import { count, dollars } from "/moa/words.js";

/** @type {Map<string, Promise<[number, number]|null>>} */
const prices = new Map();

/** Dollars per million input and output tokens of a model; null if nobody tells. */
function priceOf(model) {
  if (!prices.has(model)) {
    const told = api.prices([model]).then((found) => found[model] ?? null, () => null);
    prices.set(model, told);
  }
  return prices.get(model);
}

/**
 * What a turn took, in one line. Without all prices, the dollars are the least that it cost.
 * @param {import("/moa/record.js").TurnRecord} record
 * @returns {Promise<string>}
 */
export async function summaryOf(record) {
  const { models, usages, seconds } = record;
  const tokens = usages.reduce((sum, [, usage]) => sum + (usage.total_tokens ?? 0), 0);
  const parts = [];
  if (models.length) parts.push(count(models.length, "model"));
  if (seconds) parts.push(`${seconds.toFixed(1)} s`);
  if (tokens) parts.push(count(tokens, "token"));
  const spent = await dollarsOf(usages);
  if (spent) parts.push(spent);
  return parts.join(" · ");
}

async function dollarsOf(usages) {
  let sum = 0;
  let priced = 0;
  for (const [model, usage] of usages) {
    const price = model ? await priceOf(model) : null;
    if (!price) continue;
    priced += 1;
    sum += ((usage.input_tokens ?? 0) * price[0] + (usage.output_tokens ?? 0) * price[1]) / 1e6;
  }
  if (!priced) return "";
  return priced < usages.length ? `at least ${dollars(sum)}` : dollars(sum);
}
