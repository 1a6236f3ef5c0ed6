"use strict";
// The page: asks /search as one types, and shows texts as text alone, never as markup.

const find = (id) => document.getElementById(id);
const PARTS = ["dense", "lexical", "words"];
const NAMES = { dense: "meaning", lexical: "learned terms", words: "words" };
const FIELDS = { dense: "dense_score", lexical: "lexical_score", words: "word_score" };
const DELAY = 150; // milliseconds without a key before a search
let asked = 0; // number of the newest search: answers to older ones are dropped
let waiting = null;
let running = null;
let indexes = [];
let limits = { k: 10, hits: 10 };

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, failed = false) {
  find("status").textContent = text;
  find("status").className = failed ? "failed" : "";
}

async function call(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const key = find("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  const options = body === undefined ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const record = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(record.error || `The server answers ${answer.status}.`);
  return record;
}

function question() {
  const weights = Object.fromEntries(PARTS.map((part) => [part, Number(find(part).value)]));
  return { index: find("index").value || undefined, where: filter() || undefined, weights };
}

function filter() {
  const written = find("where").value.trim();
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const chosen = [...document.querySelectorAll("#choices select")].filter((one) => one.selectedIndex > 0);
  const parts = chosen.map((one) => `${quoted(one.name)}=${quoted(one.value)}`);
  if (!parts.length) return written;
  return [...(written ? [`(${written})`] : []), ...parts].join(" and ");
}

async function search() {
  clearTimeout(waiting);
  const query = find("query").value.trim();
  const number = ++asked;
  if (running) running.abort();
  remember(query);
  if (!query) {
    find("hits").replaceChildren();
    say("");
    return;
  }
  running = new AbortController();
  const begun = performance.now();
  try {
    const answer = await call("search", { queries: [query], k: Math.min(10, limits.k, limits.hits), ...question() }, running.signal);
    if (number !== asked) return;
    const hits = answer.results[0].hits;
    show(query, hits);
    const seconds = ((performance.now() - begun) / 1000).toFixed(2);
    say(hits.length ? `${hits.length} hit${hits.length > 1 ? "s" : ""} in ${seconds} seconds` : "Nothing is found.");
  } catch (error) {
    if (number !== asked || error.name === "AbortError") return;
    find("hits").replaceChildren();
    say(error instanceof TypeError ? "The server does not answer." : error.message, true);
  }
}

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(search, DELAY);
}

function remember(query) {
  const address = new URL(window.location.href);
  if (query) address.searchParams.set("q", query);
  else address.searchParams.delete("q");
  window.history.replaceState(null, "", address);
}

function show(query, hits) {
  const most = Math.max(...hits.map((hit) => PARTS.reduce((sum, part) => sum + Math.max(0, hit[FIELDS[part]]), 0)), 1e-9);
  find("hits").replaceChildren(...hits.map((hit) => shown(query, hit, most)));
}

function shown(query, hit, most) {
  const item = find("hit").content.cloneNode(true).firstElementChild;
  const article = item.firstElementChild;
  const path = hit.metadata.path || hit.document;
  article.querySelector("h2").textContent = hit.title || hit.document;
  const place = [hit.title ? path : "", ...hit.headings].filter(Boolean).join(" › ");
  article.querySelector(".place").textContent = place;
  snippet(article.querySelector(".snippet"), hit);
  const bar = article.querySelector(".bar");
  for (const part of PARTS) {
    bar.querySelector(`.${part}`).style.width = `${(100 * Math.max(0, hit[FIELDS[part]])) / most}%`;
  }
  const figures = PARTS.map((part) => `${NAMES[part]} ${hit[FIELDS[part]].toFixed(2)}`).join(", ");
  bar.setAttribute("aria-label", figures);
  bar.title = figures;
  article.querySelector(".number").textContent = hit.score.toFixed(2);
  const why = article.querySelector(".why");
  why.setAttribute("aria-label", `Why is ${hit.title || hit.document} found?`);
  why.addEventListener("click", () => explain(query, hit, why, article.querySelector(".explanation")));
  return item;
}

