// What services hold, and what mends it: functions from answers of the server to elements.
import { age, ago, code, count, enc, h, link, none, number, pairs, shown, table, td } from "./parts.js";
import { configuration, files, keys, stores } from "./stores.js";

const RARELY = 30000; // milliseconds between looks at what costs, such as a bucket's list

// -- changes -------------------------------------------------------------

async function post(method, body) {
  const response = await fetch(`api/changes/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-cloud-runtimes-token": sessionStorage.getItem("token") || "" },
    body: JSON.stringify(body),
  });
  const found = await response.json();
  if (!response.ok) throw new Error(found.message || response.statusText);
  return found.result;
}

function confirmed(question, verb) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-label": verb }, h("p", {}, question));
    const yes = h("button", { type: "button", class: "yes" }, verb);
    const no = h("button", { type: "button" }, "Cancel");
    yes.addEventListener("click", () => dialog.close("yes"));
    no.addEventListener("click", () => dialog.close(""));
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
    dialog.append(h("p", { class: "buttons" }, yes, no));
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}

/** A button of a change. It counts first where the change can be counted, and asks. */
function button(tools, verb, method, body, question, counted = false) {
  const made = h("button", { type: "button", "data-key": `${method} ${JSON.stringify(body)}` }, verb);
  made.addEventListener("click", async () => {
    try {
      const dry = counted ? await post(method, { ...body, dry_run: true }) : null;
      const much = dry === null ? "" : `${number(dry.count ?? dry)} `;
      if (await confirmed(question(much), verb)) {
        const done = await post(method, body);
        tools.said(`${verb}: ${done === null || done === undefined ? "done" : number(done.count ?? done)}`);
        await tools.reload();
      }
    } catch (error) {
      tools.failed(error.message);
    }
  });
  return made;
}

function buttons(tools, ...all) {
  return tools.changes ? h("span", { class: "buttons" }, ...all.map((each) => each())) : null;
}

// -- pub/sub -------------------------------------------------------------

const topicLink = (store, topic) => link(`#/topic/${enc(store)}/${enc(topic)}`, topic);

function topics(found, tools) {
  const store = tools.at.query.get("store") || "";
  if (!store) return choose(found, "topics", "Choose a pub/sub component:");
  const all = found.topics;
  if (!all.length) return [none("No topics yet. The first event makes one:", code(`echo 1 | cloud-runtimes publish ${store} orders`))];
  const rows = all.map((each) => h("tr", {},
    h("td", { title: each.name }, topicLink(store, each.name)), count(each.events), count(each.bytes), count(each.groups), age(each.first), age(each.last)));
  return [table([["Topic"], ["Events", "7rem", "number"], ["Bytes", "7rem", "number"], ["Groups", "5rem", "number"], ["Oldest", "6rem", "number"], ["Newest", "6rem", "number"]], rows)];
}

function topic({ groups, events, dead }, tools) {
  const [store, name] = tools.at.rest;
  const at = { pubsub_name: store, topic: name };
  const made = [h("h2", {}, name), h("p", { class: "dim" }, link(`#/topics?store=${enc(store)}`, store), " · topic"),
    h("p", {}, buttons(tools,
      () => button(tools, "Purge", "purge", at, (much) => `Remove ${much}events of ${name} for good?`, true),
      () => button(tools, "Delete topic", "delete_topic", at, (much) => `Delete ${name} with ${much}events and its groups?`, true)))];
  made.push(h("h3", {}, "Groups"));
  if (!groups) made.push(none("This component does not tell its groups."));
  else if (!groups.length) made.push(none("No group yet: one exists once it has subscribed."));
  else made.push(table([["Group"], ["Lag", "6rem", "number"], ["", "9rem"], ["Oldest", "6rem", "number"], ["In flight", "6rem", "number"], ["Members", "6rem", "number"], ["", tools.changes ? "19rem" : "6rem"]],
    groups.flatMap((each) => group(each, store, tools))));
  if (dead && dead.some((each) => each.reason)) made.push(h("h3", {}, "Dead letters"), ...letters(dead, tools));
  made.push(h("h3", {}, "Events, the latest"), ...list(events, tools));
  return made;
}

function group(each, store, tools) {
  const key = `${store}/${each.topic}/${each.name}`;
  const at = { pubsub_name: store, topic: each.topic, group: each.name };
  const open = tools.open.has(key);
  const name = h("button", { type: "button", class: "link", "data-key": key, "aria-expanded": String(open) }, each.name);
  name.addEventListener("click", () => {
    if (!tools.open.delete(key)) tools.open.add(key);
    tools.redraw();
  });
  const row = h("tr", {},
    h("td", {}, name, each.order && h("span", { class: "chip" }, `order: ${each.order}`), each.paused && h("span", { class: "chip warn" }, "paused")),
    count(each.lag, each.lag > 0 && each.members && !each.members.length), h("td", {}, spark(each)), age(each.oldest), count(each.in_flight),
    count(each.members ? each.members.length : null),
    h("td", {}, buttons(tools,
      () => each.paused
        ? button(tools, "Resume", "resume", at, () => `Let ${each.name} go on?`)
        : button(tools, "Pause", "pause", at, () => `Pause ${each.name}, which has not settled ${number(each.lag ?? 0)} events?`),
      () => button(tools, "To the end", "seek", { ...at, to: "latest" }, () => `Have ${each.name} skip ${number(each.lag ?? 0)} events?`),
      () => button(tools, "Delete", "delete_group", at, (much) => `Delete ${each.name} with ${much}events that it has not settled?`, true))));
  if (!open) return [row];
  const members = (each.members || []).map((one) => `${one.id}${one.in_flight === null ? "" : `: ${one.in_flight} in flight`}`);
  const facts = { lag: each.lag, oldest: each.oldest, order: each.order || "none", members: members.join("\n") || "none" };
  const letters = each.dead_letter_topic && h("p", {}, "Dead letters go to ", topicLink(store, each.dead_letter_topic));
  return [row, h("tr", {}, h("td", { colspan: "7", class: "detail" }, letters, pairs(Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== null && value !== undefined)))))];
}

