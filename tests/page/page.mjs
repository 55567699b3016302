// The page in a real Chromium: node page.mjs BASE_URL SCENARIO. Exit status 0, or 1 with one sentence about what failed.
// Where the caller has to do something in between, this prints "READY <step>" and goes on after a line on stdin.
// CHROMIUM: the browser's path. SCREENSHOTS: a folder for screenshots.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [base, scenario] = process.argv.slice(2);
const origin = new URL(base ?? "http://missing").origin;
const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE = 5000;
const DESKTOP = { viewport: { width: 1280, height: 800 }, colorScheme: "light" };
const PHONE = { viewport: { width: 390, height: 844 } };

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
async function ready(step) {
  console.log(`READY ${step}`);
  const { done } = await lines.next();
  check(!done, `the caller goes on after "READY ${step}"`);
}

function check(holds, expectation) {
  if (!holds) throw new Error(`Expected: ${expectation}.`);
}

async function eventually(probe, expectation, patience = PATIENCE) {
  for (const end = Date.now() + patience; Date.now() < end; await new Promise((done) => setTimeout(done, 50))) {
    if (await probe()) return;
  }
  throw new Error(`Expected within ${patience / 1000} s: ${expectation}.`);
}

// ---- What the scenarios ask of the page

async function tabOf(browser, options = {}) {
  const context = await browser.newContext({ ...DESKTOP, ...options });
  await context.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const faults = [];
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`${origin}/`) && !/^(data|blob):/.test(url)) faults.push(`a request to ${url}`);
  });
  return { page, context, faults };
}

async function open(browser, path = "/", options = {}) {
  const tab = await tabOf(browser, options);
  await tab.page.goto(urlOf(path));
  await tab.page.waitForSelector("#picture svg", { state: "attached" });
  return tab;
}

async function clean({ page, faults }) {
  check(faults.length === 0, `no console error and no request to another host, but there was: ${faults[0]}`);
  const violations = await page.evaluate(() => window.violations);
  check(violations.length === 0, `no violation of the content security policy, but there was: ${violations[0]}`);
}

async function axe(page, where) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(async () =>
    (await window.axe.run(document)).violations.map(({ id, nodes }) => `${id} at ${nodes[0].target} (${nodes[0].failureSummary})`));
  check(found.length === 0, `axe finds nothing in ${where}, but it found: ${found.join("; ").replaceAll("\n", " ")}`);
}

async function noOverflow(page, where) {
  const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  check(inner <= outer, `nothing wider than the window in ${where}, but ${inner} px are in ${outer} px`);
}

async function screenshot(page, name) {
  if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}.png` });
}

const urlOf = (path) => base.replace(/\/$/, "") + path;
const isPicture = (url) => url.pathname === "/treemap.svg";
const root = (page, name) => page.evaluate((name) => document.querySelector("#picture svg")?.dataset[name], name);
const query = (page) => new URL(page.url()).search;
const banner = (page) => page.locator("#banner").innerText();
const choose = (page, name, value) => page.locator(`.segment label:has([name=${name}][value=${value}])`).click();
const pinned = (page) => page.locator("#tip.pinned").isVisible();

async function inWindow(page) {
  const box = await page.locator("#tip").boundingBox();
  const { width, height } = page.viewportSize();
  check(box && box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height, "the tooltip stays inside the window");
}

// After scrolling to the end of the page, in a window as low as that of a phone with its keyboard.
async function staysInSight(page, id) {
  await page.setViewportSize({ width: 390, height: 480 });
  const inSight = await page.evaluate((id) => {
    scrollTo(0, document.documentElement.scrollHeight);
    const element = document.getElementById(id);
    const { left, right, top, bottom } = element.getBoundingClientRect();
    return scrollY > 300 && top > -1 && bottom <= innerHeight && element.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2));
  }, id);
  check(inSight, `#${id} stays in sight on a phone`);
}

// ---- Scenarios

async function whole(browser) {
  await controls(browser);
  await tooltip(browser);
  await industry(browser);
  await search(browser);
  await table(browser);
  await keyboard(browser);
  await exports_(browser);
  await sizes(browser);
}

