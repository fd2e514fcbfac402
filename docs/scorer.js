// Which of the pages that match comes first: what a reader does, then what is looked up, then why.
const named = /[A-Z_.]/.test((new URLSearchParams(location.search).get("q") ?? "").slice(1));
const more = { "how-to": 12, services: 14, tutorial: 2, "cheat-sheet": 4, configuration: 4, errors: 6, explanation: -8 };
var Scorer = {
  score: ([page, title, anchor, description, score, file, kind]) => {
    if (/^docs\/reference\/(testing|spi)$/.test(page)) return score - 1000; // for authors of components
    if (/^docs\/(soak|benchmarks|log-format)|^docs\/reference\/(commands|sidecar-apis|features)|^[A-Z]|^src_ext/.test(page)) score -= 200;
    if (/how-to\/(write-|recipes)/.test(page)) score -= 20;
    if (kind === "object") return score + (named ? 40 : -3); // a word means a page, a name means what has it
    const folder = page === "docs/explanation/schedule" ? "services" : page.split("/")[1]; // the page of that service
    return score + (more[folder] ?? 0) + (kind === "title" && !anchor ? 10 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
