// The mixture that is being built, and its form as the context of an assistant.
//
// The form shows some of the settings. Every part of a recipe therefore keeps the data that it was
// read from, as `given`: what the form does not show, and what was not edited, is written as it was.

/**
 * @typedef {{
 *   model: string, name: string, prompt: string, samples: string, temperature: string,
 *   max_tokens: string, given: object, bare: boolean,
 * }} Member `bare`: whether it is written as the model's name alone, if it has no other setting.
 * @typedef {{
 *   strategy: string, arguments: Object<string, string>, given: object|string|null, more: any[],
 * }} Chosen `more`: the selections behind the first.
 * @typedef {{
 *   members: Member[], quorum: string, grace: string, timeout: string, select: Chosen, until: Chosen,
 *   given: object, bare: boolean,
 * }} LayerRecipe `bare`: as for a member, of the list of proposers.
 * @typedef {{temperature: string, max_tokens: string}} Usual Settings of models without their own.
 * @typedef {{
 *   name: string, layers: LayerRecipe[], answer: Chosen, model: string, temperature: string,
 *   max_tokens: string, route: Chosen, progressive: Chosen, seconds: string, tokens: string,
 *   usd: string, usual: Usual, given: object, form: "repeated"|"list",
 * }} Recipe `form`: whether `proposers` was one layer, for as many as `layers` says, or a list.
 */

const isNothing = (value) => value === undefined || value === null || (Array.isArray(value) && !value.length);
const text = (value) => (isNothing(value) ? "" : String(value));
const words = (shown) => shown.trim() || undefined;
const number = (shown) => (String(shown).trim() === "" ? undefined : Number(shown));
const several = (shown) => (number(shown) === 1 ? undefined : number(shown));

// The fields that the form shows, and how each is read from it.
const SETTINGS = { temperature: number, max_tokens: number };
const MEMBER = { model: words, name: words, prompt: words, samples: several, ...SETTINGS };
const AGGREGATOR = { model: words, ...SETTINGS };
const LAYER = { quorum: number, grace: number, timeout: number };
const LIMITS = { timeout: number, tokens: number, usd: number };
const SHOWN = {
  member: Object.keys(MEMBER),
  layer: ["proposers", ...Object.keys(LAYER), "select", "until"],
  strategy: ["strategy"],
  mixture: ["proposers", "layers", "aggregator", "route", "progressive", "limits"],
};

const NONE = { temperature: "", max_tokens: "" };

/** @param {string} [model] @param {Usual} [usual] @returns {Member} */
export const newMember = (model = "", usual = NONE) => ({
  model, name: "", prompt: "", samples: "", ...usual, given: {}, bare: true,
});
const none = () => ({ strategy: "", arguments: {}, given: null, more: [] });

/** @returns {LayerRecipe} */
export const newLayer = (members = [newMember()]) => ({
  members, quorum: "", grace: "", timeout: "", select: none(), until: none(), given: {}, bare: true,
});

/** @returns {Recipe} */
export const newRecipe = () => ({
  name: "", layers: [newLayer([newMember(), newMember(), newMember()])], answer: none(), model: "",
  ...NONE, route: none(), progressive: none(), seconds: "", tokens: "", usd: "", usual: NONE,
  given: {}, form: "list",
});

/** Choose another strategy, which has no arguments yet. @param {Chosen} chosen */
export function choose(chosen, strategy) {
  Object.assign(chosen, none(), { strategy, more: strategy ? chosen.more : [] });
}

/**
 * The settings of a part that the form does not show.
 * @param {object|string} given The data of the part.
 * @param {"member"|"layer"|"strategy"|"mixture"} part
 */
export const notShown = (given, part) =>
  Object.entries(typeof given === "string" ? {} : given)
    .filter(([name, value]) => !SHOWN[part].includes(name) && !isNothing(value))
    .map(([name]) => name);

// --- to the context ------------------------------------------------------------------------------

/** The data with what was edited; a field whose text is the same stays as it is. */
function edited(given, shown, fields) {
  const made = { ...given };
  for (const [name, read] of Object.entries(fields)) {
    if (shown[name] === text(given[name])) continue;
    put(made, name, read(shown[name]));
  }
  return made;
}

function put(made, name, value) {
  if (value !== undefined) made[name] = value;
  else if (!isNothing(made[name])) delete made[name];
}

const onlyHas = (made, name) => Object.keys(made).length === 1 && name in made;

function modelOf(part, fields) {
  const made = edited(part.given, part, fields);
  return part.bare && onlyHas(made, "model") ? made.model : made;
}

function strategyOf({ strategy, arguments: shown, given }, known, implied) {
  if (!strategy) return undefined;
  const made = typeof given === "string" ? { strategy } : { ...given };
  for (const { name, kind } of known?.find((one) => one.name === strategy)?.arguments ?? []) {
    const now = shown[name] ?? "";
    if (now === argumentText(made[name])) continue;
    put(made, name, now === "" ? undefined : argumentOf(now, kind, made[name]));
  }
  if (!given && strategy !== implied) return { strategy, ...made };
  return typeof given === "string" && onlyHas(made, "strategy") ? given : made;
}

function argumentOf(shown, kind, before) {
  if (kind === "flag") return shown === "true";
  if (["integer", "number"].includes(kind)) return Number(shown);
  // A model keeps its other settings.
  return typeof before?.model === "string" ? { ...before, model: shown } : shown;
}

