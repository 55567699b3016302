// The treemap page. The server draws the picture; this module loads it, adds behaviour to it by its data- attributes, and keeps it current.
// Parts: state and URL, words, loading, following, banner, picture, tooltip, keyboard, search, table, export, start.
// Names of companies and industries come from outside: they enter the document as text, never as markup.

const $ = (id) => document.getElementById(id);
const STOPS = ".tile:not([data-tiny]), .head[role]"; // what the keyboard and the pointer stop at: nobody sees a tile of less than half a pixel
const [main, stage, picture, tip] = [document.querySelector("main"), $("stage"), $("picture"), $("tip")];

// ---- State and URL: all of the state is in the query, defaults left out

const PERIODS = { "3m": "3 months", "6m": "6 months", "1y": "1 year", "2y": "2 years", "5y": "5 years", max: "10 years" };
const CHOICES = {
  mode: ["current", "change"], period: Object.keys(PERIODS), limit: ["5", "10", "20", "50", "100"], view: ["picture", "table"],
};
const DEFAULTS = { mode: "current", period: "3m", limit: "10", industry: "", q: "", view: "picture" };

let state = readState();

function readState() {
  const query = new URLSearchParams(location.search);
  const valid = (name, value) => value !== null && (CHOICES[name]?.includes(value) ?? true);
  return Object.fromEntries(
    Object.entries(DEFAULTS).map(([name, value]) => [name, valid(name, query.get(name)) ? query.get(name) : value]),
  );
}

function pageUrl(changes = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes })) {
    if (value !== DEFAULTS[name]) query.set(name, value);
  }
  return `${location.pathname}?${query}`.replace(/\?$/, "");
}

function go(changes) {
  state = { ...state, ...changes };
  history.pushState(null, "", pageUrl());
  arrive();
}

function arrive() {
  hideTip();
  showControls();
  markMatches();
  restart();
}

function showControls() {
  for (const control of $("controls").querySelectorAll("[name]")) {
    if (control.type === "radio") control.checked = state[control.name] === control.value;
    else control.value = state[control.name];
  }
  if ($("search").value !== state.q) $("search").value = state.q;
  $("crumb").hidden = state.industry === "";
  $("here").textContent = state.industry;
  $("all").href = pageUrl({ industry: "" });
  $("save-csv").href = `/treemap.csv?${dataQuery()}`;
  showView();
}

// ---- Words

const day = (date) => (date ? DAY.format(new Date(`${date}T00:00:00Z`)) : "no date");
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const decimals = (digits, sign) =>
  new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: sign });
const [POSITION, CHANGE] = [decimals(2, "auto"), decimals(1, "exceptZero")];
const percent = (value) => `${POSITION.format(value)} %`;
const signed = (value) => `${CHANGE.format(value).replace("-", "−")} %`;

function ago(seconds) {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, length] = units.find(([, length]) => seconds >= length * 1.5) ?? units.at(-1);
  return new Intl.RelativeTimeFormat("en").format(-Math.max(0, Math.round(seconds / length)), unit);
}

function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// A live region speaks only when its text changes.
function say(text) {
  $("live").textContent = $("live").textContent === text ? `${text} ` : text;
}

// ---- Loading: the picture in the size of its place

const dark = matchMedia("(prefers-color-scheme: dark)");
const DEADLINE = 20_000;
let shown = null; // the picture on the page: { svg, text, url }
let checkedAt = 0; // when the server last confirmed it
let announced = null; // the version that the server named last

class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence || `The server answered with status ${status}.`);
    this.lasting = status >= 400 && status < 500 && status !== 408 && status !== 429; // asking again soon does not help
  }
}

function dataQuery() {
  const limit = state.industry ? Math.max(100, state.limit) : state.limit;
  const query = new URLSearchParams({ period: state.period, limit, mode: state.mode });
  if (state.industry) query.set("industry", state.industry);
  return query;
}

function pictureSize() {
  const step = (pixels, least, most) => Math.floor(Math.min(most, Math.max(least, pixels)) / 16) * 16;
  const width = step(main.clientWidth, 160, 7680);
  const remains = innerHeight - (stage.getBoundingClientRect().top + scrollY) - 8;
  return { width, height: step(width < 600 ? width * 2.2 : remains, 480, 4320) };
}

