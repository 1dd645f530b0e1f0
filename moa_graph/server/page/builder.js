// The builder of mixtures: a form, the drawing beside it, and where the mixture goes.

import * as api from "/moa/api.js";
import { at, button, copy, download, el, say } from "/moa/dom.js";
import { drawingOf } from "/moa/drawing.js";
import { alsoSet, field, renumber, strategyFields } from "/moa/fields.js";
import { contextOf, missingIn, newLayer, newMember, newRecipe, notShown, recipeOf } from "/moa/recipe.js";
import { formWords, problemWords } from "/moa/words.js";

class Builder {
  /** @param {(id: string) => Promise<void>} saved Called with the assistant that was saved. */
  constructor(saved) {
    this.saved = saved;
    this.dialog = at("builder");
    this.recipe = newRecipe();
    this.offer = null;
    this.editing = null; // the assistant that is changed by saving
    this.opened = null; // the mixture that the builder was opened with, and what it edits
    this.start = ""; // what the recipe began with: "" is the mixture that was opened
  }

  /** Open it with the mixture of an assistant. @param {object|undefined} assistant */
  async open(assistant) {
    this.dialog.replaceChildren(el("p", { text: "Reading what this server offers …" }));
    this.dialog.showModal();
    try {
      this.offer ??= await api.offer();
    } catch (error) {
      this.dialog.replaceChildren(
        el("p", { role: "alert", text: problemWords(error) }),
        button("Close", () => {}, { class: "close" }),
      );
      return;
    }
    const own = assistant && assistant.metadata?.created_by !== "system" && assistant.graph_id === "mixture";
    const context = own ? { ...assistant.config?.configurable, ...assistant.context } : this.offer.presets[assistant?.graph_id];
    this.editing = own ? assistant.assistant_id : null;
    this.recipe = context ? recipeOf(context, own ? assistant.name : "") : newRecipe();
    this.opened = { recipe: this.recipe, editing: this.editing };
    this.start = "";
    this.#build();
  }

  #build() {
    renumber();
    const { recipe } = this;
    const { bounds } = this.offer;
    const close = button("Close", () => {}, { class: "close" });
    this.note = el("p", { class: "note", role: "status" });
    this.drawing = el("div", { class: "drawing", tabindex: "0", role: "group", "aria-label": "Drawing of the mixture" });
    this.code = el("div", { class: "code-out" });
    const form = el(
      "form",
      { class: "recipe" },
      this.#start(),
      this.#text("Name", recipe, "name", { placeholder: "such as panel-of-three" }),
      ...recipe.layers.map((layer, place) => this.#layer(layer, place)),
      recipe.layers.length + 1 < bounds.layers
        ? button("Add a layer", () => this.#change(() => {
            const copied = structuredClone(recipe.layers.at(-1)?.members ?? []);
            recipe.layers.push(newLayer(copied));
          }, `#layer-form-${recipe.layers.length} input`), { class: "add" })
        : null,
      this.#answer(),
      this.#limits(),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", () => this.#draw());
    this.dialog.replaceChildren(
      el("header", {}, el("h2", { id: "builder-name", text: "Build a mixture" }), close),
      el("datalist", { id: "offered-models" }, ...this.offer.models.map((model) => el("option", { value: model }))),
      el("div", { class: "building" }, form, el("div", { class: "result" }, this.drawing, this.#actions(), this.note, this.code)),
    );
    this.#draw();
  }

  // Change the form, and keep the focus where it is, or set it on what is new.
  #change(act, focused) {
    const { id } = document.activeElement;
    act();
    this.#build();
    const next = focused ? this.dialog.querySelector(focused) : at(id);
    (next ?? this.dialog.querySelector("form button")).focus();
  }