function layerOf(layer, strategies) {
  const made = edited(layer.given, layer, LAYER);
  const members = layer.members.filter(({ model }) => model.trim());
  made.proposers = members.map((member) => modelOf(member, MEMBER));
  const select = strategyOf(layer.select, strategies.select);
  const alone = !isNothing(layer.given.select) && !Array.isArray(layer.given.select);
  put(made, "select", select && (alone ? select : [select, ...layer.select.more]));
  put(made, "until", strategyOf(layer.until, strategies.until));
  return layer.bare && onlyHas(made, "proposers") ? made.proposers : made;
}

function putLayers(made, recipe, layers) {
  const depth = layers.length + 1;
  const [first] = layers.map((layer) => JSON.stringify(layer));
  const repeats = recipe.form === "repeated" && layers.every((layer) => JSON.stringify(layer) === first);
  if (repeats && depth !== (made.layers ?? 2)) made.layers = depth;
  else if (!repeats && !isNothing(made.layers)) made.layers = depth;
  const one = repeats || (layers.length === 1 && isNothing(recipe.given.proposers));
  made.proposers = one ? layers[0] : layers;
}

function aggregatorOf(recipe, strategies) {
  if (recipe.answer.strategy) return strategyOf(recipe.answer, strategies.aggregator);
  const { aggregator } = recipe.given;
  const asData = typeof aggregator?.model === "string";
  const given = asData ? aggregator : typeof aggregator === "string" ? { model: aggregator } : {};
  return modelOf({ ...recipe, given, bare: !asData }, AGGREGATOR);
}

/**
 * The context of an assistant.
 * @param {Recipe} recipe
 * @param {object} strategies Those of the server's offer, by place.
 */
export function contextOf(recipe, strategies) {
  const made = { ...recipe.given };
  putLayers(made, recipe, recipe.layers.map((layer) => layerOf(layer, strategies)));
  made.aggregator = aggregatorOf(recipe, strategies);
  put(made, "route", strategyOf(recipe.route, strategies.route, "route"));
  put(made, "progressive", strategyOf(recipe.progressive, strategies.progressive));
  const { seconds: timeout, tokens, usd } = recipe;
  const limits = edited(made.limits ?? {}, { timeout, tokens, usd }, LIMITS);
  const limited = Object.keys(LIMITS).some((name) => !isNothing(limits[name]));
  put(made, "limits", limited ? limits : undefined);
  return made;
}

// --- and back ------------------------------------------------------------------------------------

const isLayer = (entry) => Array.isArray(entry) || (typeof entry === "object" && "proposers" in entry);
const argumentText = (value) => text(value?.model ?? value);
const shownOf = (given, fields) =>
  Object.fromEntries(Object.keys(fields).map((name) => [name, text(given[name])]));

function memberFrom(entry) {
  const bare = typeof entry === "string";
  const given = bare ? { model: entry } : entry;
  return { ...shownOf(given, MEMBER), given, bare };
}

/** @param {string} [implied] The strategy of data that name none. @returns {Chosen} */
function chosenFrom(value, implied = "") {
  const [given, ...more] = Array.isArray(value) ? value : [value];
  if (!given) return none();
  if (typeof given === "string") return { strategy: given, arguments: {}, given, more };
  const { strategy = implied, ...rest } = given;
  const shown = Object.entries(rest).map(([name, inner]) => [name, argumentText(inner)]);
  return { strategy, arguments: Object.fromEntries(shown), given, more };
}

function layerFrom(value) {
  const bare = Array.isArray(value);
  const given = bare ? { proposers: value } : value;
  return {
    ...shownOf(given, LAYER), members: given.proposers.map(memberFrom),
    select: chosenFrom(given.select), until: chosenFrom(given.until), given, bare,
  };
}

/**
 * A recipe of the context of an assistant, or of a preset's data.
 * @param {object} context
 * @param {string} [name]
 * @returns {Recipe}
 */
export function recipeOf(context, name = "") {
  // A preset's own fields, which no assistant has: its settings are in each of its models, too.
  const { temperature, max_tokens, name: _, description: __, ...given } = context;
  const usual = shownOf({ temperature, max_tokens }, SETTINGS);
  const recipe = { ...newRecipe(), name, given, usual, ...usual };
  const { proposers, aggregator, layers, route, progressive, limits } = given;
  if (!isNothing(proposers)) {
    recipe.form = Array.isArray(proposers) && proposers.some(isLayer) ? "list" : "repeated";
    const length = (layers ?? 2) - 1;
    const all = recipe.form === "list" ? proposers : Array.from({ length }, () => proposers);
    recipe.layers = all.map(layerFrom);
  }
  const isStrategy = typeof aggregator === "object" ? "strategy" in (aggregator ?? {}) : !text(aggregator).includes(":");
  if (aggregator && isStrategy) recipe.answer = chosenFrom(aggregator);
  else if (aggregator) {
    Object.assign(recipe, shownOf(typeof aggregator === "string" ? { model: aggregator } : aggregator, AGGREGATOR));
  }
  recipe.route = chosenFrom(route, "route");
  recipe.progressive = chosenFrom(progressive, "staircase");
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