async function controls(browser) {
  const tab = await open(browser, "/?mode=nonsense&period=7y&limit=-3");
  const { page } = tab;
  check((await root(page, "mode")) === "current" && (await root(page, "limit")) === "10", "invalid values in the URL fall back to the defaults");
  await page.goto(base);
  await page.waitForSelector("#picture svg");
  check(/^Reports up to \d+ \w+ \d{4}$/.test(await page.locator("#date").innerText()), "the data date in the header");
  await page.locator("#period select").selectOption("6m");
  await eventually(async () => (await root(page, "period")) === "6m", "the positions of the stocks that reported in six months");
  check((await root(page, "mode")) === "current" && query(page) === "?period=6m", "the period control for positions, too");
  check((await page.locator("#picture title").count()) === 0, "no tooltips of the browser's own");
  await screenshot(page, "light");
  await axe(page, "light colours");

  await choose(page, "mode", "change");
  await eventually(async () => (await root(page, "mode")) === "change", "the picture of the change");
  await page.locator("#period select").selectOption("1y");
  await eventually(async () => (await root(page, "period")) === "1y", "the picture of one year");
  await page.locator("select[name=limit]").selectOption("5");
  await eventually(async () => (await root(page, "limit")) === "5", "the picture of five stocks per industry");
  check(query(page) === "?mode=change&period=1y&limit=5", `the state in the URL, not "${query(page)}"`);
  check((await page.title()).includes("1 year"), "the answered period in the title");
  await page.goBack();
  await eventually(async () => (await root(page, "limit")) === "10", "the back button takes the limit back");
  check((await page.locator("select[name=limit]").inputValue()) === "10", "the control shows the limit that came back");
  await page.reload();
  await eventually(async () => (await root(page, "period")) === "1y" && (await root(page, "mode")) === "change", "the state after a reload");
  await clean(tab);
  await tab.context.close();
}

async function tooltip(browser) {
  const tab = await open(browser);
  const { page } = tab;
  const box = await page.locator("#picture svg").boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.move(box.x + box.width - 5, box.y + box.height - 5);
  await page.locator("#tip").waitFor();
  await inWindow(page);
  const text = await page.locator("#tip").innerText();
  check(["Position now", "Position then", "Change", "Report"].every((word) => text.includes(word)), `all facts in the tooltip, not only "${text}"`);
  await page.mouse.click(box.x + box.width - 5, box.y + box.height - 5);
  check(await pinned(page), "a click pins the tooltip");
  await inWindow(page);
  await axe(page, "a pinned tooltip");
  await page.mouse.move(box.x + 60, box.y + 160);
  check((await page.locator("#tip strong").innerText()) === text.split(" ")[0], "a pinned tooltip stays");
  await page.keyboard.press("Escape");
  check(!(await pinned(page)), "Esc unpins the tooltip");
  await page.locator(".tile").first().click();
  check(await pinned(page), "a click pins again");
  await page.locator("h1").click();
  check(!(await page.locator("#tip").isVisible()), "a click elsewhere unpins");
  await clean(tab);
  await tab.context.close();
}

async function industry(browser) {
  const tab = await open(browser);
  const { page } = tab;
  const name = await page.evaluate(() => document.querySelector(".head[role=button]").parentElement.dataset.industry);
  const inside = () => root(page, "industry");
  await page.locator(".head[role=button]").first().click();
  await eventually(async () => (await inside()) === name, "a click on its head opens an industry");
  check(new URL(page.url()).searchParams.get("industry") === name, "the industry in the URL");
  check((await page.locator("#crumb").innerText()).includes(name), "the industry in the crumb");
  check(Number(await root(page, "limit")) === 100, "a hundred stocks in an open industry");
  await screenshot(page, "industry");
  await axe(page, "an open industry");
  await page.keyboard.press("Escape");
  await eventually(async () => (await inside()) === undefined, "Esc closes the industry");
  await page.locator(".head[role=button]").first().focus();
  await page.keyboard.press("Enter");
  await eventually(async () => (await inside()) === name, "Enter on its head opens an industry");
  await page.locator("#all").click();
  await eventually(async () => (await inside()) === undefined, "the crumb closes the industry");
  await page.locator(".tile").first().click();
  await page.locator("#tip button").click();
  await eventually(async () => (await inside()) !== undefined, "the button in a pinned tooltip opens its industry");
  await page.goBack();
  await eventually(async () => (await inside()) === undefined, "the back button closes the industry");
  await clean(tab);
  await tab.context.close();
}

