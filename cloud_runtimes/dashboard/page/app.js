// What is shown stands in the address behind #, so that reload, back and links work. Text from outside only ever becomes
// text nodes: there is no HTML made here, and the page's policy forbids it.
import { metrics } from "./charts.js";
import { map } from "./map.js";
import { operations } from "./operations.js";
import { h, number } from "./parts.js";
import { logs, trace, traces } from "./views.js";

const view = document.getElementById("view");
const filters = document.getElementById("filters");
const trouble = document.getElementById("trouble");
const live = document.getElementById("live");
const done = document.getElementById("done");
const EVERY = 1000; // milliseconds between looks for something new
const SLOWLY = 2000; // of what no number tells that it is new
const MOVING = 10000; // of a span of time that ends now
const MOST = 1000; // rows
const AWAY = "The receiver does not answer; trying again.";

const severities = [["", "all"], ["5", "debug and above"], ["9", "info and above"], ["13", "warnings and errors"], ["17", "errors"]];
const ranges = [["", "all times"], ["5m", "last 5 min"], ["15m", "last 15 min"], ["1h", "last hour"], ["24h", "last 24 h"], ["between", "from – to"]];
const range = [["range", "Time", ranges], ["from", "From", "time"], ["to", "To", "time"]];
const service = ["service", "Service", "services"];
const attributes = ["attributes", "Attributes", "attributes"];
const tabs = {
  ...operations,
  traces: {
    title: "Traces", draw: traces, of: "spans",
    filters: [service, ["name", "Span name holds"], attributes, ["min", "At least, ms", "number"], ["errors", "Only errors", "check"], ...range],
  },
  logs: { title: "Logs", draw: logs, of: "log records", filters: [service, ["severity", "Severity", severities], ["text", "Text holds"], attributes, ...range] },
  metrics: { title: "Metrics", draw: metrics, filters: [service, ["name", "Name holds"], ...range], every: 3000 },
  map: { title: "Map", draw: map, of: "spans", filters: range, every: 5000 },
};

const state = { generation: -1, loaded: 0, drawn: null, asked: 0, limit: {}, open: new Set(), pressed: false, form: "", shown: [], changes: false };

