// What stores of state, files and configuration hold.
import { age, count, enc, h, link, none, pairs, table, td } from "./parts.js";

const PAGE = 1000; // rows that one answer has at most
const views = { state: "keys", file: "files", configuration: "configuration", pubsub: "topics", lock: "locks" };

export function stores({ stores: all }) {
  if (!all.length) return [none("No stores yet.")];
  return [table([["Service"], ["Name"], ["Component"], ["From", "8rem"]],
    all.map((each) => h("tr", {}, td(each.service), h("td", {}, link(`#/${views[each.service]}?store=${enc(each.name)}`, each.name)), td(each.component), td(each.declared ? "configuration" : "home"))))];
}

function head(tools, kind) {
  const store = tools.at.query.get("store") || "";
  return [h("h2", {}, store), h("p", { class: "dim" }, link("#/stores", "Stores"), ` · ${kind}`)];
}

/** An address of this view with other parameters; empty ones are left out. */
function to(tools, changes) {
  const query = new URLSearchParams(tools.at.query);
  for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
  return `#/${tools.at.tab}?${query}`;
}

function further(all, tools, last) {
  return all.length < PAGE ? [] : [h("p", {}, link(to(tools, { after: last }), "Further ones"))];
}

export function keys({ keys: all, value }, tools) {
  const made = head(tools, "state store");
  if (value) made.push(pairs({ key: value.key, value: value.value ?? "(not shown)", etag: value.etag, bytes: value.bytes }));
  if (!all.length) return [...made, none("No keys begin so.")];
  return [...made, table([["Key"]], all.map((key) => h("tr", {}, h("td", {}, link(to(tools, { key }), key))))), ...further(all, tools, all.at(-1))];
}

export function files({ files: all, file }, tools) {
  const prefix = tools.at.query.get("prefix") || "";
  const made = head(tools, "files");
  const up = prefix.replace(/[^/]*\/?$/, "");
  if (prefix) made.push(h("p", {}, link(to(tools, { prefix: up, name: "", content: "", after: "" }), up ? `← ${up}` : "← all files")));
  if (file) {
    const { content, metadata, ...facts } = file;
    made.push(pairs({ ...Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== null)), ...metadata }),
      tools.at.query.get("content") ? h("pre", { tabindex: "0" }, content ?? "(not shown)") : h("p", {}, link(to(tools, { content: "1" }), "Show the beginning of its content")));
  }
  if (!all.length) return [...made, none("No files begin so.")];
  return [...made, table([["Name"], ["Bytes", "7rem", "number"], ["Written", "5rem", "number"]], all.map((each) => {
    const folder = each.name.endsWith("/");
    const href = to(tools, folder ? { prefix: each.name, name: "", content: "", after: "" } : { name: each.name, content: "" });
    return h("tr", {}, h("td", { title: each.name }, link(href, each.name)), folder ? h("td") : count(each.size), folder ? h("td") : age(each.modified));
  })), ...further(all, tools, all.at(-1).name)];
}

export function configuration({ items: all }, tools) {
  const made = head(tools, "configuration");
  if (!all.length) return [...made, none("No keys begin so.")];
  return [...made, table([["Key"], ["Value", "45%"], ["Version", "9rem"], ["Group", "8rem", "narrow"], ["Label", "8rem", "narrow"]], all.map((each) => h("tr", {},
    h("td", { title: each.key }, each.key), each.value === null ? h("td", { class: "dim" }, "(hidden)") : h("td", { class: "mono wrap" }, each.value),
    td(each.version), td(each.group, { class: "narrow" }), td(each.label, { class: "narrow" }))))];
}