async function search(browser) {
  const tab = await open(browser);
  const { page } = tab;
  const code = await page.evaluate(() => [...document.querySelectorAll(".tile")].at(-1).dataset.code);
  const pushes = await page.evaluate(() => history.length);
  await page.locator("#search").pressSequentially(code.toLowerCase());
  check(query(page) === `?q=${code.toLowerCase()}`, "the search in the URL");
  check((await page.evaluate(() => history.length)) === pushes, "typing adds no steps to the history");
  const hits = await page.locator(".tile.hit").count();
  check(hits >= 1, "the stock is marked");
  check((await page.locator("#count").innerText()) === `${hits} of ${await page.locator(".tile").count()} stocks`, "the count of matches");
  const other = page.locator(".tile:not(.hit)").first();
  check(Number(await other.evaluate((tile) => getComputedStyle(tile).opacity)) < 0.5, "the others are dimmed");
  await axe(page, "an active search");
  await page.keyboard.press("Enter");
  check((await page.evaluate(() => document.activeElement.dataset.code)) === code, "Enter focuses the match");
  await page.locator("#search").fill("no such company");
  check((await page.locator("#count").innerText()).startsWith("none of"), "a search without matches says so");
  await page.locator("#search").focus();
  await page.keyboard.press("Escape");
  check((await page.locator("#search").inputValue()) === "" && query(page) === "", "Esc clears the search");
  await clean(tab);
  await tab.context.close();
}

async function table(browser) {
  const tab = await open(browser);
  const { page } = tab;
  const stocks = await page.locator(".tile").count();
  await choose(page, "view", "table");
  await page.locator("#table table").waitFor();
  check(!(await page.locator("#picture").isVisible()), "the table stands in place of the picture");
  check((await page.locator("tbody tr").count()) === stocks, "a row for each tile");
  check(await page.locator("#period").isVisible(), "the period control above the table");
  const codes = () => page.locator("tbody th").allInnerTexts();
  await page.locator("thead button", { hasText: "Code" }).click();
  check((await page.locator("th[aria-sort]").getAttribute("aria-sort")) === "ascending", "aria-sort says ascending");
  const sorted = await codes();
  check(sorted.join() === [...sorted].sort((a, b) => a.localeCompare(b)).join(), "the rows in the order of their codes");
  await page.locator("thead button", { hasText: "Code" }).click();
  check((await codes()).join() === sorted.reverse().join(), "the other direction at the second click");
  await page.locator("#search").fill(sorted[0]);
  check((await page.locator("tbody tr:visible").count()) < stocks, "the search filters the table");
  await page.locator("#search").fill("");
  await axe(page, "the table");
  await page.goBack();
  await eventually(() => page.locator("#picture").isVisible(), "the back button shows the picture");
  await clean(tab);
  await tab.context.close();
}

async function keyboard(browser) {
  const tab = await open(browser);
  const { page } = tab;
  const active = (name) => page.evaluate((name) => document.activeElement.dataset[name], name);
  let stops = 0;
  for (; stops < 20 && (await active("code")) === undefined; stops += 1) await page.keyboard.press("Tab");
  check(stops < 20, "the Tab key reaches a tile");
  check(await page.locator("#tip").isVisible(), "the tooltip at the focus");
  await inWindow(page);
  await page.keyboard.press("End");
  const last = await active("code");
  await inWindow(page);
  await page.keyboard.press("Home");
  const first = await active("code");
  check(first !== last, "Home and End reach different tiles");
  check((await page.locator('#picture [tabindex="0"]').count()) === 1, "all tiles are one tab stop");
  await page.keyboard.press("ArrowUp");
  check(await page.evaluate(() => document.activeElement.matches(".head[role=button]")), "the arrow up reaches the head of the industry");
  await page.keyboard.press("ArrowDown");
  const codes = new Set();
  for (let step = 0; step < 8; step += 1) {
    await page.keyboard.press("ArrowRight");
    codes.add(await active("code"));
  }
  check(codes.size > 2, "the arrow right walks over tiles");
  await page.keyboard.press("Home");
  await page.keyboard.press("Enter");
  check(await pinned(page), "Enter pins the tooltip");
  const tile = page.locator(".tile[aria-expanded=true]");
  check((await tile.count()) === 1 && (await tile.getAttribute("role")) === "button", "the tile is a button, expanded while its tooltip is pinned");
  check((await tile.getAttribute("aria-label")).startsWith(`${first} `), "its name begins with its code");
  await page.keyboard.press("Tab");
  check(await page.evaluate(() => document.activeElement.matches("#tip button")), "the Tab key reaches the button in the tooltip");
  await page.keyboard.press("Escape");
  check(!(await pinned(page)) && (await tile.count()) === 0, "Esc in the tooltip unpins it");
  check((await active("code")) === first, "the focus is back at its tile");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await eventually(async () => (await root(page, "industry")) !== undefined, "the button in the tooltip opens the industry by keyboard");
  const name = await root(page, "industry");
  await eventually(async () => (await active("code")) !== undefined, "the focus is on a tile of the open industry");
  await page.keyboard.press("Escape");
  await eventually(async () => (await root(page, "industry")) === undefined, "Esc closes the industry by keyboard");
  await eventually(() => page.evaluate((name) => document.activeElement.closest(".industry")?.dataset.industry === name, name), "the focus is back at the industry");
  await page.keyboard.press("Shift+Tab");
  check(await page.evaluate(() => !document.activeElement.closest("#picture")), "Shift and Tab leave the picture");
  await clean(tab);
  await tab.context.close();
}