// what allows changes comes once, behind #, which no server sees
const given = location.hash.match(/^#token=([\w-]+)$/);
if (given) {
  sessionStorage.setItem("token", given[1]);
  history.replaceState(null, "", location.pathname);
}

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [tab, ...rest] = path.split("/").map(decoded);
  if (tab === "trace" && rest[0]) return { tab: "traces", trace: rest[0], rest: [], query: new URLSearchParams() };
  return { tab: Object.hasOwn(tabs, tab) ? tab : state.shown[0] || "traces", trace: "", rest, query: new URLSearchParams(query) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function ask(path) {
  const response = await fetch(path);
  const found = await response.json();
  if (!response.ok) throw Object.assign(new Error(found.message || response.statusText), { status: response.status });
  return found;
}

/** Answers to several questions as one; what a component does not tell is absent, unless it tells nothing. */
async function all(paths) {
  const answers = await Promise.allSettled(paths.map(ask));
  const good = answers.filter((each) => each.status === "fulfilled").map((each) => each.value);
  if (!good.length) throw answers[0].reason;
  return Object.assign({}, ...good);
}

function said(text) {
  done.textContent = text;
  done.hidden = false;
  setTimeout(() => (done.hidden = true), 6000);
}

function say(text) {
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
}

// -- the filters ---------------------------------------------------------

function drawFilters(at) {
  const wanted = at.trace ? "" : at.tab;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${tabs[at.tab].tab || at.tab}`;
    if (chosen && tab.getAttribute("aria-selected") !== "true") tab.scrollIntoView({ block: "nearest", inline: "center" });
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) view.setAttribute("aria-labelledby", tab.id);
    const name = tab.id.slice(4);
    const kept = range.map(([key]) => [key, at.query.get(key)]).filter(([, value]) => value);
    if (!tabs[name].ask && !at.trace) tab.setAttribute("href", `#/${name}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`);
  }
  if (state.form !== wanted) {
    state.form = wanted;
    filters.replaceChildren(...(wanted ? tabs[wanted].filters.map(field) : []));
  }
  if (later) return; // what was just chosen is not in the address yet
  for (const input of filters.elements) {
    const value = at.query.get(input.name) || "";
    if (input.type === "checkbox") input.checked = value === "1";
    else if (input.type === "datetime-local") {
      input.closest("label").hidden = at.query.get("range") !== "between";
      if (input !== document.activeElement) input.value = local(value);
    } else if (input !== document.activeElement) input.value = value;
  }
}

function field([name, label, kind]) {
  if (kind === "check") return h("label", { class: "check" }, h("input", { type: "checkbox", name }), label);
  if (Array.isArray(kind)) {
    return h("label", {}, label, h("select", { name }, ...kind.map(([value, text]) => h("option", { value }, text))));
  }
  const more = { services: { list: "services" }, number: { type: "number", min: "0", step: "any" }, time: { type: "datetime-local", step: "1" },
    attributes: { class: "long", placeholder: "tier=free status!=ok size>100", spellcheck: "false" } }[kind];
  return h("label", {}, label, h("input", { type: "text", name, autocomplete: "off", ...more }));
}

/** A time of the address, which has its zone, as the browser's field has it. */
function local(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? "" : new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}

function valueOf(input) {
  if (input.type === "checkbox") return input.checked ? "1" : "";
  if (input.type !== "datetime-local") return input.value.trim();
  return input.value && filters.elements.range.value === "between" ? new Date(input.value).toISOString() : "";
}

let later = 0;
function filter() {
  clearTimeout(later);
  later = setTimeout(() => {
    later = 0;
    const at = route();
    for (const input of filters.elements) {
      const value = valueOf(input);
      if (value) at.query.set(input.name, value);
      else at.query.delete(input.name);
    }
    history.replaceState(null, "", `#/${at.tab}${at.query.size ? "?" + at.query : ""}`);
    load();
  }, 150);
}
filters.addEventListener("input", filter);
filters.addEventListener("change", filter); // how some programs fill forms
filters.addEventListener("submit", (event) => event.preventDefault());

// -- the view ------------------------------------------------------------

async function load() {
  const at = route();
  const asked = ++state.asked;
  drawFilters(at);
  const limit = state.limit[at.tab] || (at.tab === "traces" ? 100 : 200);
  const query = new URLSearchParams(at.query);
  query.set("limit", String(limit));
  let found;
  try {
    if (at.trace) found = await ask(`api/traces/${encodeURIComponent(at.trace)}`);
    else if (tabs[at.tab].ask) found = await all(tabs[at.tab].ask(at));
    else found = await ask(`api/${at.tab}?${query}`);
    state.loaded = Date.now();
    say("");
  } catch (error) {
    if (asked !== state.asked) return;
    if (error.status === 404) found = null;
    else {
      if (!error.status) state.generation = -1; // look again
      return say(error.status ? error.message : AWAY);
    }
  }
  if (asked !== state.asked) return;
  state.drawn = { at, found, limit };
  draw();
}

function draw() {
  if (!state.drawn) return;
  if (state.pressed || String(getSelection())) return void (state.late = true); // not under somebody's hands
  state.late = false;
  const { at, found, limit } = state.drawn;
  const key = document.activeElement?.closest("#view [data-key]")?.dataset.key;
  const tools = { open: state.open, redraw: draw, at, origin: location.origin, changes: state.changes && Boolean(sessionStorage.getItem("token")), topics: state.shown.includes("topics"), reload: load, said, failed: say };
  const made = at.trace ? trace(found, tools) : found === null ? [h("p", { class: "empty" }, "There is nothing of this name any more.")] : tabs[at.tab].draw(found, tools);
  if (!at.trace && found?.more) {
    const more = h("button", { type: "button", "data-key": "more" }, limit < MOST ? "Show more" : `The first ${MOST} are shown`);
    more.disabled = limit >= MOST;
    more.addEventListener("click", () => {
      state.limit[at.tab] = Math.min(MOST, limit * 3);
      load();
    });
    made.push(h("p", {}, more));
  }
  view.replaceChildren(...made);
  if (found?.searched) {
    const reach = `The newest ${number(found.searched)} ${tabs[at.tab].of} were searched. Choose an earlier time to look further back.`;
    view.prepend(h("p", { class: "dim reach" }, reach));
  }
  if (key) view.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  document.title = (at.trace && found?.spans.length ? `${found.spans[0].name} · ` : "") + "Cloud Runtimes";
}

addEventListener("pointerdown", () => (state.pressed = true), true);
for (const name of ["pointerup", "pointercancel", "dragend", "blur"]) {
  addEventListener(name, () => {
    state.pressed = false;
    setTimeout(() => state.late && draw()); // behind the click
  });
}

addEventListener("hashchange", () => {
  clearTimeout(later);
  later = 0;
  getSelection()?.removeAllRanges();
  state.open.clear();
  scrollTo(0, 0);
  load();
});

// -- keys ----------------------------------------------------------------

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const on = event.target;
  if (on.getAttribute?.("role") === "tab") {
    const all = [...document.querySelectorAll("[role=tab]")];
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = all[(all.indexOf(on) + step + all.length) % all.length];
    next.focus();
    next.click();
    event.preventDefault();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const all = [...view.querySelectorAll("[data-key]")];
    const here = all.indexOf(on.closest?.("[data-key]"));
    if (!all.length || (here < 0 && on !== document.body && on !== view)) return;
    all[Math.max(0, Math.min(all.length - 1, here < 0 ? 0 : here + (event.key === "ArrowDown" ? 1 : -1)))].focus();
    event.preventDefault();
  } else if (event.key === "Escape" && route().trace) {
    location.hash = "#/traces";
  }
});

