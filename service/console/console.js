// The console: asks the service's own API and draws what it answers. No framework, no build step, nothing from elsewhere.

const $ = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// ---- talking to the service ----------------------------------------------------------------------------------------

class Problem extends Error {}

function authorization() {
  const key = sessionStorage.getItem("rdrec-key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function call(method, path, body) {
  const headers = { Accept: "application/json", ...authorization() };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem("The service does not answer. Is it running?");
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok) return content;
  const retry = answer.headers.get("Retry-After");
  throw new Problem((content?.detail ?? `${answer.status} ${answer.statusText}`) + (retry ? ` (try again in ${retry} s)` : ""));
}

function say(text, bad = false) {
  $("message").textContent = text;
  $("message").classList.toggle("bad", bad);
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    say(error.message, true);
  }
}

// ---- user and history ----------------------------------------------------------------------------------------------

const state = { user: null, model: null, justAdded: null };

async function showHistory() {
  const answer = await call("GET", `/history?user_id=${encodeURIComponent(state.user)}`);
  const cards = answer.items.slice().reverse().map((item) =>
    element("li", { class: item.item_id === state.justAdded ? "card new" : "card" },
      element("span", {}, item.title ?? item.item_id),
      item.title ? element("span", { class: "muted" }, item.item_id) : null));
  $("history").replaceChildren(...cards);
  $("history-empty").hidden = cards.length > 0;
  $("history-empty").textContent = "Nothing is known of this user: popular items are recommended.";
  $("history-source").textContent = `${cards.length} items, from ${answer.history_source}${answer.degraded ? ", degraded" : ""}`;
}

async function openUser() {
  state.user = $("user").value.trim();
  state.justAdded = null;
  await showHistory();
  await ask();
}

$("user-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(openUser);
});

$("add-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    if (!state.user) throw new Problem("Open a user first.");
    const item = $("add-item").value.trim();
    await call("POST", "/interactions", { user_id: state.user, item_id: item });
    state.justAdded = item;
    $("add-item").value = "";
    await showHistory();
    await ask();
  });
});

function suggest(input, list, path, option) {
  let timer;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => attempt(async () => {
      const answer = await call("GET", `${path}?query=${encodeURIComponent(input.value)}&limit=12`);
      list.replaceChildren(...option(answer));
    }), 150);
  });
}

const userOptions = (answer) => answer.user_ids.map((id) => element("option", { value: id }));
suggest($("user"), $("users"), "/users", userOptions);
suggest($("add-item"), $("items"), "/items",
  (answer) => answer.items.map((item) => element("option", { value: item.item_id, label: item.title ?? item.item_id })));

// ---- catalogue -----------------------------------------------------------------------------------------------------

function itemPath() {
  const id = $("item-id").value.trim();
  if (!id) throw new Problem("Name an item by its id.");
  return `/items/${encodeURIComponent(id)}`;
}

async function changeItem(method, body) {
  const item = await call(method, itemPath(), body);
  const placed = item.known_to_model ? "the bundle knows it" : "placed by its words";
  $("item-told").textContent = `${item.title ?? item.item_id}: ${item.available ? "in stock" : "out of stock"}, ${placed}`
    + (item.is_live ? "." : "; this replica will answer so in a moment.");
  if (state.user) await ask();
}

$("item-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => changeItem("PUT", {
    title: $("item-title").value.trim() || null, brand: $("item-brand").value.trim() || null,
    categories: $("item-categories").value.split(",").map((name) => name.trim()).filter(Boolean) }));
});
for (const button of document.querySelectorAll("[data-available]")) {
  button.addEventListener("click", () => attempt(() => changeItem("PATCH", { available: button.dataset.available === "true" })));
}
suggest($("item-id"), $("catalogue-items"), "/items",
  (answer) => answer.items.map((item) => element("option", { value: item.item_id, label: item.title ?? item.item_id })));

// ---- asking --------------------------------------------------------------------------------------------------------