async function exports_(browser) {
  const tab = await open(browser);
  const { page } = tab;
  for (const [label, ending] of [["Picture as SVG", "svg"], ["Picture as PNG", "png"], ["Table as CSV", "csv"]]) {
    await page.locator("#export summary").click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#menu").getByText(label).click()]);
    check(download.suggestedFilename().endsWith(`.${ending}`), `a file *.${ending}, not ${download.suggestedFilename()}`);
    await checkFile(page, ending, readFileSync(await download.path()));
  }
  await tab.context.grantPermissions(["clipboard-read", "clipboard-write"], { origin });
  await choose(page, "mode", "change");
  await page.locator("#export summary").click();
  await page.locator("#copy").click();
  await eventually(async () => (await page.locator("#live").textContent()) === "Link copied.", "the word that the link is copied");
  const note = async () => (await page.locator("#note:visible").allInnerTexts()).join();
  check((await note()) === "Link copied.", "that word in the menu, too");
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  check(copied === page.url() && copied.endsWith("?mode=change"), `the URL in the clipboard, not "${copied}"`);
  await page.keyboard.press("Escape");
  await page.locator("#export summary").click();
  await eventually(async () => (await note()) === "", "no old word in a menu that is opened again");
  await axe(page, "the open menu");
  await page.evaluate(() => {
    navigator.clipboard.writeText = () => Promise.reject(new Error("denied"));
    HTMLCanvasElement.prototype.toBlob = (done) => done(null);
  });
  await page.locator("#copy").click();
  await eventually(async () => (await note()).startsWith("Copy the link"), "what to do without a clipboard, for all to see");
  check((await page.locator("#link").inputValue()) === page.url(), "the link to copy by hand");
  await page.locator("#save-png").click();
  await eventually(async () => (await note()).includes("cannot make a PNG"), "the word that there is no PNG, for all to see");
  await page.keyboard.press("Escape");
  check(!(await page.locator("#export").evaluate((details) => details.open)), "Esc closes the menu");
  await page.emulateMedia({ media: "print" });
  check(!(await page.locator("#controls").isVisible()), "no controls in print");
  check((await page.locator("#date").isVisible()) && (await page.locator("#picture svg").isVisible()), "picture and date in print");
  await clean(tab);
  await tab.context.close();
}

async function checkFile(page, ending, file) {
  if (ending === "svg") check(file.toString().startsWith("<svg"), "an SVG in the file");
  if (ending === "csv") {
    const rows = file.toString().trim().split("\r\n");
    check(rows[0].startsWith("industry,code,") && rows.length === 1 + (await page.locator(".tile").count()), "a row for each tile in the CSV");
  }
  if (ending === "png") {
    check(file.subarray(0, 8).equals(Buffer.from("\x89PNG\r\n\x1a\n", "latin1")), "the signature of a PNG in the file");
    const size = await page.evaluate(() => ["width", "height"].map((side) => 2 * document.querySelector("#picture svg").getAttribute(side)));
    const found = [file.readUInt32BE(16), file.readUInt32BE(20)];
    check(found.join() === size.join(), `a PNG of twice the picture's size, ${size.join(" x ")}, not ${found.join(" x ")}`);
    const colours = await page.evaluate(async (base64) => {
      const image = await createImageBitmap(new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))]));
      const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
      context.drawImage(image, 0, 0);
      return new Set(new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer)).size;
    }, file.toString("base64"));
    check(colours > 10, `the picture in the PNG, not ${colours} colours`);
  }
}