function svgUrl() {
  const query = dataQuery();
  const { width, height } = pictureSize();
  for (const [name, value] of Object.entries({ width, height, theme: dark.matches ? "dark" : "light" })) query.set(name, value);
  return `/treemap.svg?${query}`;
}

async function load(signal, tries = 0) {
  const url = svgUrl();
  // The server ignores both. They keep a cache on the way from answering with the picture that it has of before.
  const key = announced ? `&version=${encodeURIComponent(announced)}${tries ? `&try=${tries}` : ""}` : "";
  stage.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(url + key, { cache: "no-cache", signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE)]) });
    const text = await response.text();
    if (!response.ok) {
      // The server's refusals are plain text. Those of a proxy before it are pages, as a rule.
      const isPlain = response.headers.get("Content-Type")?.startsWith("text/plain");
      throw new Refusal(response.status, isPlain ? text.trim().slice(0, 200) : "");
    }
    if (text !== shown?.text) showPicture(text);
    $("save-svg").href = shown.url = url;
    const { refreshed, stale } = shown.svg.dataset;
    setFreshness((Date.parse(response.headers.get("Date") ?? new Date()) - Date.parse(refreshed)) / 1000, stale === "true");
    checkedAt = Date.now();
  } finally {
    if (!signal.aborted) stage.removeAttribute("aria-busy");
  }
}

// ---- Following: load, watch until the stream ends, wait, and again. Whatever changes the question starts anew.

const SILENCE = 45_000; // the server sends a heartbeat every 20 s
const HELD_BACK = 15_000; // with SILENCE before it: a picture each minute where something on the way holds streams back
const REFUSED = 30_000; // and up to twice that, after a refusal that lasts: a page that nobody touches recovers
let following = new AbortController();

function restart() {
  following.abort();
  following = new AbortController();
  if (!document.hidden) follow(following.signal);
}

async function follow(signal) {
  let failures = 0;
  while (!signal.aborted) {
    let pause = Math.min(30_000, 1000 * 2 ** failures) * (0.5 + Math.random() / 2);
    try {
      await load(signal);
      setFailure(null);
      const end = await watch(signal);
      if (end === "held back") pause = HELD_BACK;
      failures = end === "heard" ? 0 : failures + 1;
    } catch (error) {
      if (signal.aborted) return;
      setFailure(error);
      if (error.lasting) pause = REFUSED * (1 + Math.random());
      failures += 1;
    }
    await wait(pause, signal);
  }
}

function wait(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => resolve(clearTimeout(timer)), { once: true });
  });
}

// Resolves when the stream has ended: "heard" something, "held back" (open, but silent) or "refused". Fails only if a picture fails to load.
async function watch(signal) {
  const result = { end: "refused" };
  for await (const { treemap, heartbeat } of events(signal, result)) {
    result.end = "heard";
    const version = (treemap ?? heartbeat)?.version;
    if (version && version !== shown.svg.dataset.version) await loadVersion(version, signal);
    if (heartbeat) setFreshness(heartbeat.ageSeconds ?? 0, heartbeat.stale ?? false);
  }
  return result.end;
}

// A replica that has not reloaded yet, or a cache, may answer with the picture of before. After the last try, the next message asks again.
async function loadVersion(version, signal) {
  announced = version;
  // The first pause is random, so that the open pages do not all ask at once.
  for (const [tries, pause] of [Math.random() * 200, 500, 1000, 2000, 4000].entries()) {
    await wait(pause, signal);
    if (signal.aborted) return;
    await load(signal, tries);
    if (shown.svg.dataset.version === version) return;
  }
}

