// One chart for each instrument: its sets of attributes as lines, with axes, and a table of what the lines are.
import { dot, h, number, origin, shown, style, table, time } from "./parts.js";
import { empty } from "./views.js";

const QUANTILES = ["p50", "p90", "p99"];
const compact = (value) => new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value);

export function metrics(found, tools) {
  if (!found.series.length) return empty("metrics", tools);
  const instruments = new Map();
  for (const each of found.series) {
    const key = JSON.stringify([each.name, each.kind, each.unit]);
    instruments.set(key, [...(instruments.get(key) || []), each]);
  }
  return [...instruments].map(([key, all]) => instrument(key, all));
}

function instrument(key, all) {
  const [first] = all;
  const lines = linesOf(all);
  const hidden = first.sets - all.length;
  const services = [...new Map(all.map((each) => [each.service, each])).values()];
  const alone = all.length === 1;
  const [value, note] = alone ? last(first) : [number(first.sets), "sets of attributes"];
  const chips = alone ? Object.entries(first.attributes).map(([name, given]) => h("span", { class: "chip" }, `${name}=${shown(given)}`)) : [];
  return h("div", { class: "series", tabindex: "0", "data-key": `series-${key}` },
    h("div", { class: "about" },
      h("strong", {}, first.name), h("span", { class: "dim" }, ` ${first.kind}`),
      h("div", { class: "dim" }, ...(alone ? origin(first) : services.flatMap((each) => [dot(each.service), each.service, " "])), first.description && ` · ${first.description}`), ...chips),
    h("div", { class: "value" }, value, h("small", {}, note)),
    chart(first, lines),
    lines.length > 1 && h("div", { class: "legend" }, legend(all, lines), hidden > 0 && h("p", { class: "dim" }, `${number(hidden)} further sets of attributes are not shown.`)));
}

function unit(each, rate = false) {
  const text = each.unit && each.unit !== "1" && !/^\{.*\}$/.test(each.unit) ? ` ${each.unit}` : "";
  return rate ? `${text}/s` : text;
}

const seconds = (after, before) => Number(BigInt(after.time) - BigInt(before.time)) / 1e9;
const isRate = (each) => each.kind === "counter";

/** What a series' line shows: a counter's rate, what else was measured, of distributions the mean since the point before. */
function values(each) {
  return each.points.map((point, at) => {
    const previous = each.points[at - 1];
    if (point.count === null || point.count === undefined) {
      if (!isRate(each) || point.value === null) return point.value;
      return previous && previous.value !== null && point.value >= previous.value && seconds(point, previous) > 0 ? (point.value - previous.value) / seconds(point, previous) : null;
    }
    const before = each.kind.endsWith("delta") || at === 0 || previous.count > point.count ? { value: 0, count: 0 } : previous;
    const mean = point.count > before.count && point.value !== null ? (point.value - before.value) / (point.count - before.count) : null;
    return Number.isFinite(mean) ? mean : null; // the difference of two numbers may be too large for one
  });
}

const told = (each) => each.points.some((point) => point.quantiles);

/** The lines of an instrument: quantiles of a lone histogram, else one for each set of attributes. */
function linesOf(all) {
  const made = all.length === 1 && told(all[0])
    ? QUANTILES.map((name, at) => ({ name, each: all[0], values: all[0].points.map((point) => point.quantiles?.[at] ?? null) }))
    : all.map((each) => ({ name: "", each, values: told(each) ? each.points.map((point) => point.quantiles?.[1] ?? null) : values(each) }));
  return made.map((line, at) => ({ ...line, hue: String((at * 137 + 215) % 360) }));
}