  #draw() {
    this.drawing.replaceChildren(drawingOf(this.recipe));
    this.code.replaceChildren();
    this.note.textContent = missingIn(this.recipe);
  }

  // --- the form -------------------------------------------------------------------------------

  #text(label, target, name, given = {}) {
    return field(label, { value: target[name], oninput: ({ target: input }) => (target[name] = input.value), ...given });
  }

  #model(label, target, name) {
    const any = this.offer.patterns.join(", ");
    return this.#text(label, target, name, {
      list: "offered-models", placeholder: "provider:model", spellcheck: "false",
      title: any ? `Allowed: ${any === "*" ? "any model" : any}` : "One of the list",
    });
  }

  #longest(target, given = {}) {
    const { tokens } = this.offer.bounds;
    return this.#text("Longest answer, tokens", target, "max_tokens", { type: "number", min: 1, max: tokens, ...given });
  }

  #start() {
    const names = Object.keys(this.offer.presets);
    const choice = el(
      "select",
      { id: "start-from" },
      el("option", { value: "", text: "this mixture" }),
      el("option", { value: "-", text: "an empty one" }),
      ...names.map((name) => el("option", { value: name, text: name })),
    );
    choice.addEventListener("change", () => {
      this.start = choice.value;
      this.#change(() => Object.assign(this, this.#startingWith(choice.value)));
    });
    choice.value = this.start;
    return el("div", { class: "field" }, el("label", { for: "start-from", text: "Start from" }), choice);
  }

  #startingWith(name) {
    if (!name) return this.opened;
    return { recipe: name === "-" ? newRecipe() : recipeOf(this.offer.presets[name]), editing: null };
  }

  #layer(layer, place) {
    const { bounds, strategies } = this.offer;
    const remove = this.recipe.layers.length > 1
      ? button("Remove the layer", () => this.#change(() => this.recipe.layers.splice(place, 1)), {
          class: "quiet", "aria-label": `Remove layer ${place + 1}`,
        })
      : null;
    return el(
      "fieldset",
      { class: "layer-form", id: `layer-form-${place}` },
      el("legend", { text: `Layer ${place + 1}` }),
      ...layer.members.map((member, row) => this.#member(layer, member, row)),
      el(
        "div",
        { class: "row" },
        layer.members.length < bounds.proposers
          ? button("Add a proposer", () => this.#change(() => layer.members.push(newMember("", this.recipe.usual)),
              `#layer-form-${place} .member:nth-of-type(${layer.members.length + 1}) input`), { class: "add" })
          : null,
        remove,
      ),
      el(
        "details",
        {
          open: Boolean(
            layer.quorum || layer.timeout || layer.grace || layer.select.strategy || layer.until.strategy ||
              notShown(layer.given, "layer").length,
          ),
        },
        el("summary", { text: "Waiting, selection, early exit" }),
        el(
          "div",
          { class: "grid" },
          this.#text("Quorum", layer, "quorum", { type: "number", min: 1, title: "How many proposals complete the layer" }),
          this.#text("Grace, seconds", layer, "grace", { type: "number", min: 0, step: "any", title: "What late proposers still have then" }),
          this.#text("Timeout, seconds", layer, "timeout", { type: "number", min: 0, step: "any" }),
        ),
        strategyFields("Selection", layer.select, strategies.select, "keep all proposals", () => this.#change(() => {})),
        strategyFields("Early exit", layer.until, strategies.until, "never", () => this.#change(() => {})),
        alsoSet(notShown(layer.given, "layer")),
      ),
    );
  }

  #member(layer, member, row) {
    const number = row + 1;
    return el(
      "div",
      { class: "member", role: "group", "aria-label": `Proposer ${number}` },
      el(
        "div",
        { class: "row" },
        this.#model(`Model ${number}`, member, "model"),
        this.#text("Samples", member, "samples", { type: "number", min: 1, max: this.offer.bounds.samples, placeholder: "1", class: "small" }),
        layer.members.length > 1
          ? button("✕", () => this.#change(() => layer.members.splice(row, 1)), {
              class: "quiet remove", "aria-label": `Remove proposer ${number}`,
            })
          : null,
      ),
      el(
        "details",
        {
          open: Boolean(
            member.name || member.prompt || member.temperature || member.max_tokens ||
              notShown(member.given, "member").length,
          ),
        },
        el("summary", { text: "Name and role" }),
        el(
          "div",
          { class: "grid" },
          this.#text("Name", member, "name"),
          this.#text("Temperature", member, "temperature", { type: "number", min: 0, max: 2, step: "any" }),
          this.#longest(member),
        ),
        this.#text("Role", member, "prompt", { placeholder: "such as: Look for errors.", area: true }),
        alsoSet(notShown(member.given, "member")),
      ),
    );
  }

  #answer() {
    const { recipe } = this;
    const { strategies } = this.offer;
    return el(
      "fieldset",
      {},
      el("legend", { text: "Answer" }),
      strategyFields("Made by", recipe.answer, strategies.aggregator, "a synthesis of one model", () => this.#change(() => {})),
      recipe.answer.strategy
        ? null
        : el(
            "div",
            { class: "row" },
            this.#model("Aggregator", recipe, "model"),
            this.#text("Temperature", recipe, "temperature", { type: "number", min: 0, max: 2, step: "any", class: "small" }),
            this.#longest(recipe, { class: "small" }),
          ),
    );
  }

  #limits() {
    const { recipe } = this;
    const { strategies } = this.offer;
    return el(
      "fieldset",
      {},
      el("legend", { text: "The run" }),
      strategyFields("First pass", recipe.route, strategies.route, "none: always ask the proposers", () => this.#change(() => {})),
      strategyFields("Streaming", recipe.progressive, strategies.progressive, "layer after layer", () => this.#change(() => {})),
      el(
        "div",
        { class: "grid" },
        this.#text("Most seconds", recipe, "seconds", { type: "number", min: 0, step: "any" }),
        this.#text("Most tokens", recipe, "tokens", { type: "number", min: 1, max: this.offer.bounds.tokens }),
        this.#text("Most dollars", recipe, "usd", { type: "number", min: 0, step: "any" }),
      ),
      alsoSet(notShown(recipe.given, "mixture")),
    );
  }

  // --- where it goes -----------------------------------------------------------------------------

  #actions() {
    return el(
      "div",
      { class: "row" },
      button("Save as an assistant", () => this.#save(null), { class: "main" }),
      this.editing ? button("Save the changes", () => this.#save(this.editing)) : null,
      button("TOML", () => this.#export("toml", "toml")),
      button("Python", () => this.#export("python", "py")),
    );
  }

  async #told(act) {
    const missing = missingIn(this.recipe);
    if (missing) {
      this.note.textContent = missing;
      return;
    }
    try {
      await act(contextOf(this.recipe, this.offer.strategies), this.recipe.name.trim());
    } catch (error) {
      this.note.textContent = formWords(error);
    }
  }

  #save(id) {
    return this.#told(async (context, name) => {
      const own = name || "My mixture";
      const { assistant_id } = id
        ? await api.updateAssistant(id, own, context)
        : await api.createAssistant(own, context);
      await this.saved(assistant_id);
      say(`The assistant ${own} is saved.`);
      this.dialog.close();
    });
  }

  #export(kind, end) {
    return this.#told(async (context, name) => {
      const own = name || "mixture";
      const text = (await api.exported(own, context))[kind];
      const copying = button("Copy", () => copy(text, copying));
      this.code.replaceChildren(
        el("div", { class: "row" }, copying, button("Save", () => download(`${own}.${end}`, "text/plain", text))),
        el("pre", { tabindex: "0", text, "aria-label": kind === "toml" ? "TOML" : "Python" }),
      );
      this.note.textContent = "";
    });
  }
}

/**
 * Let the reader build mixtures.
 * @param {() => object|undefined} chosen The assistant that is chosen on the page.
 * @param {(id: string) => Promise<void>} saved Called with the assistant that was saved.
 */
export function offerBuilder(chosen, saved) {
  const builder = new Builder(saved);
  at("build").addEventListener("click", () => builder.open(chosen()));
}