function question() {
  const kind = new FormData($("ask-form")).get("kind");
  const body = { user_id: state.user, n_items: Number($("n-items").value) };
  const candidates = $("candidates").value.split(/[\s,]+/).filter(Boolean);
  if (kind === "topn" && candidates.length) body.candidates = candidates;
  const prefer = $("prefer").value.trim();
  if (prefer) body.prefer = prefer;
  const where = $("where").value.trim();
  if (where) {
    try {
      body.where = JSON.parse(where);
    } catch {
      throw new Problem('The filter is no JSON; {"brand": "Acme"} would be right.');
    }
  }
  return { path: `/recommend/${kind}`, body };
}

// What is asked of the service: once, or twice side by side.
function variants() {
  switch ($("compare").value) {
    case "fusion": return [{ heading: "All signals", fusion: true }, { heading: "Model alone", fusion: false }];
    case "where": return [{ heading: "With the filter" }, { heading: "Without", where: undefined }];
    case "arms": return Object.keys(state.model.arms).map((arm) => ({ heading: `Arm ${arm}`, arm }));
    default: return [{ heading: null }];
  }
}

async function ask() {
  if (!state.user) throw new Problem("Open a user first.");
  const { path, body } = question();
  const asked = variants();
  const started = performance.now();
  const answers = await Promise.all(asked.map(({ heading, ...more }) => call("POST", path, { ...body, ...more })));
  const elapsed = Math.round(performance.now() - started);
  const named = answers.map((answer) => new Set(answer.items.map((item) => item.item_id)));
  const common = new Set([...named[0]].filter((id) => named.every((ids) => ids.has(id))));
  $("results").replaceChildren(...answers.map((answer, i) => listPanel(asked[i], answer, common)));
  say(`${answers[0].items.length} items in ${elapsed} ms${answers.length > 1 ? `, ${common.size} of them in both lists` : ""}`
    + (answers[0].unavailable_items.length ? `. Out of stock: ${answers[0].unavailable_items.join(", ")}` : "")
    + (body.prefer ? wishTold(answers) : ""));
}

function wishTold(answers) {
  return answers.some((answer) => answer.steered) ? `. Moved by: ${$("prefer").value.trim()}`
    : ". No item's text holds these words: the list is as without them";
}

// How the items were found, for people.
const FOUND_BY = { beam: "found by the model's search", exact: "every item was scored", candidates: "the best of the candidates",
  popularity: "nothing is known of this user: what most people buy", words: "found by the words that were typed",
  graph: "the model is away: by purchases and words alone" };
const SIGNALS = [["model", "Model", ""], ["graph", "Purchases", "graph"], ["text", "Words", "text"]];

function listPanel({ heading, arm }, answer, common) {
  const title = arm ? `${heading}: ${answer.model_version}, ${answer.score_mode}`
    : heading ?? (answer.strategy === "popularity" ? "Popular items" : "Recommended");
  const tags = [FOUND_BY[answer.strategy] ?? answer.strategy, `history: ${answer.history_source}`,
    ...(arm ? [] : [answer.score_mode, answer.model_version])];
  return element("section", { class: "panel", "aria-label": title },
    element("div", { class: "spread" }, element("h2", {}, title),
      answer.steered ? element("span", { class: "tag" }, "with your words") : null,
      answer.degraded ? element("span", { class: "tag bad" }, "degraded") : null),
    element("p", { class: "muted" }, tags.join(" · ")),
    element("ol", { class: "list" }, ...answer.items.map((item) => row(item, answer.items, common, arm))));
}

function row(item, items, common, arm) {
  const name = item.title ?? item.item_id;
  const button = (label, spoken, action) => element("button", { type: "button", "aria-expanded": "false", "aria-label": spoken,
    onclick: (event) => attempt(() => action(item, place, event.currentTarget, arm)) }, label);
  const place = element("li", {},
    element("span", { class: "rank", "aria-label": `rank ${item.rank}` }, String(item.rank)),
    element("span", {}, element("span", { class: "title" }, name), " ",
      item.title ? element("span", { class: "muted" }, item.item_id) : null, " ",
      common.has(item.item_id) ? null : element("span", { class: "tag only" }, "only here")),
    element("span", { class: "actions" }, chance(item), button("why", `why ${name}`, why), button("similar", `similar to ${name}`, similar)),
    bars(item, items));
  return place;
}

function chance(item) {
  const percent = 100 * item.score;
  return element("span", { class: "chance muted", title: `score ${item.score.toPrecision(3)}` },
    percent >= 1 ? `${Math.round(percent)} %` : "< 1 %");
}

