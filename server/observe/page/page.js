// Asks the API, and shows what it says. The address's fragment says what is looked at: #model/NAME or #layer/NAME.

import { channelChart, digits, lineChart } from "./chart.js";

const INTERVAL_MS = 2000;
const find = (id) => document.getElementById(id);

// An element; children that are strings become text, whatever is in them.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// ---- What is looked at

const view = { begin: 0, model: null, layer: null };

function readAddress() {
  const parts = /^#(model|layer)\/(.+)$/.exec(window.location.hash);
  if (parts === null) return;
  let name;
  try {
    name = decodeURIComponent(parts[2]);
  } catch {
    return;
  }
  const layer = parts[1] === "layer" ? name : null;
  if (layer !== view.layer) view.begin = 0;
  view.layer = layer;
  view.model = layer !== null && layer.includes("/") ? layer.slice(0, layer.indexOf("/") + 1) : name;
}

const modelLink = (name) => `#model/${encodeURIComponent(name)}`;
const layerLink = (name) => `#layer/${encodeURIComponent(name)}`;
const pathOf = (name) => name.replace(/\/$/, "").split("/").map(encodeURIComponent).join("/");

// ---- Asking

async function ask(path) {
  const reply = await fetch(path, { signal: AbortSignal.timeout(15000) });
  const text = await reply.text();
  if (reply.ok) return { text, data: JSON.parse(text) };
  let message = `${reply.status} ${reply.statusText}`;
  try {
    message = JSON.parse(text).error;
  } catch {
    // Not from the API: the status says what there is to say.
  }
  throw new Error(message);
}

function tellProblem(message) {
  const place = find("problem");
  if (place.textContent !== message) place.textContent = message;
  place.hidden = message === "";
}

// What a part was last made of. Made anew only when that changes, so that focus and selection stay where they are.
const shown = new Map();
function show(part, text, make) {
  if (shown.get(part) === text) return;
  shown.set(part, text);
  const focused = document.activeElement?.getAttribute("href");
  make();
  if (focused && !document.activeElement?.getAttribute("href")) {
    [...document.links].find((link) => link.getAttribute("href") === focused)?.focus();
  }
}

// ---- Server and models

function duration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, name] = units.find(([unit]) => seconds >= unit) ?? [1, "s"];
  return `${Math.max(0, Math.floor(seconds / size))} ${name}`;
}

function timeElement(time) {
  const ago = (Date.now() - Date.parse(time)) / 1000;
  return element("time", { datetime: time, title: time, "data-time": time }, `${duration(ago)} ago`);
}

