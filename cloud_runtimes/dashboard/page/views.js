// What each signal looks like: functions from an answer of the receiver to elements.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; what is text becomes text, never HTML. */
export function h(tag, attributes, ...children) {
  const made = tag === "svg" || tag === "path" || tag === "circle" || tag === "title" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function style(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
  return element;
}

/** A hue for a service, always the same. */
function hue(text) {
  let sum = 7;
  for (const each of text) sum = (sum * 31 + each.codePointAt(0)) % 100003;
  return String((sum * 47) % 300 + 30); // not red, which means an error
}

const dot = (service) => style(h("span", { class: "dot", "aria-hidden": "true" }), { "--hue": hue(service) });

export function duration(nanoseconds) {
  const short = (value, unit) => `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ${unit}`;
  if (nanoseconds < 1e3) return `${nanoseconds} ns`;
  if (nanoseconds < 1e6) return short(nanoseconds / 1e3, "µs");
  if (nanoseconds < 1e9) return short(nanoseconds / 1e6, "ms");
  if (nanoseconds < 60e9) return short(nanoseconds / 1e9, "s");
  const seconds = Math.round(nanoseconds / 1e9);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function time(nanoseconds) {
  const at = new Date(Number(BigInt(nanoseconds) / 1000000n));
  if (Number.isNaN(at.getTime())) return { text: "?", title: nanoseconds };
  const two = (value, digits = 2) => String(value).padStart(digits, "0");
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return { text: at.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`, title: `${day} ${clock}` };
}

function when(nanoseconds, attributes = {}) {
  const { text, title } = time(nanoseconds);
  return h("td", { class: "mono", title, ...attributes }, text);
}

const number = (value, digits = 6) => new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function pairs(values) {
  const list = h("dl");
  for (const [name, value] of Object.entries(values)) list.append(h("dt", {}, name), h("dd", {}, shown(value)));
  return list;
}

function part(title, values) {
  return values && Object.keys(values).length ? [h("h3", {}, title), pairs(values)] : [];
}

function about(source) {
  const scope = { ...(source.scope ? { name: source.scope } : {}), ...(source.version ? { version: source.version } : {}), ...source.scope_attributes };
  return [...part("Scope", scope), ...part("Resource", source.resource)];
}

function empty(what, tools) {
  if (tools.at.query.size) return [h("p", { class: "empty" }, `No ${what} match these filters.`)];
  return [
    h("p", { class: "empty" }, `No ${what} yet. Applications send them here when this is set:`,
      h("code", {}, `OTEL_EXPORTER_OTLP_ENDPOINT=${tools.origin}`)),
  ];
}

function table(columns, rows) {
  const head = columns.map(([text, width, kind]) => style(h("th", { scope: "col", class: kind }, text), width ? { width } : {}));
  return h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
}

// -- traces --------------------------------------------------------------

export function traces(found, tools) {
  if (!found.traces.length) return empty("traces", tools);
  const rows = found.traces.map((each) => {
    const link = h("a", { href: `#/trace/${each.trace}`, "data-key": each.trace }, each.name || "(no name)");
    const row = h("tr", {},
      when(each.start),
      h("td", { class: "narrow", title: each.service }, dot(each.service), each.service, each.services > 1 && h("span", { class: "dim" }, ` +${each.services - 1}`)),
      h("td", { title: each.name }, link, !each.rooted && h("span", { class: "dim", title: "Its root span has not come" }, " (no root)")),
      h("td", { class: "number" }, duration(each.duration)),
      h("td", { class: "number narrow" }, each.spans.toLocaleString("en")),
      h("td", { class: each.errors ? "number bad" : "number dim" }, each.errors ? each.errors.toLocaleString("en") : "–"));
    row.addEventListener("click", (event) => event.target.closest("a") || (location.hash = link.hash));
    return row;
  });
  const columns = [["Start", "12rem"], ["Service", "20%", "narrow"], ["Trace"], ["Duration", "7rem", "number"], ["Spans", "5rem", "number narrow"], ["Errors", "5rem", "number"]];
  return [table(columns, rows)];
}

export function trace(found, tools) {
  const back = h("p", {}, h("a", { href: "#/traces" }, "← All traces"));
  if (!found || !found.spans.length) return [back, h("p", { class: "empty" }, "There is no such trace. The oldest are evicted.")];
  const root = found.spans[0];
  const failed = found.spans.filter((span) => span.status === "error").length;
  const services = new Set(found.spans.map((span) => span.service));
  const count = (value, one) => `${value.toLocaleString("en")} ${one}${value === 1 ? "" : "s"}`;
  const facts = [time(found.start).title, duration(found.duration), count(found.spans.length + found.hidden, "span"), count(services.size, "service")];
  const whole = Math.max(1, found.duration);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((at) => h("span", {}, at ? duration(Math.round(whole * at)) : "0"));
  return [
    back,
    h("h2", {}, root.name || "(no name)"),
    h("p", { class: "dim" }, facts.join(" · "), failed > 0 && h("span", { class: "bad" }, ` · ${count(failed, "error")}`),
      " · ", h("a", { href: `#/logs?trace=${found.trace}` }, "Logs"), " · ", h("code", {}, found.trace)),
    h("div", { class: "waterfall" },
      h("div", { class: "scale" }, h("span", {}, "Span"), h("span", { class: "ticks" }, ...ticks)),
      ...found.spans.flatMap((span) => line(span, found, whole, tools))),
    found.hidden > 0 && h("p", { class: "dim" }, `${count(found.hidden, "later span")} not shown.`),
  ].filter(Boolean);
}

function line(span, found, whole, tools) {
  const open = tools.open.has(span.span);
  const left = Math.min(100, (100 * span.offset) / whole);
  const width = Math.min(100 - left, (100 * span.duration) / whole);
  const bar = style(h("span", { class: "bar" }), { left: `${left}%`, width: `${width}%`, "--hue": hue(span.service) });
  // behind the bar where there is room, else before it
  const text = style(h("span", { class: "time" }, duration(span.duration)),
    left + width < 80 || left < 15 ? { left: `${left + width}%` } : { right: `${100 - left}%`, "padding-right": ".4rem" });
  const events = (span.events || []).map((event) =>
    style(h("span", { class: "event", title: event.name }), { left: `${Math.max(0, Math.min(100, (100 * (span.offset + event.offset)) / whole))}%` }));
  const label = style(h("span", { class: "label", title: `${span.service}: ${span.name}` },
    dot(span.service), span.status === "error" && h("span", { class: "bad" }, "✕ "), span.name || "(no name)",
    " ", h("span", { class: "dim" }, span.service)), { "padding-left": `${0.6 + Math.min(span.depth, 25) * 0.9}rem` });
  const button = h("button", {
    type: "button", class: span.status === "error" ? "span failed" : "span", "data-key": span.span, "aria-expanded": String(open),
  }, label, h("span", { class: "lane" }, bar, ...events, text));
  button.addEventListener("click", () => {
    if (!tools.open.delete(span.span)) tools.open.add(span.span);
    tools.redraw();
  });
  return open ? [button, detail(span, found)] : [button];
}

function detail(span, found) {
  const facts = {
    service: span.service, kind: span.kind || "unspecified", start: `+${duration(span.offset)}`, duration: duration(span.duration),
    status: span.message ? `${span.status}: ${span.message}` : span.status, "span id": span.span,
    ...(span.parent ? { "parent id": span.orphan ? `${span.parent} (not here)` : span.parent } : {}),
    ...(span.state ? { "trace state": span.state } : {}),
    ...Object.fromEntries(Object.entries(span.dropped || {}).map(([name, value]) => [`dropped ${name}`, value])),
  };
  const events = (span.events || []).flatMap((event) => [
    h("p", {}, h("strong", {}, event.name), h("span", { class: "dim" }, ` +${duration(Math.max(0, span.offset + event.offset))}`)), pairs(event.attributes || {})]);
  const links = (span.links || []).flatMap((link) => [
    h("p", {}, h("a", { href: `#/trace/${link.trace}` }, `trace ${link.trace}`), h("span", { class: "dim" }, ` span ${link.span}`)), pairs(link.attributes || {})]);
  return h("div", { class: "detail" },
    h("h3", {}, "Span"), pairs(facts),
    span.logs > 0 && h("p", {}, h("a", { href: `#/logs?trace=${found.trace}&span=${span.span}` }, `${span.logs} log ${span.logs === 1 ? "record" : "records"}`)),
    ...part("Attributes", span.attributes),
    ...(events.length ? [h("h3", {}, "Events"), ...events] : []),
    ...(links.length ? [h("h3", {}, "Links"), ...links] : []),
    ...about(span.source));
}

// -- logs ----------------------------------------------------------------

export function logs(found, tools) {
  const of = tools.at.query.get("trace");
  const head = of ? [h("p", {}, "Of one trace: ", h("a", { href: `#/trace/${of}` }, of), tools.at.query.get("span") && ` span ${tools.at.query.get("span")}`, " · ", h("a", { href: "#/logs" }, "all logs"))] : [];
  if (!found.logs.length) return [...head, ...empty("logs", tools)];
  const rows = found.logs.flatMap((each) => {
    const open = tools.open.has(each.id);
    const row = h("tr", {},
      when(each.time),
      h("td", { class: each.severity >= 17 ? "bad" : each.severity >= 13 ? "warn" : "dim" }, each.level || "–"),
      h("td", { class: "narrow", title: each.service }, dot(each.service), each.service),
      h("td", { class: open ? "wrap" : "", tabindex: "0", role: "button", "data-key": `log-${each.id}`, "aria-expanded": String(open) }, each.body || each.event || "(no text)"),
      h("td", {}, each.trace && h("a", { class: "mono", href: `#/trace/${each.trace}` }, each.trace.slice(0, 8))));
    const toggle = () => {
      if (!tools.open.delete(each.id)) tools.open.add(each.id);
      tools.redraw();
    };
    row.addEventListener("click", (event) => event.target.closest("a") || toggle());
    row.addEventListener("keydown", (event) => {
      if ((event.key === "Enter" || event.key === " ") && !event.target.closest("a")) {
        event.preventDefault();
        toggle();
      }
    });
    if (!open) return [row];
    const facts = { ...(each.event ? { event: each.event } : {}), severity: `${each.severity} ${each.level}`, ...(each.trace ? { "trace id": each.trace } : {}), ...(each.span ? { "span id": each.span } : {}) };
    return [row, h("tr", {}, h("td", { colspan: "5", class: "detail" }, h("h3", {}, "Record"), pairs(facts), ...part("Attributes", each.attributes), ...about(each.source)))];
  });
  return [...head, table([["Time", "12rem"], ["Severity", "6rem"], ["Service", "16%", "narrow"], ["Text"], ["Trace", "6rem"]], rows)];
}

// -- metrics -------------------------------------------------------------

export function metrics(found, tools) {
  if (!found.series.length) return empty("metrics", tools);
  return found.series.map((each) => {
    const [value, note] = last(each);
    const chips = Object.entries(each.attributes).map(([name, given]) => h("span", { class: "chip" }, `${name}=${shown(given)}`));
    return h("div", { class: "series", tabindex: "0", "data-key": `series-${each.id}` },
      h("div", { class: "about" },
        h("strong", {}, each.name), h("span", { class: "dim" }, ` ${each.kind}`),
        h("div", { class: "dim" }, dot(each.service), each.service, each.description && ` · ${each.description}`), ...chips),
      h("div", { class: "value" }, value, h("small", {}, note)),
      curve(each));
  });
}

function unit(each) {
  return each.unit && each.unit !== "1" ? ` ${each.unit}` : "";
}

/** The values of a series' line: what was measured, of distributions the mean since the point before. */
function values(each) {
  return each.points.map((point, at) => {
    if (point.count === null || point.count === undefined) return point.value;
    const before = each.kind.endsWith("delta") || at === 0 || each.points[at - 1].count > point.count ? { value: 0, count: 0 } : each.points[at - 1];
    const mean = point.count > before.count && point.value !== null ? (point.value - before.value) / (point.count - before.count) : null;
    return Number.isFinite(mean) ? mean : null; // the difference of two numbers may be too large for one
  });
}

function last(each) {
  const point = each.points.at(-1);
  const before = each.points.at(-2);
  if (!point) return ["–", ""];
  if (point.count !== null && point.count !== undefined) {
    const mean = point.count && point.value !== null ? `mean ${number(point.value / point.count, 4)}${unit(each)}` : "–";
    const range = point.min !== undefined && point.max !== undefined ? `, ${number(point.min, 3)} to ${number(point.max, 3)}` : "";
    return [mean, `${number(point.count)} recorded${range}`];
  }
  if (point.value === null) return ["–", "no value"];
  let note = time(point.time).text;
  if (each.kind === "counter" && before && before.value !== null) {
    const seconds = Number(BigInt(point.time) - BigInt(before.time)) / 1e9;
    if (seconds > 0 && point.value >= before.value) note = `${number((point.value - before.value) / seconds, 3)}/s, ${note}`;
  }
  return [`${number(point.value)}${unit(each)}`, note];
}

function curve(each) {
  const all = values(each);
  const known = all.filter((value) => value !== null);
  const svg = h("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
  if (!known.length) return svg;
  const least = Math.min(...known);
  const most = Math.max(...known);
  svg.append(h("title", {}, `${each.name}: ${number(least)} to ${number(most)}`));
  const first = BigInt(each.points[0].time);
  const span = Number(BigInt(each.points.at(-1).time) - first) || 1;
  const x = (at) => (all.length === 1 ? 50 : (Number(BigInt(each.points[at].time) - first) / span) * 96 + 2);
  const y = (value) => (most === least ? 50 : 92 - ((value / 2 - least / 2) / (most / 2 - least / 2)) * 84);
  let path = "";
  let drawing = false;
  all.forEach((value, at) => {
    if (value !== null) path += `${drawing ? "L" : "M"}${x(at).toFixed(2)} ${y(value).toFixed(2)}`;
    drawing = value !== null;
  });
  // a lone point is a line of no length with round ends
  if (known.length === 1) path += "h.01";
  svg.append(style(h("path", { d: path }), known.length === 1 ? { "stroke-width": "5px", "stroke-linecap": "round" } : {}));
  return svg;
}