// -- what is new ---------------------------------------------------------

async function look() {
  try {
    if (live.checked && !document.hidden) {
      const status = await ask("api/status");
      drawStatus(status);
      const at = route();
      const tab = tabs[at.tab];
      const since = Date.now() - state.loaded;
      const due = since >= (tab.every || (tab.ask ? SLOWLY : MOVING)) && (tab.ask || at.query.has("range"));
      const pause = tab.every || (at.query.has("attributes") ? SLOWLY : 0);
      const fresh = !tab.ask && status.generation !== state.generation && (since >= pause || state.generation < 0);
      if (trouble.textContent === AWAY) say("");
      if (live.checked && (due || fresh)) { // it may have been switched off meanwhile
        state.generation = status.generation;
        await load();
      }
    }
  } catch (error) {
    say(error.status ? error.message : AWAY);
    state.generation = -1; // it may come back with another database
  } finally {
    setTimeout(look, EVERY);
  }
}

function drawTabs(status) {
  const shown = Object.keys(tabs).filter((name) => tabs[name].title && (tabs[name].ask ? status.operations : status.telemetry));
  state.changes = status.changes;
  if (shown.join() === state.shown.join()) return;
  state.shown = shown;
  document.querySelector("nav").replaceChildren(...shown.map((name) =>
    h("a", { role: "tab", id: `tab-${name}`, href: `#/${name}`, "aria-controls": "view" }, tabs[name].title)));
  state.form = "";
  load();
}

function drawStatus(status) {
  drawTabs(status);
  const { signals, bytes, services } = status;
  if (!signals) return;
  const many = (value, one) => `${value.toLocaleString("en")} ${one}${value === 1 ? "" : "s"}`;
  const evicted = signals.traces.evicted + signals.logs.evicted + signals.metrics.evicted;
  const rejected = signals.traces.rejected + signals.logs.rejected + signals.metrics.rejected;
  document.getElementById("kept").textContent = [
    many(signals.traces.kept, "span"),
    many(signals.logs.kept, "log"),
    many(signals.metrics.kept, "point"),
    `${(bytes / 1048576).toFixed(1)} MiB`,
    ...(evicted ? [`${evicted.toLocaleString("en")} evicted`] : []),
    ...(rejected ? [`${rejected.toLocaleString("en")} rejected`] : []),
  ].join(" · ");
  const list = document.getElementById("services");
  if (list.children.length !== services.length || services.some((name, at) => list.children[at].value !== name)) {
    list.replaceChildren(...services.map((value) => h("option", { value })));
  }
}

document.addEventListener("visibilitychange", () => document.hidden || load());
look(); // which loads, once it knows what there is
