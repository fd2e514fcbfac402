// Who calls whom: a drawing of services, and the same as a table.
import { count, dot, duration, enc, h, hue, link, none, number, style, table } from "./parts.js";

const MOST = 40; // services that are drawn
const [WIDE, HIGH, ACROSS, DOWN] = [150, 34, 290, 74];
const OUTSIDE = "outside";

/** Service → its column: behind all that call it, but for calls that close a circle. */
function columns(calls) {
  const next = new Map();
  for (const { caller, called } of calls) {
    next.set(caller, [...(next.get(caller) || []), called]);
    if (!next.has(called)) next.set(called, []);
  }
  const entered = new Set(calls.map((each) => each.called));
  const state = new Map();
  const order = [];
  const forward = [];
  const visit = (name) => {
    state.set(name, "open");
    for (const each of next.get(name)) {
      if (state.get(each) !== "open") forward.push([name, each]);
      if (!state.has(each)) visit(each);
    }
    state.set(name, "done");
    order.unshift(name);
  };
  for (const name of [...[...next.keys()].filter((each) => !entered.has(each)), ...next.keys()]) if (!state.has(name)) visit(name);
  const column = new Map(order.map((name) => [name, 0]));
  for (const name of order) {
    for (const [from, to] of forward) if (from === name) column.set(to, Math.max(column.get(to), column.get(name) + 1));
  }
  return column;
}

const share = (each) => (each.errors ? `${number((100 * each.errors) / each.count, 2)} %` : "–");

function drawing(calls) {
  const names = new Set();
  for (const each of calls) for (const name of [each.caller, each.called]) if (names.size < MOST) names.add(name);
  const drawn = calls.filter((each) => names.has(each.caller) && names.has(each.called));
  const column = columns(drawn);
  const rows = [];
  const at = new Map();
  for (const [name, number] of column) {
    rows[number] = (rows[number] || 0) + 1;
    at.set(name, { x: 10 + number * ACROSS, y: 10 + (rows[number] - 1) * DOWN });
  }
  const tall = Math.max(...rows.map((each) => each || 0));
  for (const [name, number] of column) at.get(name).y += ((tall - rows[number]) * DOWN) / 2;
  const [width, height] = [rows.length * ACROSS - ACROSS + WIDE + 20, tall * DOWN + 10];
  const svg = h("svg", { width: String(width), height: String(height), viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Services and their calls, as in the table below" });
  const most = Math.max(...drawn.map((each) => each.count));
  const many = (side, name) => drawn.filter((each) => each[side] === name).length;
  for (const each of drawn) {
    const [from, to] = [at.get(each.caller), at.get(each.called)];
    const [x1, y1, x2, y2] = [from.x + WIDE, from.y + HIGH / 2, to.x, to.y + HIGH / 2];
    const bend = Math.max(60, Math.abs(x2 - x1) / 2);
    const line = h("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 7} ${y2}`, class: each.errors ? "call failing" : "call" });
    style(line, { "stroke-width": `${1 + 3 * (Math.log1p(each.count) / Math.log1p(most))}px` });
    const said = `${number(each.count)} · ${duration(each.p50)}${each.errors ? ` · ${share(each)}` : ""}`;
    line.append(h("title", {}, `${each.caller || OUTSIDE} calls ${each.called}: ${said}`));
    // at the end where fewer lines meet, on the side from which the line does not come
    const late = many("caller", each.caller) > many("called", each.called);
    const x = late ? x2 - 58 : y1 === y2 ? (x1 + x2) / 2 : x1 + 52;
    const y = (late ? y2 : y1) + (y1 !== y2 && y2 > y1 === late ? 16 : -8);
    svg.append(line, h("path", { d: `M${x2} ${y2}l-8 -4v8z`, class: each.errors ? "head failing" : "head" }),
      h("text", { x: String(x), y: String(y), class: "said", "text-anchor": "middle" }, said));
  }
  for (const [name, { x, y }] of at) {
    const text = [...(name || OUTSIDE)];
    svg.append(h("rect", { x: String(x), y: String(y), width: String(WIDE), height: String(HIGH), rx: "5", class: name ? "" : "outside" }),
      h("g", {}, h("title", {}, name || OUTSIDE),
        name && style(h("circle", { cx: String(x + 14), cy: String(y + HIGH / 2), r: "5" }), { "--hue": hue(name) }),
        h("text", { x: String(x + (name ? 26 : 14)), y: String(y + HIGH / 2 + 4) }, text.length > 16 ? `${text.slice(0, 15).join("")}…` : text.join(""))));
  }
  return h("div", { class: "map", tabindex: "0", role: "region", "aria-label": "Map" }, svg);
}

export function map({ calls, omitted, searched }, tools) {
  if (!calls.length) return [none(tools.at.query.size ? "No calls in this time." : "No calls yet: they are drawn from spans that services send.")];
  const range = new URLSearchParams([...tools.at.query].filter(([name]) => name !== "limit"));
  const name = (text, key) => (text ? h("td", { title: text }, dot(text), link(`#/traces?service=${enc(text)}${range.size ? `&${range}` : ""}`, text, `${key} ${text}`)) : h("td", { class: "dim" }, OUTSIDE));
  const rows = calls.map((each) => h("tr", {}, name(each.caller, `${each.caller} ${each.called} from`), name(each.called, `${each.caller} ${each.called} to`), count(each.count),
    h("td", { class: each.errors ? "number bad" : "number dim" }, share(each)), h("td", { class: "number narrow" }, duration(each.p50)), h("td", { class: "number narrow" }, duration(each.p99))));
  return [drawing(calls), table([["Caller"], ["Called"], ["Calls", "6rem", "number"], ["Failed", "6rem", "number"], ["p50", "6rem", "number narrow"], ["p99", "6rem", "number narrow"]], rows),
    omitted > 0 && h("p", { class: "dim" }, `${number(omitted)} further pairs are not shown.`)].filter(Boolean);
}