function snippet(paragraph, hit) {
  // Offsets count code points, as Python does; JavaScript's own count pairs of surrogates twice.
  const text = Array.from(hit.text);
  const end = hit.snippet_start + Array.from(hit.snippet).length;
  let place = hit.snippet_start;
  const piece = (from, to) => text.slice(from - hit.start, to - hit.start).join("");
  if (place > hit.start) paragraph.append("… ");
  for (const [first, last] of hit.highlights) {
    if (first < place || last > end) continue;
    paragraph.append(piece(place, first), element("mark", piece(first, last)));
    place = last;
  }
  paragraph.append(piece(place, end));
  if (end < hit.end) paragraph.append(" …");
}

async function explain(query, hit, button, place) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  place.hidden = open;
  if (open || place.childElementCount) return;
  place.replaceChildren(element("p", "…"));
  try {
    const answer = await call("explain", { query, k: 1, ids: [hit.document], ...question() });
    const found = answer.hits.find((one) => one.document === hit.document);
    place.replaceChildren(...explanation(found));
  } catch (error) {
    place.replaceChildren(element("p", error.message));
  }
}

function explanation(hit) {
  const ranks = [
    ["Together", hit.rank, hit.score],
    ["Meaning", hit.dense_rank, hit.dense_score],
    ["Learned terms", hit.lexical_rank, hit.lexical_score],
    ["Words", hit.word_rank, hit.word_score],
  ];
  const table = element("table");
  const head = element("tr");
  head.append(element("th", "Part"), element("th", "Score"), element("th", "Rank by it alone"));
  table.append(head);
  for (const [name, rank, score] of ranks) {
    const row = element("tr");
    row.append(element("td", name), element("td", score.toFixed(3), "figure"), element("td", rank ?? "not among the first", "figure"));
    table.append(row);
  }
  const parts = [table];
  const list = (title, terms, name, weight) => {
    if (!terms.length) return;
    parts.push(element("p", `${title}: ${terms.slice(0, 12).map((one) => `${one[name]} ${one[weight].toFixed(2)}`).join(", ")}`));
  };
  list("Words in both", hit.words, "word", "contribution");
  list("Terms in both texts", hit.matched, "token", "weight");
  list("Terms that the model has added to one of them", hit.expanded, "token", "weight");
  return parts;
}

async function begin() {
  const wanted = new URL(window.location.href).searchParams.get("q");
  if (wanted) find("query").value = wanted;
  try {
    ({ indexes, limits } = await call("indexes"));
    find("query").maxLength = limits.characters;
    find("index").replaceChildren(...indexes.map((index) => new Option(index.name, index.name)));
    find("index").hidden = indexes.length < 2;
    chosen();
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer." : error.message, true);
  }
  if (wanted) search();
}

function chosen() {
  const index = indexes.find((one) => one.name === find("index").value);
  if (!index) return;
  const fields = index.metadata.length ? `Fields: ${index.metadata.join(", ")}.` : "This index has no fields to filter by.";
  find("fields").textContent = `${fields} ${index.documents.toLocaleString()} documents.`;
  for (const part of PARTS) find(part).disabled = !index.parts.includes(part);
  find("choices").replaceChildren(...Object.entries(index.values).map(([field, values]) => choice(field, values)));
}

function choice(field, values) {
  const label = element("label", field);
  const select = element("select");
  select.name = field;
  select.append(new Option("any", ""), ...values.map((value) => new Option(String(value), String(value))));
  select.addEventListener("change", search);
  label.append(select);
  return label;
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
for (const id of ["query", "where"]) find(id).addEventListener("input", soon);
find("index").addEventListener("change", () => { chosen(); search(); });
find("key").addEventListener("change", begin);
for (const part of PARTS) {
  find(part).addEventListener("input", () => {
    find(`${part}-value`).textContent = find(part).value;
    soon();
  });
}
document.addEventListener("keydown", (event) => {
  const articles = [...document.querySelectorAll("#hits article")];
  const here = articles.indexOf(document.activeElement);
  const typing = document.activeElement.matches("input, select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    find("query").focus();
  } else if (event.key === "ArrowDown" && (here >= 0 || document.activeElement === find("query")) && here + 1 < articles.length) {
    event.preventDefault();
    articles[here + 1].focus();
  } else if (event.key === "ArrowUp" && here >= 0) {
    event.preventDefault();
    (articles[here - 1] || find("query")).focus();
  } else if (event.key === "Enter" && here >= 0) {
    articles[here].querySelector(".why").click();
  }
});
begin();