// The lag of a group over the last hour, as far as the server has looked.
function spark({ name, lag, lags }) {
  const known = lag === null ? lags : [...lags, [0, lag]];
  if (known.length < 2) return null;
  const svg = h("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", class: "spark" });
  const [first] = known[0];
  const most = Math.max(...known.map(([, value]) => value), 1);
  const place = ([ago, value]) => `${(100 - (ago / (first || 1)) * 100).toFixed(1)} ${(96 - (value / most) * 92).toFixed(1)}`;
  svg.append(h("title", {}, `lag of ${name} in the last ${Math.max(1, Math.round(first / 60))} min: ${number(known[0][1])} to ${number(known.at(-1)[1])}`));
  svg.append(h("path", { d: `M${known.map(place).join("L")}` }));
  return svg;
}

function list(events, tools) {
  if (!events) return [none("This component does not show its events.")];
  if (!events.length) return [none("No events.")];
  const rows = events.toReversed().flatMap(({ event, deliveries }) => {
    const open = tools.open.has(event.id);
    const data = "data" in event ? shown(event.data) : "data_base64" in event ? event.data_base64 : "(not shown)";
    const trace = (event.traceparent || "").split("-")[1];
    const toggle = h("button", { type: "button", class: "link mono", "data-key": event.id, "aria-expanded": String(open) }, data);
    toggle.addEventListener("click", () => {
      if (!tools.open.delete(event.id)) tools.open.add(event.id);
      tools.redraw();
    });
    const row = h("tr", {}, h("td", { class: "number", title: event.time }, ago(event.time)), td(event.partitionkey), h("td", {}, toggle),
      h("td", {}, trace && link(`#/trace/${trace}`, trace.slice(0, 8), `${event.id} trace`)));
    const failed = event.dltopic && h("p", {}, `Failed in the group ${shown(event.dlgroup)} of `, topicLink(tools.at.rest[0], String(event.dltopic)));
    return open ? [row, h("tr", {}, h("td", { colspan: "4", class: "detail" }, failed, pairs({ ...event, ...(deliveries ? { deliveries } : {}) })))] : [row];
  });
  return [table([["Age", "6rem", "number"], ["Key", "9rem"], ["Data"], ["Trace", "6rem"]], rows)];
}