// The messages of one WatchTreemap call. A broken stream simply ends: the next picture tells whether the server is there.
async function* events(signal, result) {
  const { version, period, mode } = shown.svg.dataset;
  // Only the version in the answer matters here, so one stock per industry is enough.
  const message = { period, limit: 1, viewMode: mode === "change" ? "VIEW_MODE_CHANGE" : "VIEW_MODE_CURRENT", version };
  const silence = new AbortController();
  let timer;
  const listen = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (result.end !== "heard") result.end = "held back";
      silence.abort();
    }, SILENCE);
  };
  try {
    listen();
    const response = await fetch("/treemap.v1.TreemapService/WatchTreemap", {
      method: "POST",
      headers: { "Content-Type": "application/connect+json", "Connect-Protocol-Version": "1" },
      body: envelope(message),
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok) return;
    const reader = response.body.getReader();
    let bytes = new Uint8Array();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      bytes = joined(bytes, value);
      for (let size; bytes.length >= 5 && bytes.length >= (size = 5 + new DataView(bytes.buffer).getUint32(1)); bytes = bytes.slice(size)) {
        if (bytes[0] & 2) return; // the end of the stream, with or without an error
        listen();
        yield JSON.parse(new TextDecoder().decode(bytes.subarray(5, size)));
      }
    }
  } catch {
    return;
  } finally {
    clearTimeout(timer);
    silence.abort(); // closes the connection when the reader of the events has left
  }
}

function joined(first, second) {
  const bytes = new Uint8Array(first.length + second.length);
  bytes.set(first);
  bytes.set(second, first.length);
  return bytes;
}

// Connect's frame: a byte of flags, the length in four bytes, the JSON.
function envelope(message) {
  const json = new TextEncoder().encode(JSON.stringify(message));
  const head = new Uint8Array(5);
  new DataView(head.buffer).setUint32(1, json.length);
  return joined(head, json);
}

// ---- Banner: the worst of what is wrong, in one sentence

let failure = null; // why the last load failed
let isBack = false;
let freshness = { age: 0, at: 0, stale: false };
let backTimer;

function setFailure(error) {
  if (failure && !failure.lasting && !error && $("banner").classList.contains("on")) {
    isBack = true;
    clearTimeout(backTimer);
    backTimer = setTimeout(() => { isBack = false; showBanner(); }, 4000);
  }
  failure = error;
  showBanner();
}

function setFreshness(age, stale) {
  const turned = stale !== freshness.stale;
  freshness = { age, at: Date.now(), stale };
  showBanner();
  if (turned) resized(); // this banner stays long enough for the picture to make room
}

function showBanner() {
  const cause = failure instanceof Refusal ? failure.message.replace(/\.$/, "") : navigator.onLine ? "The server does not answer" : "You are offline";
  const { age, at, stale } = freshness;
  let text = "";
  if (failure?.lasting) text = failure.message;
  else if (failure) text = shown ? `${cause}; showing the data of ${day(shown.svg.dataset.date)}. Trying again.` : `${cause}. Trying again.`;
  else if (isBack) text = "The server is back.";
  else if (stale) text = `These data are old: reports up to ${day(shown?.svg.dataset.date)}, refreshed ${ago(age + (Date.now() - at) / 1000)}.`;

  $("banner").classList.toggle("on", shown !== null && text !== "");
  $("banner").classList.toggle("good", !failure && isBack);
  $("message").hidden = shown !== null;
  const place = shown ? $("banner") : $("message");
  const sentence = text || (shown ? "" : "Loading…");
  const [words, button] = place.children;
  if (words.textContent !== sentence) words.textContent = sentence;
  button.hidden = failure === null;
}

// ---- Picture

function showPicture(text) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
  if (parsed.documentElement.localName !== "svg" || parsed.querySelector("parsererror")) {
    throw new Refusal(500, "The picture from the server is damaged.");
  }
  const svg = document.importNode(parsed.documentElement, true);
  addBehaviour(svg);
  const before = shown?.svg;
  const held = picture.contains(document.activeElement) ? document.activeElement : null;
  const pinned = tip.classList.contains("pinned") ? tipTarget?.dataset.code : undefined;
  hideTip();
  shown = { svg, text };
  picture.dataset.theme = dark.matches ? "dark" : "light";
  picture.replaceChildren(svg);
  showLabels(svg.dataset);
  if (before) markChanges(before, svg);
  showTable();
  showView();
  markMatches();
  if (held) restoreFocus(held, before);
  const again = pinned && tiles().find((tile) => tile.dataset.code === pinned);
  if (again) showTip(again, ...foot(again), true);
}

const tiles = () => [...shown.svg.querySelectorAll(".tile")];