async function sizes(browser) {
  const dark = await open(browser, "/?mode=change", { colorScheme: "dark" });
  await axe(dark.page, "dark colours");
  await choose(dark.page, "mode", "current");
  await eventually(async () => (await root(dark.page, "mode")) === "current", "the picture of positions in dark colours");
  await axe(dark.page, "positions in dark colours");
  await screenshot(dark.page, "dark");
  const light = dark.page.waitForRequest((request) => request.url().includes("theme=light"));
  await dark.page.emulateMedia({ colorScheme: "light" });
  await light;
  await choose(dark.page, "view", "table");
  await dark.page.emulateMedia({ colorScheme: "dark" });
  await dark.page.locator("#table table").waitFor();
  await axe(dark.page, "the table in dark colours");
  await clean(dark);
  await dark.context.close();

  const phone = await open(browser, "/", PHONE);
  const { width, height } = await phone.page.locator("#picture svg").boundingBox();
  check(height > 1.9 * width, "a tall picture on a phone");
  await screenshot(phone.page, "phone");
  await staysInSight(phone.page, "date");
  const distance = await phone.page.evaluate(() => {
    document.getElementById("picture").scrollIntoView();
    return document.getElementById("picture").getBoundingClientRect().top - document.getElementById("date").getBoundingClientRect().bottom;
  });
  check(distance > -1, `the date above what is scrolled to, not over ${-distance} px of it`);
  await phone.page.emulateMedia({ media: "print" });
  check((await phone.page.locator("#date").evaluate((date) => getComputedStyle(date).position)) === "static", "no sticky date in print");
  await phone.page.emulateMedia({ media: "screen" });
  for (const path of ["/", "/?mode=change&period=max", "/?view=table"]) {
    await phone.page.setViewportSize({ width: 320, height: 640 });
    await phone.page.goto(urlOf(path));
    await phone.page.waitForSelector("#picture svg", { state: "attached" });
    await noOverflow(phone.page, `a window of 320 px at ${path}`);
  }
  const wide = phone.page.waitForRequest((request) => /width=9\d\d&/.test(request.url()));
  await phone.page.setViewportSize({ width: 1000, height: 700 });
  await wide;
  await clean(phone);
  await phone.context.close();

  const cinema = await open(browser, "/", { viewport: { width: 3840, height: 2160 } });
  const box = await cinema.page.locator("#picture svg").boundingBox();
  check(box.width > 3840 - 48 && box.y + box.height > 2160 - 48, `a picture that fills a window of 3840 x 2160, not one of ${box.width} x ${box.height}`);
  await noOverflow(cinema.page, "a window of 3840 px");
  check(await cinema.page.evaluate(() => document.documentElement.scrollHeight <= innerHeight), "nothing to scroll in a window of 3840 x 2160");
  await screenshot(cinema.page, "4k");
  await clean(cinema);
  await cinema.context.close();

  for (const [reducedMotion, moves] of [["no-preference", true], ["reduce", false]]) {
    const tab = await open(browser, "/", { reducedMotion });
    const motion = await tab.page.evaluate(() => {
      document.querySelector(".tile").classList.add("changed");
      return document.getAnimations().length > 0 || parseFloat(getComputedStyle(document.getElementById("picture")).transitionDuration) > 0;
    });
    check(motion === moves, `${moves ? "an" : "no"} animation of a changed tile with prefers-reduced-motion: ${reducedMotion}`);
    await tab.context.close();
  }

  const plain = await browser.newContext({ ...DESKTOP, javaScriptEnabled: false });
  const page = await plain.newPage();
  await page.goto(base);
  check(await page.locator("noscript img, img").first().isVisible(), "a picture without JavaScript");
  check(!(await page.locator("#controls").isVisible()), "no dead controls without JavaScript");
  await plain.close();
}