function letters(dead, tools) {
  const [store, name] = tools.at.rest;
  return [table([["Count", "6rem", "number"], ["Group"], ["Topic"], ["Reason"], ["Error"], ["Last", "6rem", "number"], ["", tools.changes ? "12rem" : "1rem"]],
    dead.flatMap((each) => {
      const key = JSON.stringify([each.group, each.topic, each.reason, each.error]);
      const open = tools.open.has(key);
      const which = { pubsub_name: store, topic: name, ...(each.group ? { group: each.group } : {}), ...(each.reason ? { reason: each.reason } : {}), ...(each.error ? { error: each.error } : {}) };
      const error = h("button", { type: "button", class: "link", "data-key": key, "aria-expanded": String(open) }, each.error || "–");
      error.addEventListener("click", () => {
        if (!tools.open.delete(key)) tools.open.add(key);
        tools.redraw();
      });
      const row = h("tr", {}, count(each.count), td(each.group), h("td", {}, each.topic && each.topic !== name ? topicLink(store, each.topic) : "–"), td(each.reason), h("td", {}, error), age(each.last),
        h("td", {}, each.group && buttons(tools,
          () => button(tools, "Redrive", "redrive", which, (much) => `Send ${much}dead letters back to ${each.group}, and to no other group?`, true),
          () => button(tools, "Discard", "discard", which, (much) => `Remove ${much}dead letters for good?`, true))));
      return open ? [row, h("tr", {}, h("td", { colspan: "7", class: "detail" }, h("h3", {}, "The latest"), pairs(each.sample.event)))] : [row];
    }))];
}

// -- the overview --------------------------------------------------------

function overview({ overview: found }) {
  const away = found.components.filter((each) => each.error);
  const behind = found.groups.filter(({ group: each }) => each.lag);
  const made = [];
  const part = (title, rows, columns) => rows.length && made.push(h("h2", {}, title), table(columns, rows));
  part("Does not answer", away.map((each) => h("tr", {}, td(each.service || "home"), td(each.name || "–"), td(each.component || "–"), h("td", { class: "bad wrap" }, each.error))),
    [["Service", "8rem"], ["Name", "10rem"], ["Component", "8rem"], ["Error"]]);
  part("Dead letters", found.dead_letters.map(({ pubsub_name: at, topic: each }) => h("tr", {}, h("td", {}, topicLink(at, each.name)), td(at), count(each.events, true), age(each.first), age(each.last))),
    [["Topic"], ["Component", "10rem"], ["Events", "7rem", "number"], ["Oldest", "6rem", "number"], ["Newest", "6rem", "number"]]);
  part("Groups that are behind", behind.map(({ pubsub_name: at, group: each }) => h("tr", {}, h("td", {}, topicLink(at, each.topic)), h("td", {}, each.name, each.paused && h("span", { class: "chip warn" }, "paused")), td(at),
    count(each.lag), age(each.oldest), count(each.in_flight), count(each.members ? each.members.length : null, each.members && !each.members.length))),
  [["Topic"], ["Group"], ["Component", "10rem"], ["Lag", "7rem", "number"], ["Oldest", "6rem", "number"], ["In flight", "6rem", "number"], ["Members", "6rem", "number"]]);
  part("Jobs that failed", found.jobs.map((each) => h("tr", {}, h("td", {}, link(`#/jobs?prefix=${enc(each.name)}`, each.name)), td(each.app_id), count(each.failed, true), age(each.last_run), td(each.last_error, { title: each.last_error || "" }))),
    [["Job"], ["Application"], ["Failed", "6rem", "number"], ["Last", "6rem", "number"], ["Error"]]);
  part("Locks that nobody holds, and others wait for", found.locks.map(({ store_name: at, lock: each }) => h("tr", {}, h("td", {}, link(`#/locks?store=${enc(at)}`, each.resource_id)), td(at), count(each.waiting, true))),
    [["Lock"], ["Component"], ["Waiting", "7rem", "number"]]);
  if (!made.length) made.push(none("Nothing needs a look: everything answers, no group is behind, and there are no dead letters."));
  const well = found.components.filter((each) => !each.error).map((each) => [each.service, each.name].filter(Boolean).join(".") || "home");
  made.push(h("p", { class: "dim" }, well.length ? `Answer: ${well.join(", ")}` : "", found.omitted ? ` · ${number(found.omitted)} lines more are not shown` : ""));
  return made;
}

// -- the other services --------------------------------------------------

