// Runs the script of a page on a stand-in for the browser, which records what the script does.
// Input: {script, url, codes, fields, answer, steps}, steps being "submit" or {"hash": "#…"}.

import { readFileSync } from "node:fs";
import vm from "node:vm";

const { script, url, codes, fields, answer, steps } = JSON.parse(readFileSync(0, "utf8"));
const listeners = { window: {}, form: {} };
const requests = [];
const elements = Object.fromEntries(
  Object.entries(fields).map(([name, value]) => [
    name,
    { value, attributes: {}, focus() {}, setAttribute(key, to) { this.attributes[key] = to; } },
  ]),
);
const button = { disabled: false };
const form = {
  hidden: true,
  elements: { namedItem: (name) => elements[name] },
  querySelector: () => button,
  getAttribute: () => "where-the-form-goes",
  addEventListener: (name, listener) => (listeners.form[name] = listener),
};
const outcome = {
  code: null,
  replaceChildren(words) { this.code = words?.code ?? null; },
  querySelector() { return { textContent: this.code }; },
  focus() {},
};
const templates = Object.entries(codes).map(([code, isFinal]) => ({
  dataset: isFinal ? { code, final: "" } : { code },
  content: { cloneNode: () => ({ code }) },
}));
const location = {
  href: url,
  get hash() { return new URL(this.href).hash; },
};
const context = {
  URL, URLSearchParams, JSON, location, String,
  navigator: { language: "de-CH" },
  document: {
    title: "",
    getElementById: (id) => (id === "form" ? form : outcome),
    querySelectorAll: () => templates,
  },
  history: { replaceState: (state, unused, to) => (location.href = String(to)) },
  addEventListener: (name, listener) => (listeners.window[name] = listener),
  fetch: async (address, options) => {
    requests.push({ address, ...options, body: JSON.parse(options.body), wasDisabled: button.disabled });
    if (answer === null) throw new TypeError("network");
    return { ok: answer.ok, json: async () => answer.json };
  },
};

vm.runInNewContext(`"use strict";${script}`, context);
for (const step of steps) {
  if (step === "submit") {
    await listeners.form.submit({ preventDefault() {} });
  } else {
    location.href = new URL(step.hash, location.href).href;
    await listeners.window.hashchange();
  }
}
console.log(
  JSON.stringify({
    requests,
    outcome: outcome.code,
    url: location.href,
    isFormHidden: form.hidden,
    isButtonDisabled: button.disabled,
    token: elements.token?.value ?? null,
  }),
);