async function live(browser) {
  const tab = await open(browser);
  const { page } = tab;
  const before = await root(page, "version");
  await page.evaluate(() => { window.sameDocument = true; });
  await page.waitForTimeout(500); // the stream opens
  await ready("loaded");
  await eventually(async () => (await root(page, "version")) !== before, "the new version without a reload");
  check((await page.locator(".tile.changed").count()) > 0, "the changed tiles are marked");
  check(await page.evaluate(() => window.sameDocument === true), "the document is still the same");
  check(/^New data: reports up to/.test(await page.locator("#live").textContent()), "the new data are announced");
  await screenshot(page, "live");
  await eventually(async () => (await page.locator(".changed").count()) === 0, "the marks go after 3 s");
  await clean(tab);
}

async function hidden(browser) {
  const context = await browser.newContext(DESKTOP);
  await context.addInitScript(() => {
    window.away = false;
    Object.defineProperty(document, "hidden", { get: () => window.away });
    Object.defineProperty(document, "visibilityState", { get: () => (window.away ? "hidden" : "visible") });
  });
  const page = await context.newPage();
  const watches = new Set();
  page.on("request", (request) => request.url().endsWith("/WatchTreemap") && watches.add(request));
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, (request) => watches.delete(request));
  const turn = (away) => page.evaluate((away) => {
    window.away = away;
    document.dispatchEvent(new Event("visibilitychange"));
  }, away);
  await page.goto(base);
  await eventually(() => watches.size === 1, "one WatchTreemap request while visible");
  await ready("visible");
  await turn(true);
  await eventually(() => watches.size === 0, "no WatchTreemap request while hidden");
  await page.waitForTimeout(2500); // longer than the first wait for a new connection
  check(watches.size === 0, "still no WatchTreemap request while hidden");
  await ready("hidden");
  await turn(false);
  await eventually(() => watches.size === 1, "one WatchTreemap request when visible again");
  await ready("visible again");
}

async function restart(browser) {
  const { page, context } = await open(browser);
  const tiles = await page.locator(".tile").count();
  await ready("loaded");
  await eventually(async () => (await banner(page)).includes("does not answer"), "the banner that the server does not answer", 15_000);
  check((await page.locator(".tile").count()) === tiles && (await page.locator("#picture svg").isVisible()), "the old picture stays");
  await screenshot(page, "gone");
  await axe(page, "the page without its server");
  const watch = page.waitForRequest((request) => request.url().endsWith("/WatchTreemap"), { timeout: 45_000 });
  await ready("gone");
  await eventually(async () => (await banner(page)).trim() === "The server is back.", "the banner that the server is back", 40_000);
  await watch;
  await eventually(async () => !(await banner(page)).includes("back"), "the word that the server is back goes, too", 8000);

  await context.setOffline(true);
  await eventually(async () => (await banner(page)).includes("offline"), "the offline banner");
  check((await page.locator(".tile").count()) === tiles, "the picture stays offline");
  await context.setOffline(false);
  await eventually(async () => !(await banner(page)).includes("offline"), "no offline banner when online again");
}

async function stale(browser) {
  const tab = await open(browser);
  await eventually(async () => /^These data are old: reports up to .+, refreshed .+\.$/.test((await banner(tab.page)).trim()), "the banner for stale data");
  await screenshot(tab.page, "stale");
  await axe(tab.page, "the page with stale data");
  await clean(tab);

  const { page } = await open(browser, "/", PHONE);
  await eventually(async () => (await banner(page)).includes("These data are old"), "the banner on a phone");
  await screenshot(page, "stale-phone");
  await staysInSight(page, "date");
  await staysInSight(page, "banner");
}