function addBehaviour(svg) {
  svg.setAttribute("role", "group");
  for (const industry of svg.querySelectorAll(".industry")) {
    industry.setAttribute("role", "group");
    industry.setAttribute("aria-label", industry.dataset.industry);
  }
  for (const head of svg.dataset.industry ? [] : svg.querySelectorAll(".head")) {
    const [name, written] = [industryOf(head), head.querySelector("text")?.textContent ?? ""];
    head.setAttribute("role", "button");
    // Who speaks to the computer says what is written, even where that is cut short.
    head.setAttribute("aria-label", ["", name].includes(written) ? `Open ${name}` : `${written} Open ${name}`);
  }
  for (const tile of svg.querySelectorAll(".tile")) {
    const { code, name } = tile.dataset;
    const value = tile.querySelector("title").textContent.split(", ").at(-1);
    tile.setAttribute("role", "button");
    tile.setAttribute("aria-expanded", "false");
    // As written, then the company: WCAG's "label in name" wants the written words together. Without a space they would be one word.
    tile.setAttribute("aria-label", `${code} ${value}${name ? `: ${name}` : ""}`);
    for (const text of tile.querySelectorAll("text")) text.before(" ");
  }
  const stops = svg.querySelectorAll(STOPS);
  for (const stop of stops) stop.setAttribute("tabindex", "-1");
  svg.querySelector(STOPS.split(",")[0])?.setAttribute("tabindex", "0");
  // The page has its own tooltip; the names stay as aria-label.
  for (const title of svg.querySelectorAll("title")) title.remove();
}

const industryOf = (element) => element.closest(".industry").dataset.industry;

// What is shown is what was answered: the words come from the picture, not from the controls.
function showLabels({ date, mode, period, industry }) {
  const what = mode === "change" ? `Change over ${PERIODS[period] ?? period}` : "";
  document.title = [industry, what, "ASX short positions"].filter(Boolean).join(" · ");
  $("date").textContent = date ? `Reports up to ${day(date)}` : "No reports yet";
  const name = ["asx-short-positions", date, ...(industry ? [industry.replace(/\W+/g, "-")] : [])].join("-");
  $("save-svg").download = `${name}.svg`;
  $("save-csv").download = `${name}.csv`;
}

function showView() {
  picture.hidden = shown === null || state.view !== "picture";
  $("table").hidden = shown === null || state.view !== "table";
}

function markChanges(before, svg) {
  const question = ({ period, mode, limit, industry }) => [period, mode, limit, industry].join();
  if (before.dataset.version === svg.dataset.version || question(before.dataset) !== question(svg.dataset)) return;
  const figures = ({ dataset }) => `${dataset.current} ${dataset.change}`;
  const known = new Map([...before.querySelectorAll(".tile")].map((tile) => [tile.dataset.code, figures(tile)]));
  const changed = tiles().filter((tile) => known.get(tile.dataset.code) !== figures(tile));
  for (const tile of changed) tile.classList.add("changed");
  setTimeout(() => document.querySelectorAll(".changed").forEach((element) => element.classList.remove("changed")), 3000);
  say(`New data: reports up to ${day(svg.dataset.date)}.`);
}

// A new picture takes the focus where the old one had it: the same stock, the industry just left, or the first stock.
function restoreFocus(held, before) {
  const left = !shown.svg.dataset.industry && before?.dataset.industry;
  const same = held.dataset.code && tiles().find((tile) => tile.dataset.code === held.dataset.code);
  const head = [...shown.svg.querySelectorAll(".head")].find((head) => industryOf(head) === (left || held.closest(".industry")?.dataset.industry));
  focusOn(left ? head ?? same : same ?? head);
}

function openIndustry(industry) {
  picture.focus({ preventScroll: true }); // keeps the focus here until the new picture has it
  go({ industry });
}

// ---- Tooltip: one, at the pointer or at the focus; a click or Enter pins it

let tipTarget = null;

