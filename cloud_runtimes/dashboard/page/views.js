// What traces and logs look like: functions from an answer of the receiver to elements.
import { dot, duration, h, hue, origin, pairs, part, style, table, time, when } from "./parts.js";

function about(source) {
  const scope = { ...(source.scope ? { name: source.scope } : {}), ...(source.version ? { version: source.version } : {}), ...source.scope_attributes };
  return [...part("Scope", scope), ...part("Resource", source.resource)];
}

export function empty(what, tools) {
  if (tools.at.query.size) return [h("p", { class: "empty" }, `No ${what} match these filters.`)];
  return [
    h("p", { class: "empty" }, `No ${what} yet. Applications send them here when this is set:`,
      h("code", {}, `OTEL_EXPORTER_OTLP_ENDPOINT=${tools.origin}`)),
  ];
}

// -- traces --------------------------------------------------------------

export function traces(found, tools) {
  if (!found.traces.length) return empty("traces", tools);
  const rows = found.traces.map((each) => {
    const link = h("a", { href: `#/trace/${each.trace}`, "data-key": each.trace }, each.name || "(no name)");
    const row = h("tr", {},
      when(each.start),
      h("td", { class: "narrow", title: `${each.service} ${each.process}` }, ...origin(each), each.services > 1 && h("span", { class: "dim" }, ` +${each.services - 1}`)),
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
  const services = new Map();
  for (const { service, process } of found.spans) services.set(service, (services.get(service) || new Set()).add(process));
  const several = new Set([...services].filter(([, processes]) => processes.size > 1).map(([name]) => name));
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
      ...found.spans.flatMap((span) => line(span, found, whole, several.has(span.service), tools))),
    found.hidden > 0 && h("p", { class: "dim" }, `${count(found.hidden, "later span")} not shown.`),
  ].filter(Boolean);
}

function line(span, found, whole, several, tools) {
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
    " ", h("span", { class: "dim" }, span.service, several && ` ${span.process}`)), { "padding-left": `${0.6 + Math.min(span.depth, 25) * 0.9}rem` });
  const button = h("button", {
    type: "button", class: span.status === "error" ? "span failed" : "span", "data-key": span.span, "aria-expanded": String(open),
  }, label, h("span", { class: "lane" }, bar, ...events, text));
  button.addEventListener("click", () => {
    if (!tools.open.delete(span.span)) tools.open.add(span.span);
    tools.redraw();
  });
  return open ? [button, detail(span, found, tools)] : [button];
}

function detail(span, found, tools) {
  const facts = {
    service: span.service, ...(span.process ? { process: span.process } : {}), kind: span.kind || "unspecified", start: `+${duration(span.offset)}`, duration: duration(span.duration),
    status: span.message ? `${span.status}: ${span.message}` : span.status, "span id": span.span,
    ...(span.parent ? { "parent id": span.orphan ? `${span.parent} (not here)` : span.parent } : {}),
    ...(span.state ? { "trace state": span.state } : {}),
    ...Object.fromEntries(Object.entries(span.dropped || {}).map(([name, value]) => [`dropped ${name}`, value])),
  };
  const events = (span.events || []).flatMap((event) => [
    h("p", {}, h("strong", {}, event.name), h("span", { class: "dim" }, ` +${duration(Math.max(0, span.offset + event.offset))}`)), pairs(event.attributes || {})]);
  const links = (span.links || []).flatMap((link) => [
    h("p", {}, h("a", { href: `#/trace/${link.trace}` }, `trace ${link.trace}`), h("span", { class: "dim" }, ` span ${link.span}`)), pairs(link.attributes || {})]);
  const { "cloud_runtimes.component": store, "messaging.destination.name": topic } = span.attributes || {};
  return h("div", { class: "detail" },
    h("h3", {}, "Span"), pairs(facts),
    tools.topics && store && topic && h("p", {}, h("a", { href: `#/topic/${encodeURIComponent(store)}/${encodeURIComponent(topic)}` }, `topic ${topic}`)),
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
      h("td", { class: "narrow", title: `${each.service} ${each.process}` }, ...origin(each)),
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