// The signals that any item of the list has.
function bars(item, items) {
  return element("div", { class: "bars" }, ...SIGNALS
    .filter(([name]) => items.some((each) => typeof each.signals[name] === "number"))
    .flatMap(([name, label, kind]) => bar(label, item.signals[name], items.map((each) => each.signals[name]), kind)));
}

// A bar spans the list's own range: the best of the list is full, the worst keeps a visible stub.
function bar(label, value, all, kind) {
  const known = all.filter((each) => typeof each === "number");
  const says = typeof value === "number" ? `${label}: ${value.toFixed(3)}` : `${label}: says nothing`;
  const fill = element("i");
  const low = Math.min(...known);
  const span = Math.max(...known) - low;
  fill.style.width = typeof value !== "number" ? "0" : `${span > 0 ? 8 + (92 * (value - low)) / span : 100}%`;
  return [element("span", {}, label), element("span", { class: `bar ${kind}`, role: "img", "aria-label": says, title: says }, fill)];
}

async function similar(item, place, button, arm) {
  const open = place.querySelector(".near");
  if (open) {
    open.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const answer = await call("POST", "/recommend/similar", { item_ids: [item.item_id], n_items: 5, arm });
  const rows = answer.items.map((each) => element("li", {},
    element("span", { class: "rank" }, String(each.rank)),
    element("span", {}, each.title ?? each.item_id), chance(each), bars(each, answer.items)));
  place.append(element("div", { class: "near" },
    element("h3", {}, rows.length ? "Similar items" : "Neither purchases nor words name anything like it."),
    element("ol", { class: "list" }, ...rows)));
  button.setAttribute("aria-expanded", "true");
}

// One statement: what is said, by how many, and whose words it is.
function chip(statement) {
  const whose = statement.about === "user" ? "this user" : "buyers";
  return element("li", { class: `chip ${statement.polarity}`, title: statement.quote ?? "" },
    statement.text, element("span", { class: "muted" }, `${statement.count} of ${statement.total} reviews · ${whose}`));
}

async function why(item, place, button, arm) {
  const open = place.querySelector(".why");
  if (open) {
    open.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  const answer = await call("POST", "/explain", { user_id: state.user, item_id: item.item_id, arm });
  const evidence = answer.evidence.map((each) => each.title ?? each.item_id).join(" · ");
  const said = answer.statements.length ? element("ul", { class: "chips" }, ...answer.statements.map(chip)) : null;
  const lines = [["What reviews say", said], ["Worth knowing first", answer.caution],
    ["What this user likes, from their own reviews", answer.user_preference],
    ["What buyers praise in this item", answer.item_attributes], ["Bought before, and it speaks for this", evidence]];
  place.append(element("div", { class: "why" }, element("p", { class: "sentence" }, answer.explanation),
    element("dl", {}, ...lines.filter(([, content]) => content).flatMap(([term, content]) =>
      [element("dt", {}, term), element("dd", { class: content === answer.caution ? "caution" : "" }, content)]))));
  button.setAttribute("aria-expanded", "true");
}

$("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(ask);
});
$("ask-form").addEventListener("change", () => {
  document.querySelector(".candidates").hidden = new FormData($("ask-form")).get("kind") !== "topn";
  if (state.user) attempt(ask);
});
$("copy-curl").addEventListener("click", () => attempt(async () => {
  const { path, body } = question();
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  const key = sessionStorage.getItem("rdrec-key") ? ' -H "Authorization: Bearer $RDREC_API_KEY"' : "";
  const text = `curl -s ${location.origin}${path} -H 'Content-Type: application/json'${key} -d '${quoted}'`;
  await navigator.clipboard.writeText(text).catch(() => { throw new Problem(text); });
  say("Copied.");
}));

// ---- status --------------------------------------------------------------------------------------------------------

function showModel(model) {
  const facts = { Version: model.model_version, Created: model.created_at.replace("T", " "),
    Protocol: model.protocol, Labels: model.label_scheme,
    Users: model.n_users.toLocaleString("en"), Items: model.n_items.toLocaleString("en"),
    "Score modes": model.score_modes.join(", "), Strategy: model.strategy,
    "Text tasks": model.text_tasks.join(", ") || "none",
    ...Object.fromEntries(Object.entries(model.arms).map(
      ([arm, served]) => [`Arm ${arm}`, `${served.model_version}, ${served.score_mode}`])) };
  $("model").replaceChildren(...Object.entries(facts).flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, String(value))]));
  showTable($("metrics"), model.metrics, "The bundle carries none; rdrec evaluate before rdrec export adds them.");
  showTable($("fusion"), model.fusion ?? {}, "None: the model ranks alone; rdrec fuse before rdrec export adds them.");
  $("recipe").textContent = JSON.stringify(model.recipe, null, 2);
}