function showTip(target, x, y, pinned = false) {
  if (target !== tipTarget || pinned) {
    hideTip();
    tipTarget = target;
    tip.replaceChildren(...(target.matches(".tile") ? stockLines(stockOf(target), pinned) : industryLines(target)));
    tip.classList.toggle("pinned", pinned);
    tip.setAttribute("role", pinned ? "dialog" : "tooltip"); // a tooltip holds no button
    if (pinned) {
      tip.setAttribute("aria-label", target.dataset.code);
      target.setAttribute("aria-expanded", "true");
    }
    target.setAttribute("aria-describedby", "tip");
    tip.hidden = false;
  }
  // Beside the point, on the side that has room, and never outside the window.
  const { clientWidth: width, clientHeight: height } = document.documentElement;
  const beside = (at, size, room) => Math.max(4, at + 14 + size > room - 4 ? Math.min(at - 14 - size, room - 4 - size) : at + 14);
  tip.style.left = `${scrollX + beside(x, tip.offsetWidth, width)}px`;
  tip.style.top = `${scrollY + Math.min(beside(y, tip.offsetHeight, height), height - 4 - tip.offsetHeight)}px`;
}

function hideTip() {
  if (isPinned()) tipTarget.setAttribute("aria-expanded", "false");
  tipTarget?.removeAttribute("aria-describedby");
  tipTarget = null;
  tip.hidden = true;
  tip.classList.remove("pinned");
  tip.removeAttribute("aria-label");
}

const isPinned = () => tip.classList.contains("pinned");

function stockOf(tile) {
  const { code, name, current, earliest, change, reported } = tile.dataset;
  const industry = industryOf(tile);
  return { code, name, industry, current: Number(current), earliest: Number(earliest), change: change ? Number(change) : null, reported };
}

function stockLines(stock, pinned) {
  const { mode, period, industry } = shown.svg.dataset;
  const change = stock.change === null ? "none: no position at the start" : signed(stock.change);
  const facts = [
    ["Position now", percent(stock.current)],
    ["Position then", percent(stock.earliest)],
    [`Change in ${PERIODS[period] ?? period}`, change],
    ["Report", day(stock.reported)],
  ];
  const list = node("dl", {}, ...facts.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, value)]));
  const lines = [node("p", {}, node("strong", {}, stock.code), ` ${stock.name}`), node("p", { class: "quiet" }, stock.industry), list];
  if (pinned && !industry) {
    const open = node("button", { type: "button" }, `Open ${stock.industry}`);
    open.addEventListener("click", () => openIndustry(stock.industry));
    lines.push(open);
  }
  return lines;
}

function industryLines(head) {
  const { industry, stocks } = head.closest(".industry").dataset;
  const here = head.closest(".industry").querySelectorAll(".tile").length;
  return [node("p", {}, node("strong", {}, industry)), node("p", { class: "quiet" }, `${here} of ${stocks} stocks. A click or Enter opens it.`)];
}

// Where the tooltip of the focus points: it leaves the tile itself in sight.
function foot(element) {
  const { left, right, bottom } = element.querySelector("rect").getBoundingClientRect();
  return [(left + right) / 2, bottom - 10];
}

picture.addEventListener("pointermove", (event) => {
  if (isPinned() || event.pointerType === "touch") return;
  const target = event.target.closest(STOPS);
  if (target) showTip(target, event.clientX, event.clientY);
  else hideTip();
});
picture.addEventListener("pointerleave", () => isPinned() || hideTip());
picture.addEventListener("focusin", ({ target }) => {
  if (!target.matches(STOPS)) return;
  for (const stop of shown.svg.querySelectorAll('[tabindex="0"]')) stop.setAttribute("tabindex", "-1");
  target.setAttribute("tabindex", "0");
  if (!isPinned() && target.matches(":focus-visible")) showTip(target, ...foot(target));
});
picture.addEventListener("focusout", () => isPinned() || hideTip());
document.addEventListener("click", (event) => {
  const target = picture.contains(event.target) ? event.target.closest(STOPS) : null;
  if (target) activate(target, event.clientX, event.clientY);
  else if (isPinned() && !tip.contains(event.target)) hideTip();
});

function activate(target, x, y) {
  if (target.matches(".head")) openIndustry(industryOf(target));
  else if (isPinned() && tipTarget === target) hideTip();
  else showTip(target, x, y, true);
}

// ---- Keyboard: all tiles and heads are one tab stop; arrows go to the nearest in their direction

const AXES = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", -1], ArrowDown: ["y", 1] };