function legend(all, lines) {
  const quantiles = all.some(told);
  const swatch = (line) => style(h("span", { class: "dot", "aria-hidden": "true" }), { "--hue": line.hue });
  const several = new Set(all.map((each) => `${each.service} ${each.process}`)).size > 1;
  const own = (line) => (line.name ? [line.name] : Object.entries(line.each.attributes).map(([name, given]) => h("span", { class: "chip" }, `${name}=${shown(given)}`)));
  const cell = (value, each) => h("td", { class: "number" }, value === null || value === undefined ? "–" : `${number(value, 3)}${unit(each, isRate(each))}`);
  const last = (list) => list.findLast((value) => value !== null);
  if (all.length === 1) return table([["Quantile"], ["Last", "8rem", "number"]], lines.map((line) => h("tr", {}, h("td", {}, swatch(line), ...own(line)), cell(last(line.values), line.each))));
  return table([["Attributes"], ...(several ? [["Process", "30%"]] : []), ...(quantiles ? QUANTILES.map((name) => [name === "p90" ? "p90, drawn" : name, "7rem", "number"]) : [["Last", "8rem", "number"]])],
    lines.map((line) => h("tr", {}, h("td", { class: "wrap" }, swatch(line), ...(Object.keys(line.each.attributes).length ? own(line) : ["(none)"])),
      several && h("td", {}, ...origin(line.each)),
      ...(quantiles ? QUANTILES.map((_, at) => cell(last(line.each.points.map((point) => point.quantiles?.[at] ?? null)), line.each)) : [cell(last(line.values), line.each)]))));
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
  if (isRate(each) && before && before.value !== null && seconds(point, before) > 0 && point.value >= before.value) {
    note = `${number((point.value - before.value) / seconds(point, before), 3)}/s, ${note}`;
  }
  return [`${number(point.value)}${unit(each)}`, note];
}

function chart(first, lines) {
  const svg = h("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img" });
  const known = lines.flatMap((line) => line.values.filter((value) => value !== null));
  if (!known.length) return h("div", { class: "chart dim" }, isRate(first) ? "A rate needs two points." : "");
  const least = known.reduce((a, b) => Math.min(a, b));
  const most = known.reduce((a, b) => Math.max(a, b));
  svg.append(h("title", {}, `${first.name}: ${number(least)} to ${number(most)}`));
  const times = lines.flatMap((line) => line.each.points.map((point) => BigInt(point.time)));
  const begin = times.reduce((a, b) => (a < b ? a : b));
  const end = times.reduce((a, b) => (a > b ? a : b));
  const span = Number(end - begin) || 1;
  const x = (point) => (begin === end ? 50 : (Number(BigInt(point.time) - begin) / span) * 98 + 1);
  const y = (value) => (most === least ? 50 : 94 - ((value / 2 - least / 2) / (most / 2 - least / 2)) * 88);
  for (const at of most === least ? [50] : [6, 50, 94]) svg.append(h("line", { x1: "0", x2: "100", y1: String(at), y2: String(at) }));
  for (const line of lines) {
    let path = "";
    let drawing = false;
    let drawn = 0;
    line.values.forEach((value, at) => {
      if (value !== null) path += `${drawing ? "L" : "M"}${x(line.each.points[at]).toFixed(2)} ${y(value).toFixed(2)}`;
      drawn += value !== null;
      drawing = value !== null;
    });
    if (!drawn) continue;
    if (drawn === 1) path += "h.01"; // a lone point is a line of no length with round ends
    svg.append(style(h("path", { d: path }), { ...(lines.length > 1 ? { "--hue": line.hue } : {}), ...(drawn === 1 ? { "stroke-width": "5px", "stroke-linecap": "round" } : {}) }));
  }
  const label = (value) => h("span", {}, `${compact(value)}${unit(first, isRate(first))}`);
  const clock = (at) => h("span", {}, time(String(at)).text.replace(/\.\d+$/, ""));
  return h("div", { class: "chart" },
    h("div", { class: "up" }, ...(most === least ? [label(most)] : [most, most / 2 + least / 2, least].map(label))), svg,
    h("div", { class: "along" }, clock(begin), begin === end ? "" : clock(end)));
}