function showTable(place, values, otherwise) {
  const rows = Object.entries(values).map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value.toPrecision(4))));
  place.replaceChildren(rows.length ? element("table", {}, element("tbody", {}, ...rows))
    : element("p", { class: "muted" }, otherwise));
}

// One sample of /metrics: name -> [[labels, value], ...].
function parseMetrics(text) {
  const out = {};
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (found) (out[found[1]] ??= []).push([found[2] ?? "", Number(found[3])]);
  }
  return out;
}
const total = (sample, name, matching = "") =>
  (sample[name] ?? []).reduce((sum, [labels, value]) => (labels.includes(matching) ? sum + value : sum), 0);

const SERIES = [
  ["Requests a second", (now, before, seconds) =>
    (total(now, "rdrec_request_seconds_count") - total(before, "rdrec_request_seconds_count")) / seconds],
  ["Mean latency, ms", (now, before) => {
    const count = total(now, "rdrec_request_seconds_count") - total(before, "rdrec_request_seconds_count");
    return count ? (1000 * (total(now, "rdrec_request_seconds_sum") - total(before, "rdrec_request_seconds_sum"))) / count : 0;
  }],
  ["Queue depth", (now) => total(now, "rdrec_queue_depth")],
];
const charts = SERIES.map(([name, measure]) => {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 59 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", name);
  svg.append(line);
  const value = element("output", {}, "–");
  $("charts").append(element("figure", {}, svg, element("figcaption", {}, name, value)));
  return { measure, line, value, points: [] };
});

let before = null;
async function sampleMetrics() {
  if ($("view-status").hidden) return;
  const answer = await fetch("/metrics", { headers: authorization() }).catch(() => null);
  $("live-note").textContent = answer?.ok ? "every 2 s, the last two minutes" : "/metrics does not answer";
  if (!answer?.ok) return;
  const now = { at: performance.now(), sample: parseMetrics(await answer.text()) };
  if (before) {
    for (const chart of charts) {
      chart.points = [...chart.points, chart.measure(now.sample, before.sample, (now.at - before.at) / 1000)].slice(-60);
      const top = Math.max(...chart.points, 1e-9) * 1.1;
      const first = 60 - chart.points.length;
      chart.line.setAttribute("points", chart.points.map((y, x) => `${first + x},${98 - (96 * y) / top}`).join(" "));
      chart.value.textContent = chart.points.at(-1).toFixed(1);
    }
  }
  before = now;
}
setInterval(sampleMetrics, 2000);

// ---- start ---------------------------------------------------------------------------------------------------------

function route() {
  const view = location.hash === "#status" ? "status" : "recommend";
  for (const name of ["recommend", "status"]) $(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a[data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "status") sampleMetrics();
}
addEventListener("hashchange", route);

const bothArms = element("option", { value: "arms" }, "arm a and arm b");

async function start() {
  state.model = await call("GET", "/v1/model");
  $("version").textContent = `${state.model.model_version} · ${state.model.n_items.toLocaleString("en")} items`;
  if (Object.keys(state.model.arms).length > 1) $("compare").append(bothArms);
  else bothArms.remove();
  showModel(state.model);
  const known = await call("GET", "/users?limit=12");
  $("users").replaceChildren(...userOptions(known));
  if (!state.user && known.user_ids.length) {
    $("user").value = known.user_ids[0];
    await openUser();
  }
}
$("api-key").value = sessionStorage.getItem("rdrec-key") ?? "";
$("api-key").addEventListener("change", (event) => {
  sessionStorage.setItem("rdrec-key", event.target.value);
  attempt(start);
});
route();
attempt(start);