picture.addEventListener("keydown", (event) => {
  const target = event.target.closest(STOPS);
  if (!target || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = tiles().filter((tile) => tile.matches(STOPS));
  if (event.key in AXES) focusOn(nearest(target, ...AXES[event.key]) ?? target);
  else if (event.key === "Home") focusOn(all[0]);
  else if (event.key === "End") focusOn(all.at(-1));
  else if (event.key === "Enter" || event.key === " ") activate(target, ...foot(target));
  else return;
  event.preventDefault();
});

function focusOn(element) {
  const stop = element?.matches(STOPS) ? element : shown.svg.querySelector(STOPS);
  if (stop && isPinned() && stop !== tipTarget) hideTip();
  stop?.focus();
}

// Only what lies wholly on that side counts. A step to the side costs double, so that a row stays a row.
function nearest(from, axis, sign) {
  const sides = { x: ["left", "right"], y: ["top", "bottom"] };
  const box = (element) => element.querySelector("rect").getBoundingClientRect();
  const span = (box, axis) => sides[axis].map((side) => box[side]);
  const start = box(from);
  const [near, far] = span(start, axis);
  const across = axis === "x" ? "y" : "x";
  const [low, high] = span(start, across);
  let [best, least] = [null, Infinity];
  for (const candidate of shown.svg.querySelectorAll(STOPS)) {
    const other = box(candidate);
    const [first, last] = span(other, axis);
    const ahead = sign > 0 ? first - far : near - last;
    if (candidate === from || ahead < -1) continue;
    const [start, end] = span(other, across);
    const aside = Math.max(0, start - high, low - end);
    const cost = ahead + 2 * aside + Math.abs(start + end - low - high) / 1000;
    if (cost < least) [best, least] = [candidate, cost];
  }
  return best;
}

// Esc takes back one thing at a time: the menu, the pin, the search, the industry.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if ($("export").open) closeMenu(true);
  else if (isPinned()) {
    if (tip.contains(document.activeElement)) tipTarget.focus();
    hideTip();
  } else if (event.target === $("search") && state.q) setSearch("");
  else if (state.industry) closeIndustry();
  else hideTip();
});

function closeIndustry() {
  picture.focus({ preventScroll: true });
  go({ industry: "" });
}

$("all").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab or window
  event.preventDefault();
  closeIndustry();
});

// ---- Search: every word has to be in the code or the name

