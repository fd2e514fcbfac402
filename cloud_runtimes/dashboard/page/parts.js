// Elements that all views are made of. What is text becomes text, never HTML.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "path", "circle", "title", "line", "rect", "text", "g"]);

/** Make an element; what is text becomes text, never HTML. */
export function h(tag, attributes, ...children) {
  const made = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function style(element, values) {
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
  return element;
}

/** A hue for a service, always the same. */
export function hue(text) {
  let sum = 7;
  for (const each of text) sum = (sum * 31 + each.codePointAt(0)) % 100003;
  return String((sum * 47) % 300 + 30); // not red, which means an error
}

/** A service and, less loud, which of its processes. */
export const origin = ({ service, process }) => [dot(service), service, process && h("span", { class: "dim" }, ` ${process}`)];

export const dot = (service) => style(h("span", { class: "dot", "aria-hidden": "true" }), { "--hue": hue(service) });

export function duration(nanoseconds) {
  const short = (value, unit) => `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ${unit}`;
  if (nanoseconds < 1e3) return `${nanoseconds} ns`;
  if (nanoseconds < 1e6) return short(nanoseconds / 1e3, "µs");
  if (nanoseconds < 1e9) return short(nanoseconds / 1e6, "ms");
  if (nanoseconds < 60e9) return short(nanoseconds / 1e9, "s");
  const seconds = Math.round(nanoseconds / 1e9);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

export function time(nanoseconds) {
  const at = new Date(Number(BigInt(nanoseconds) / 1000000n));
  if (Number.isNaN(at.getTime())) return { text: "?", title: nanoseconds };
  const two = (value, digits = 2) => String(value).padStart(digits, "0");
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return { text: at.toDateString() === new Date().toDateString() ? clock : `${day} ${clock}`, title: `${day} ${clock}` };
}

export function when(nanoseconds, attributes = {}) {
  const { text, title } = time(nanoseconds);
  return h("td", { class: "mono", title, ...attributes }, text);
}

export const number = (value, digits = 6) => new Intl.NumberFormat("en", { maximumSignificantDigits: digits }).format(value);
export const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

export function pairs(values) {
  const list = h("dl");
  for (const [name, value] of Object.entries(values)) list.append(h("dt", {}, name), h("dd", {}, shown(value)));
  return list;
}

export function part(title, values) {
  return values && Object.keys(values).length ? [h("h3", {}, title), pairs(values)] : [];
}

export function table(columns, rows) {
  const head = columns.map(([text, width, kind]) => style(h("th", { scope: "col", class: kind }, text), width ? { width } : {}));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)));
}

/** Say how long ago a time was, or how long until it comes. */
export function ago(text) {
  if (!text) return "–";
  const seconds = Math.round((Date.now() - Date.parse(text)) / 1000);
  const size = Math.abs(seconds);
  const said = size < 60 ? `${size} s` : size < 3600 ? `${Math.floor(size / 60)} min` : size < 172800 ? `${Math.floor(size / 3600)} h` : `${Math.floor(size / 86400)} d`;
  return seconds < -1 ? `in ${said}` : said;
}

export const enc = encodeURIComponent;
export const td = (value, attributes = {}) => h("td", attributes, value ?? "–");
export const count = (value, bad = false) => h("td", { class: bad ? "number bad" : "number" }, value === null || value === undefined ? "–" : number(value));
export const age = (text) => h("td", { class: "number", title: text || "" }, ago(text));
export const link = (href, text, key) => h("a", { href, "data-key": key || href }, text);
export const none = (...text) => h("p", { class: "empty" }, ...text);
export const code = (text) => h("code", {}, text);