async function refusals(browser) {
  const nothing = await tabOf(browser);
  let asked = 0;
  nothing.page.on("request", (request) => { asked += isPicture(new URL(request.url())) ? 1 : 0; });
  await nothing.page.goto(urlOf("/?industry=Nothing"));
  const message = nothing.page.locator("#message span");
  await eventually(async () => (await message.innerText()) === 'There is no industry "Nothing" with stocks to show.', "the server's sentence");
  const before = asked;
  await nothing.page.waitForTimeout(1500);
  check(asked === before, "what the server refused is not asked for again at once");
  await nothing.page.getByRole("button", { name: "Retry" }).click();
  await eventually(() => asked > before, "Retry asks again");
  await nothing.context.close();

  const { page, context } = await open(browser);
  const refuse = (status, contentType, body) => page.route(isPicture, (route) => route.fulfill({ status, contentType, body }));
  await refuse(404, "text/plain; charset=utf-8", "There is no such picture.\n");
  await page.locator("select[name=limit]").selectOption("5");
  await eventually(async () => (await banner(page)).includes("There is no such picture."), "the server's sentence in the banner");
  await page.unroute(isPicture);
  await page.getByRole("button", { name: "Try now" }).click();
  await eventually(async () => (await root(page, "limit")) === "5", "Try now brings the picture");
  await eventually(async () => (await banner(page)).trim() === "", "no banner with the picture");

  await refuse(502, "text/html", "<html><h1>502 Bad Gateway</h1>nginx</html>");
  await page.locator("select[name=limit]").selectOption("20");
  await eventually(async () => (await banner(page)).includes("status 502"), "the status in the banner");
  check(!/Bad Gateway|nginx|</.test(await banner(page)), "nothing of a proxy's page in the banner");
  await refuse(503, "text/plain", "too long ".repeat(1000));
  await eventually(async () => (await banner(page)).includes("too long"), "the next refusal in the banner", 10_000);
  check((await banner(page)).length < 400, "no more than some words of a long text");
  await page.unroute(isPicture);
  await eventually(async () => (await banner(page)).trim() === "The server is back.", "the banner that the server is back", 30_000);
  check((await root(page, "limit")) === "20", "the picture that was asked for");
  await context.close();

  const untouched = await tabOf(browser);
  await untouched.page.addInitScript(() => {
    const { setTimeout } = window;
    const shorter = (time) => (time >= 30_000 && time <= 60_000 ? 1000 : time);
    window.setTimeout = (done, time, ...rest) => setTimeout(done, shorter(time), ...rest);
  });
  let refused = false;
  await untouched.page.route(isPicture, (route) => {
    if (refused) return route.continue();
    refused = true;
    return route.fulfill({ status: 404, contentType: "text/plain", body: "Not yet." });
  });
  await untouched.page.goto(urlOf("/"));
  await eventually(() => untouched.page.locator("#picture svg").isVisible(), "a page that nobody touches recovers from a refusal");
  await untouched.context.close();
}

async function behind(browser) {
  const { page } = await open(browser);
  const before = await root(page, "version");
  const old = await page.evaluate(() => fetch(document.getElementById("save-svg").href).then((answer) => answer.text()));
  const asked = [];
  await page.route((url) => isPicture(url) && url.searchParams.has("version"), (route) => {
    asked.push(new URL(route.request().url()).searchParams.get("version"));
    return asked.length === 1 ? route.fulfill({ contentType: "image/svg+xml", body: old }) : route.continue();
  });
  await ready("loaded");
  await eventually(async () => (await root(page, "version")) !== before, "the new picture soon, though the first answer was the old one");
  const version = await root(page, "version");
  check(asked.length > 1 && asked.every((one) => one === version), `the announced version ${version} in the URL, not ${asked}`);
}

// The names that tests/it/page.rs has put into the database.
async function hostile(browser) {
  const name = '<img src=x onerror="window.ran=1"><b>Sons</b>';
  const industry = "Mines & <b>Ores</b>";
  const tab = await open(browser);
  const { page } = tab;
  await page.locator(".tile").first().click();
  check((await page.locator("#tip").innerText()).includes(name), "the company's name as text in the tooltip");
  await page.locator("#tip button").click();
  await eventually(async () => (await root(page, "industry")) === industry, "the industry opens by its name");
  check((await page.locator("#here").innerText()) === industry, "the industry's name as text in the crumb");
  await choose(page, "view", "table");
  await page.locator("#table table").waitFor();
  check((await page.locator("tbody td").first().innerText()) === name, "the company's name as text in the table");
  check((await page.locator("main :is(img, b, script)").count()) === 0, "no elements of a name");
  check(await page.evaluate(() => window.ran === undefined), "nothing of a name has run");
  await clean(tab);
}

// ---- Start

const scenarios = { whole, live, hidden, restart, stale, refusals, behind, hostile };
let status = 1;
let browser;
try {
  check(base && scenarios[scenario], `node page.mjs BASE_URL ${Object.keys(scenarios).join("|")}`);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
  await scenarios[scenario](browser);
  status = 0;
} catch (error) {
  const at = /page\.mjs:\d+/.exec(error.stack.split("\n").filter((line) => !/check|eventually|node_modules/.test(line)).join("\n"));
  console.error(`${error.message.split("\n")[0]} (${at ?? scenario})`);
}
await browser?.close();
process.exit(status);