function matches(code, name) {
  const text = `${code} ${name}`.toLowerCase();
  return state.q.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

function markMatches() {
  if (!shown) return;
  const searching = state.q.trim() !== "";
  let hits = 0;
  for (const tile of tiles()) {
    const hit = searching && matches(tile.dataset.code, tile.dataset.name);
    tile.classList.toggle("hit", hit);
    hits += hit ? 1 : 0;
  }
  shown.svg.classList.toggle("searching", searching);
  for (const { stock, row } of rows) row.hidden = searching && !matches(stock.code, stock.name);
  $("count").textContent = searching ? `${hits || "none"} of ${tiles().length} stocks` : "";
}

function setSearch(q) {
  state = { ...state, q };
  history.replaceState(null, "", pageUrl());
  showControls();
  markMatches();
}

$("search").addEventListener("input", ({ target }) => setSearch(target.value));
$("search").addEventListener("keydown", ({ key }) => {
  if (key !== "Enter" || !shown || !state.q.trim()) return;
  if (state.view === "table") return $("table").focus();
  const hits = tiles().filter((tile) => tile.classList.contains("hit"));
  const exact = hits.find((tile) => tile.dataset.code === state.q.trim().toUpperCase());
  if (hits.length > 0) focusOn(exact ?? hits[0]);
});

// ---- Table: the same data, built from the tiles

const COLUMNS = [
  { key: "code", label: "Code" },
  { key: "name", label: "Company" },
  { key: "industry", label: "Industry" },
  { key: "current", label: "Position now", number: percent },
  { key: "earliest", label: "Position then", number: percent },
  { key: "change", label: "Change", number: (change) => (change === null ? "none" : signed(change)) },
  { key: "reported", label: "Report", text: day },
];
let rows = []; // { stock, row }
let sorting = null; // { key, sign }: what the reader chose; until then the picture's own rank

function showTable() {
  rows = tiles().map((tile) => {
    const stock = stockOf(tile);
    const cells = COLUMNS.map(({ key, number, text }, index) =>
      node(index === 0 ? "th" : "td", index === 0 ? { scope: "row" } : number ? { class: "number" } : {}, (number ?? text ?? String)(stock[key])));
    return { stock, row: node("tr", tile.matches(".changed") ? { class: "changed" } : {}, ...cells) };
  });
  const heads = COLUMNS.map(({ key, label, number }) => {
    const button = node("button", { type: "button" }, label);
    button.addEventListener("click", () => sortBy(key, number ? -1 : 1));
    return node("th", { scope: "col", "data-key": key, ...(number && { class: "number" }) }, button);
  });
  const { period, date, industry } = shown.svg.dataset;
  const where = industry ? `, ${industry}` : "";
  const when = `reports up to ${day(date)}; then: ${PERIODS[period] ?? period} before`;
  const caption = `Short positions in percent of the issued shares${where}; ${when}`;
  const table = node("table", {}, node("caption", { class: "unseen" }, caption), node("thead", {}, node("tr", {}, ...heads)), node("tbody"));
  const focused = document.activeElement.closest("th")?.dataset.key;
  $("table").replaceChildren(table);
  sortRows();
  if (focused) table.querySelector(`[data-key="${focused}"] button`)?.focus();
}

function sortBy(key, sign) {
  sorting = { key, sign: sorting?.key === key ? -sorting.sign : sign };
  sortRows();
}

function sortRows() {
  const { key, sign } = sorting ?? { key: shown.svg.dataset.mode === "change" ? "change" : "current", sign: -1 };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // none comes last, whichever way
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
  };
  rows.sort((a, b) => compare(a.stock[key], b.stock[key]) || a.stock.code.localeCompare(b.stock.code));
  $("table").querySelector("tbody").replaceChildren(...rows.map(({ row }) => row));
  for (const head of $("table").querySelectorAll("thead th")) {
    if (head.dataset.key === key) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
}

// ---- Export

function closeMenu(focus) {
  $("export").open = false;
  if (focus) $("export").querySelector("summary").focus();
}

// In the open menu, and for screen readers.
function note(text) {
  $("note").textContent = text;
  $("note").hidden = false;
  say(text);
}

$("export").addEventListener("toggle", () => { $("note").hidden = $("link").hidden = true; });
document.addEventListener("click", ({ target }) => $("export").contains(target) || closeMenu());
for (const link of [$("save-svg"), $("save-csv")]) link.addEventListener("click", () => closeMenu(true));

$("save-png").addEventListener("click", async () => {
  if (!shown) return;
  const source = URL.createObjectURL(new Blob([shown.text], { type: "image/svg+xml" }));
  try {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = node("canvas", { width: image.width * 2, height: image.height * 2 });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const png = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const link = node("a", { href: URL.createObjectURL(png), download: $("save-svg").download.replace(/svg$/, "png") });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    closeMenu(true);
  } catch {
    note("This browser cannot make a PNG of this size. Save the SVG instead.");
  } finally {
    URL.revokeObjectURL(source);
  }
});

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    note("Link copied.");
  } catch {
    // No clipboard without https or without leave: the reader copies it by hand.
    $("link").hidden = false;
    $("link").value = location.href;
    $("link").select();
    note("Copy the link from this field.");
  }
});

// ---- Start: whatever changes the question, or makes the answer doubtful, starts anew

$("controls").addEventListener("change", ({ target }) => target.name && go({ [target.name]: target.value }));
for (const button of [$("banner"), $("message")].map((place) => place.querySelector("button"))) button.addEventListener("click", restart);
addEventListener("popstate", () => { state = readState(); arrive(); });
document.addEventListener("visibilitychange", restart);
addEventListener("focus", () => Date.now() - checkedAt > 5000 && restart());
addEventListener("online", restart);
addEventListener("offline", restart);
dark.addEventListener("change", restart);

let resizeTimer;
function resized() {
  clearTimeout(resizeTimer);
  resizeTimer = setTimeout(() => shown && svgUrl() !== shown.url && restart(), 200);
}
let width = main.clientWidth;
new ResizeObserver(() => {
  if (width !== main.clientWidth) resized(); // not for its height: a banner that comes and goes would move all tiles
  width = main.clientWidth;
}).observe(main);
addEventListener("resize", () => { hideTip(); resized(); });

showControls();
restart();
