// The mixture that is being built, and its form as the context of an assistant.

/**
 * @typedef {{model: string, name: string, prompt: string, samples: string, temperature: string}} Member
 * @typedef {{strategy: string, arguments: Object<string, string>}} Chosen
 * @typedef {{
 *   members: Member[], quorum: string, grace: string, timeout: string, select: Chosen, until: Chosen,
 * }} LayerRecipe
 * @typedef {{
 *   name: string, layers: LayerRecipe[], answer: Chosen, model: string, temperature: string,
 *   route: Chosen, progressive: Chosen, seconds: string, tokens: string, usd: string,
 * }} Recipe
 */

/** @returns {Member} */
export const newMember = (model = "") => ({ model, name: "", prompt: "", samples: "", temperature: "" });
const none = () => ({ strategy: "", arguments: {} });

/** @returns {LayerRecipe} */
export const newLayer = (members = [newMember()]) => ({
  members, quorum: "", grace: "", timeout: "", select: none(), until: none(),
});

/** @returns {Recipe} */
export const newRecipe = () => ({
  name: "", layers: [newLayer([newMember(), newMember(), newMember()])], answer: none(), model: "",
  temperature: "", route: none(), progressive: none(), seconds: "", tokens: "", usd: "",
});

const number = (text) => (String(text).trim() === "" ? undefined : Number(text));
const without = (given) =>
  Object.fromEntries(
    Object.entries(given).filter(([, value]) => value !== undefined && value !== "" && value !== null),
  );

function memberOf({ model, name, prompt, samples, temperature }) {
  const own = without({
    model: model.trim(), name: name.trim(), prompt: prompt.trim(),
    samples: number(samples) === 1 ? undefined : number(samples), temperature: number(temperature),
  });
  return Object.keys(own).length === 1 ? own.model : own;
}

function strategyOf({ strategy, arguments: given }, known) {
  if (!strategy) return undefined;
  const kinds = new Map((known ?? []).find(({ name }) => name === strategy)?.arguments
    .map(({ name, kind }) => [name, kind]) ?? []);
  const own = {};
  for (const [name, text] of Object.entries(given)) {
    if (text === "" || !kinds.has(name)) continue;
    const kind = kinds.get(name);
    own[name] = kind === "flag" ? text === "true" : ["integer", "number"].includes(kind) ? Number(text) : text;
  }
  return { strategy, ...own };
}

function layerOf(layer, strategies) {
  const proposers = layer.members.filter(({ model }) => model.trim()).map(memberOf);
  const select = strategyOf(layer.select, strategies.select);
  return without({
    proposers, quorum: number(layer.quorum), grace: number(layer.grace),
    timeout: number(layer.timeout), select: select && [select],
    until: strategyOf(layer.until, strategies.until),
  });
}

/**
 * The context of an assistant.
 * @param {Recipe} recipe
 * @param {object} strategies Those of the server's offer, by place.
 */
export function contextOf(recipe, strategies) {
  const layers = recipe.layers.map((layer) => layerOf(layer, strategies));
  const plain = layers.map((layer) => (Object.keys(layer).length === 1 ? layer.proposers : layer));
  const aggregator = recipe.answer.strategy
    ? strategyOf(recipe.answer, strategies.aggregator)
    : recipe.temperature.trim()
      ? { model: recipe.model.trim(), temperature: number(recipe.temperature) }
      : recipe.model.trim();
  const limits = without({
    timeout: number(recipe.seconds), tokens: number(recipe.tokens), usd: number(recipe.usd),
  });
  const route = strategyOf(recipe.route, strategies.route);
  if (route) delete route.strategy;
  return without({
    proposers: plain.length === 1 ? plain[0] : plain,
    aggregator,
    route,
    progressive: strategyOf(recipe.progressive, strategies.progressive),
    limits: Object.keys(limits).length ? limits : undefined,
  });
}

// --- and back ------------------------------------------------------------------------------------

const text = (value) => (value === undefined || value === null ? "" : String(value));
const isLayer = (entry) => Array.isArray(entry) || (typeof entry === "object" && "proposers" in entry);

function memberFrom(entry) {
  if (typeof entry === "string") return newMember(entry);
  return {
    model: text(entry.model), name: text(entry.name), prompt: text(entry.prompt),
    samples: text(entry.samples), temperature: text(entry.temperature),
  };
}

function chosenFrom(value) {
  const one = Array.isArray(value) ? value[0] : value;
  if (!one) return none();
  if (typeof one === "string") return { strategy: one, arguments: {} };
  const { strategy = "route", ...given } = one;
  const plain = Object.entries(given).map(([name, inner]) => [name, text(inner?.model ?? inner)]);
  return { strategy, arguments: Object.fromEntries(plain) };
}

function layerFrom(value) {
  const { proposers, quorum, grace, timeout, select, until } = Array.isArray(value) ? { proposers: value } : value;
  return {
    members: proposers.map(memberFrom), quorum: text(quorum), grace: text(grace),
    timeout: text(timeout), select: chosenFrom(select), until: chosenFrom(until),
  };
}

/** A recipe of the context of an assistant, or of a preset's data. @returns {Recipe} */
export function recipeOf(context, name = "") {
  const recipe = { ...newRecipe(), name };
  const { proposers, aggregator, layers, route, progressive, limits } = context;
  if (proposers) {
    const several = Array.isArray(proposers) && proposers.some(isLayer);
    const given = several ? proposers : [proposers];
    recipe.layers = given.map(layerFrom);
    while (!several && recipe.layers.length < (layers ?? 2) - 1) recipe.layers.push(layerFrom(proposers));
  }
  const isStrategy = typeof aggregator === "object" ? "strategy" in aggregator : !text(aggregator).includes(":");
  if (aggregator && isStrategy) recipe.answer = chosenFrom(aggregator);
  else if (aggregator) {
    recipe.model = text(aggregator.model ?? aggregator);
    recipe.temperature = text(aggregator.temperature);
  }
  recipe.route = chosenFrom(route);
  recipe.progressive = chosenFrom(progressive);
  recipe.seconds = text(limits?.timeout);
  recipe.tokens = text(limits?.tokens);
  recipe.usd = text(limits?.usd);
  return recipe;
}

/** What keeps a recipe from being a mixture, in words; "" if nothing does. */
export function missingIn(recipe) {
  const empty = recipe.layers.findIndex(({ members }) => !members.some(({ model }) => model.trim()));
  if (empty >= 0) return `Layer ${empty + 1} has no model.`;
  if (!recipe.answer.strategy && !recipe.model.trim()) return "The aggregator has no model.";
  return "";
}
