// What is shown stands in the address behind #, so that reload, back and links work. Text from outside only ever becomes
// text nodes: there is no HTML made here, and the page's policy forbids it.
import { h, logs, metrics, trace, traces } from "./views.js";

const view = document.getElementById("view");
const filters = document.getElementById("filters");
const trouble = document.getElementById("trouble");
const live = document.getElementById("live");
const EVERY = 1000; // milliseconds between looks for something new
const MOST = 1000; // rows

const severities = [["", "all"], ["5", "debug and above"], ["9", "info and above"], ["13", "warnings and errors"], ["17", "errors"]];
const tabs = {
  traces: {
    draw: traces,
    filters: [["service", "Service", "services"], ["name", "Span name holds"], ["min", "At least, ms", "number"], ["errors", "Only errors", "check"]],
  },
  logs: {
    draw: logs,
    filters: [["service", "Service", "services"], ["severity", "Severity", severities], ["text", "Text holds"]],
  },
  metrics: { draw: metrics, filters: [["service", "Service", "services"], ["name", "Name holds"]] },
};

const state = { generation: -1, drawn: null, asked: 0, limit: {}, open: new Set(), pressed: false, form: "" };

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [tab, id] = path.split("/");
  if (tab === "trace" && id) return { tab: "traces", trace: id, query: new URLSearchParams() };
  return { tab: tab in tabs ? tab : "traces", trace: "", query: new URLSearchParams(query) };
}

async function ask(path) {
  const response = await fetch(path);
  const found = await response.json();
  if (!response.ok) throw Object.assign(new Error(found.message || response.statusText), { status: response.status });
  return found;
}

function say(text) {
  if (trouble.textContent !== text) trouble.textContent = text;
  trouble.hidden = !text;
}

// -- the filters ---------------------------------------------------------

function drawFilters(at) {
  const wanted = at.trace ? "" : at.tab;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${at.tab}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) view.setAttribute("aria-labelledby", tab.id);
  }
  if (state.form !== wanted) {
    state.form = wanted;
    filters.replaceChildren(...(wanted ? tabs[wanted].filters.map(field) : []));
  }
  if (later) return; // what was just chosen is not in the address yet
  for (const input of filters.elements) {
    const value = at.query.get(input.name) || "";
    if (input.type === "checkbox") input.checked = value === "1";
    else if (input !== document.activeElement) input.value = value;
  }
}

function field([name, label, kind]) {
  if (kind === "check") return h("label", { class: "check" }, h("input", { type: "checkbox", name }), label);
  if (Array.isArray(kind)) {
    return h("label", {}, label, h("select", { name }, ...kind.map(([value, text]) => h("option", { value }, text))));
  }
  const more = kind === "services" ? { list: "services" } : kind === "number" ? { min: "0", step: "any" } : {};
  return h("label", {}, label, h("input", { type: kind === "number" ? "number" : "text", name, autocomplete: "off", ...more }));
}

let later = 0;
function filter() {
  clearTimeout(later);
  later = setTimeout(() => {
    later = 0;
    const at = route();
    for (const input of filters.elements) {
      const value = input.type === "checkbox" ? (input.checked ? "1" : "") : input.value.trim();
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
    found = await ask(at.trace ? `/api/traces/${encodeURIComponent(at.trace)}` : `/api/${at.tab}?${query}`);
    say("");
  } catch (error) {
    if (asked !== state.asked) return;
    if (error.status === 404) found = null;
    else return say(error.status ? error.message : "The receiver does not answer; trying again.");
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
  const tools = { open: state.open, redraw: draw, at, origin: location.origin };
  const made = at.trace ? trace(found, tools) : tabs[at.tab].draw(found, tools);
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
  if (key) view.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
  document.title = (at.trace && found?.spans.length ? `${found.spans[0].name} · ` : "") + "Telemetry";
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
      const status = await ask("/api/status");
      say("");
      drawStatus(status);
      if (live.checked && status.generation !== state.generation) { // it may have been switched off meanwhile
        state.generation = status.generation;
        await load();
      }
    }
  } catch (error) {
    say(error.status ? error.message : "The receiver does not answer; trying again.");
    state.generation = -1; // it may come back with another database
  } finally {
    setTimeout(look, EVERY);
  }
}

function drawStatus({ signals, bytes, services }) {
  const number = (value, one) => `${value.toLocaleString("en")} ${one}${value === 1 ? "" : "s"}`;
  const evicted = signals.traces.evicted + signals.logs.evicted + signals.metrics.evicted;
  const rejected = signals.traces.rejected + signals.logs.rejected + signals.metrics.rejected;
  document.getElementById("kept").textContent = [
    number(signals.traces.kept, "span"),
    number(signals.logs.kept, "log"),
    number(signals.metrics.kept, "point"),
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
load();
look();