// Texts that age while nothing changes.
function ageTimes() {
  for (const time of document.querySelectorAll("[data-time]")) {
    const text = `${duration((Date.now() - Date.parse(time.dataset.time)) / 1000)} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}

function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function bytes(count) {
  const power = Math.min(Math.floor(Math.log2(Math.max(count, 1)) / 10), 4);
  return `${Number((count / 1024 ** power).toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function showServer(server) {
  const device = server.devices.length > 0 ? server.devices[0].name : "reference engine";
  find("server").textContent = `${server.version} on ${device}, ${server.num_sessions} sessions, ${bytes(server.state_bytes)} of ` +
    `${bytes(server.max_state_bytes)} for state, up ${duration((Date.now() - Date.parse(server.start_time)) / 1000)}` +
    (server.is_draining ? ", DRAINING" : "");
}

function showModels(models) {
  find("empty").hidden = models.length > 0;
  find("models").replaceChildren(...models.map((model) => {
    const modes = Object.entries(model.modes).map(([mode, count]) => `${count} ${mode}`).join(", ");
    return element("li", {}, element("a", {
      href: model.is_session ? layerLink(model.name) : modelLink(model.name),
      "aria-current": model.name === view.model ? "true" : null,
    }, model.name, element("span", { class: "quiet" }, model.is_session ? modes : `${counted(model.num_layers, "layer")}: ${modes}`)));
  }));
}

// ---- The ranking of a model

const words = (name) => name.toLowerCase().replaceAll("_", " ");

function verdictElement(layer) {
  const good = layer.verdict === "HEALTHY";
  const quiet = ["NO_EVIDENCE", "NOT_TRACKED"].includes(layer.verdict);
  const cause = layer.main_cause !== null && !good && !quiet ? `: ${words(layer.main_cause)}` : "";
  return element("span", { class: good ? "good" : quiet ? "quiet" : "bad" }, words(layer.verdict) + cause);
}

function barElement(value, largest) {
  const bar = element("span", { class: "bar", "aria-hidden": "true" });
  const share = largest > 0 && Number.isFinite(value) ? Math.min(Math.abs(value) / largest, 1) : 0;
  bar.style.width = `${(share * 60).toFixed(1)}%`;
  return element("span", { class: "bar-cell" }, bar, digits(value));
}

function showModel(model) {
  find("model").hidden = false;
  find("model-title").textContent = model.name;
  const left = model.num_left_out > 0 ? ` The ${model.num_left_out} that drifted least are left out.` : "";
  find("model-note").textContent = `${counted(model.num_layers, "layer")}.${left}`;
  const largest = Math.max(...model.layers.map((layer) => layer.drift ?? 0));
  const prefix = model.name.endsWith("/") ? model.name : "";
  document.querySelector("#ranking tbody").replaceChildren(...model.layers.map((layer) => {
    const flagged = Object.entries(layer.flags).map(([flag, count]) => `${count} ${words(flag)}`).join(", ");
    const text = layer.name.startsWith(prefix) ? layer.name.slice(prefix.length) : layer.name;
    return element("tr", { "aria-current": layer.name === view.layer ? "true" : null },
      element("th", { scope: "row" }, element("a", { href: layerLink(layer.name) }, text)),
      element("td", {}, barElement(layer.drift, largest)),
      element("td", { class: "number" }, digits(layer.relative_gap)),
      element("td", {}, verdictElement(layer)),
      element("td", {}, flagged || "none"),
      element("td", {}, layer.mode),
      element("td", { class: "number" }, String(layer.num_features)),
      element("td", { class: "number" }, String(layer.num_batches_tracked)),
      element("td", {}, timeElement(layer.update_time)));
  }));
}

// ---- One layer

function showCauses(layer) {
  const largest = Math.max(...layer.causes.map((cause) => Math.abs(cause.share)), 0);
  find("causes").replaceChildren(...layer.causes.filter((cause) => cause.share !== null).map((cause) =>
    element("li", {}, words(cause.cause), barElement(cause.share, largest))));
}

const EVIDENCE = { LAST_BATCH: "newest batch", OBSERVED: "what was observed", SHADOW: "SHADOW's batches" };

function showChannels(layer) {
  const { channels } = layer;
  const end = channels.begin + channels.channel.length;
  const order = channels.order === "drift" ? "most drifted first" : "in order";
  find("range").textContent = `${channels.begin + 1} to ${end} of ${layer.num_features}, ${order}`;
  find("previous").disabled = channels.begin === 0;
  find("next").disabled = end >= layer.num_features;
  const apart = channels.drift.filter((drift) => drift > 1).length;
  const label = `Running mean and standard deviation of ${channels.channel.length} channels beside ${EVIDENCE[layer.evidence] ?? "nothing else"}; ` +
    `${apart} lie more than one deviation apart. The table below has the numbers.`;
  const { picture, numBeyond } = channelChart(channels, label);
  find("channels").replaceChildren(picture);
  find("evidence").textContent = EVIDENCE[layer.evidence] ?? "newest batch";
  find("beyond").textContent = numBeyond > 0 ? ` ${numBeyond} channels reach beyond the picture: see the table.` : "";
  document.querySelector("#values tbody").replaceChildren(...channels.channel.map((channel, i) =>
    element("tr", {}, element("th", { scope: "row" }, String(channel)),
      ...["running_mean", "running_std", "batch_mean", "batch_std", "drift", "weight", "bias"].map((name) =>
        element("td", { class: "number" }, digits(channels[name][i]))))));
}

function showFlags(layer) {
  find("flags").hidden = layer.flagged.length === 0;
  find("flags").querySelector("ul").replaceChildren(...layer.flagged.map((entry) =>
    element("li", {}, `Channel ${entry.channel}: ${entry.flags.map(words).join(", ")}`)));
}

function showHistory(layer) {
  const points = layer.history;
  find("history").hidden = points.length < 2;
  const gaps = points.filter((point) => point.relative_gap !== null).map((point) => [point.update, point.relative_gap]);
  const replaced = points.filter((point) => point.count === 0).map((point) => point.update);
  const label = `Evaluation's output less training's at ${gaps.length} batches, the newest ${digits(gaps.at(-1)?.[1])}; ` +
    `statistics replaced ${replaced.length} times. The table below has the numbers.`;
  find("past").replaceChildren(lineChart(gaps, replaced, label, (update) => `batch ${update}`));
  const median = (quantiles) => digits(quantiles?.median);
  const deviation = (quantiles) => digits(quantiles === null ? null : Math.sqrt(quantiles.median));
  find("history").querySelector("tbody").replaceChildren(...[...points].reverse().map((point) =>
    element("tr", {}, element("th", { scope: "row" }, String(point.update)),
      element("td", {}, timeElement(point.time), point.count === 0 ? ", replaced" : ""),
      ...[digits(point.relative_gap), median(point.running_mean), median(point.batch_mean),
        deviation(point.running_variance), deviation(point.batch_variance), String(point.generation)].map((text) =>
        element("td", { class: "number" }, text)))));
}

function showFacts(layer) {
  const facts = { ...layer.config, "mode": layer.mode, "generation": layer.generation, "uid": layer.uid,
    "created": layer.create_time, "updated": layer.update_time, "judged on": EVIDENCE[layer.evidence] ?? "nothing", "values a channel of that": layer.batch_count,
    "snapshots": layer.snapshots.map((snapshot) => snapshot.name).join(", ") || "none" };
  for (const [key, value] of Object.entries(layer.labels)) facts[`label ${key}`] = value;
  find("facts").querySelector("dl").replaceChildren(...Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", {}, name.replaceAll("_", " ")), element("dd", {}, String(value ?? "–"))]));
}

function showLayer(layer) {
  find("layer").hidden = false;
  find("layer-title").textContent = layer.name;
  find("verdict").replaceChildren(verdictElement(layer),
    ` Drift ${digits(layer.drift)}, evaluation less training ${digits(layer.relative_gap)} of the weight.`);
  find("explanation").textContent = layer.explanation;
  find("advice").textContent = layer.advice === "" ? "" : `What to do: ${layer.advice}`;
  showCauses(layer);
  showChannels(layer);
  showFlags(layer);
  showHistory(layer);
  showFacts(layer);
}

// ---- Refreshing

let round = 0;

// Shows all that is looked at as of now; a later call wins over what an earlier one is still waiting for.
async function refresh() {
  const mine = ++round;
  try {
    const models = await ask("api/models");
    if (mine !== round) return;
    showServer(models.data.server);
    if (view.model === null && models.data.models.length > 0) view.model = models.data.models[0].name;
    show("models", JSON.stringify([models.data.models, view.model]), () => showModels(models.data.models));
    if (view.model === null) {
      find("model").hidden = find("layer").hidden = true;
      return tellProblem("");
    }
    const model = await ask(`api/models/${pathOf(view.model)}`);
    if (mine !== round) return;
    const worst = model.data.layers.length > 0 ? model.data.layers[0].name : null;
    const name = view.layer ?? worst;
    show("model", model.text + view.layer, () => showModel(model.data));
    if (name !== null) {
      const layer = await ask(`api/sessions/${pathOf(name)}?order=${find("order").value}&count=${find("count").value}` +
        `&begin=${view.begin}`);
      if (mine !== round) return;
      show("layer", layer.text, () => showLayer(layer.data));
    }
    ageTimes();
    tellProblem("");
  } catch (error) {
    if (mine === round) tellProblem(`Not up to date: ${error.message}`);
  }
}

async function refreshForever() {
  if (find("refresh").checked && !document.hidden) await refresh();
  window.setTimeout(refreshForever, INTERVAL_MS);
}

function turn(by) {
  view.begin = Math.max(0, view.begin + by * Number(find("count").value));
  refresh();
}

window.addEventListener("hashchange", () => {
  readAddress();
  refresh().then(() => {
    find("status").textContent = `Showing ${view.layer ?? view.model}`;
  });
});
find("previous").addEventListener("click", () => turn(-1));
find("next").addEventListener("click", () => turn(1));
for (const id of ["order", "count"]) {
  find(id).addEventListener("change", () => {
    view.begin = 0;
    refresh();
  });
}
readAddress();
refreshForever();