function jobs({ jobs: all }, tools) {
  if (!all.length) return [none("No jobs yet: client.schedule.create or @client.schedule.job makes one.")];
  return [table([["Job"], ["Application"], ["Schedule"], ["Next", "6rem", "number"], ["Last", "6rem", "number"], ["Failed", "5rem", "number"], ["Error"], ["", tools.changes ? "6rem" : "1rem"]],
    all.map((each) => h("tr", {},
      h("td", {}, each.name, each.paused && h("span", { class: "chip warn" }, "paused"), each.running && h("span", { class: "chip" }, "running")),
      td(each.app_id), td(each.schedule), age(each.next_run), age(each.last_run), count(each.failed, each.failed > 0), td(each.last_error, { title: each.last_error || "" }),
      h("td", {}, buttons(tools, () => each.paused
        ? button(tools, "Resume", "resume_job", { name: each.name, app_id: each.app_id }, () => `Let ${each.name} go on?`)
        : button(tools, "Pause", "pause_job", { name: each.name, app_id: each.app_id }, () => `Pause ${each.name}?`))))))];
}

function locks(found, tools) {
  const store = tools.at.query.get("store") || "";
  if (!store) return choose(found, "locks", "Choose a lock store:");
  const all = found.locks;
  if (!all.length) return [none("Nobody holds a lock.")];
  return [table([["Lock"], ["Owner"], ["Token", "11rem", "number"], ["Held for", "6rem", "number"], ["Ends", "6rem", "number"], ["Waiting", "5rem", "number"], ["", tools.changes ? "6rem" : "1rem"]],
    all.map((each) => h("tr", {}, td(each.resource_id), td(each.owner), h("td", { class: "number" }, `${each.token ?? "–"}`), age(each.since), age(each.expires_at), count(each.waiting, each.waiting > 0),
      h("td", {}, each.token !== null && buttons(tools, () => button(tools, "Break", "break_lock", { store_name: store, resource_id: each.resource_id, token: each.token }, () => `Take ${each.resource_id} from ${each.owner}?`))))))];
}

function services({ services: all }) {
  if (!all.length) return [none("No service runs here:", code("cloud-runtimes run app:client"))];
  return [table([["Application"], ["Methods"], ["Instance"], ["Host"], ["Process", "6rem", "number"], ["For", "6rem", "number"], ["Version", "6rem"]],
    all.flatMap((each) => each.instances.map((one, at) => h("tr", {},
      td(at ? "" : each.app_id), td(at ? "" : (each.methods || []).join(", ") || "–", { class: "wrap" }), td(one.address), td(one.host), h("td", { class: "number" }, String(one.pid ?? "–")), age(one.since), td(one.version)))))];
}

/** Links to the stores of a service, or the only one at once. */
function choose({ names }, tab, text) {
  if (names.length === 1) location.replace(`#/${tab}?store=${enc(names[0])}`);
  if (!names.length) return [none("The configuration names none, and the home has none yet.")];
  return [h("p", {}, text), h("ul", {}, ...names.map((name) => h("li", {}, link(`#/${tab}?store=${enc(name)}`, name))))];
}

const store = [["store", "Component", "text"]];
const prefix = [["prefix", "Begins with", "text"]];
const asked = (question, service) => ({ query }) => [service && !query.get("store") ? `api/operations/names?service=${service}` : `api/operations/${question}?${query}`];

/** Tab → its title, what it asks for, how it is drawn, and its filters. */
export const operations = {
  overview: { title: "Overview", ask: asked("overview"), draw: overview, filters: [] },
  topics: { title: "Topics", ask: asked("topics", "pubsub"), draw: topics, filters: [...store, ...prefix] },
  topic: {
    tab: "topics", draw: topic, filters: [],
    ask: ({ rest: [at, name] }) => ["groups", "events", "dead"].map((each) => `api/operations/${each}?store=${enc(at)}&topic=${enc(name)}`),
  },
  jobs: { title: "Jobs", ask: asked("jobs"), draw: jobs, filters: prefix },
  locks: { title: "Locks", ask: asked("locks", "lock"), draw: locks, filters: [...store, ...prefix] },
  services: { title: "Services", ask: asked("services"), draw: services, filters: prefix },
  stores: { title: "Stores", ask: asked("stores"), draw: stores, filters: [] },
  keys: {
    tab: "stores", draw: keys, filters: [...store, ...prefix],
    ask: ({ query }) => [`api/operations/keys?${query}`, ...(query.get("key") ? [`api/operations/value?${query}`] : [])],
  },
  files: {
    tab: "stores", draw: files, filters: [...store, ...prefix], every: RARELY,
    ask: ({ query }) => [`api/operations/files?${query}`, ...(query.get("name") ? [`api/operations/file?${query}`] : [])],
  },
  configuration: { tab: "stores", draw: configuration, filters: [...store, ...prefix], every: RARELY, ask: ({ query }) => [`api/operations/items?${query}`] },
};
