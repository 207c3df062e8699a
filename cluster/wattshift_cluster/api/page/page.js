// The live page: one stream for what changes each second, a slow poll for the tables.
// Everything from the controller goes into the page as text, never as HTML.

import { byGravity } from "./alarms.js";
import { Chart, watts } from "./chart.js";
import { facts } from "./grid.js";
import { PlanChart, words } from "./plan.js";
import { shortWords } from "./short.js";
import { Refusal, ask, follow } from "./stream.js";

const POLL_MS = 2000;
const LOG_ROWS = 120;
const LOST_AFTER_MS = 4000;
const PLAN_MS = 30000; // between two looks at the plan, where no decision tells of a new one
const TOKEN_KEY = "wattshift-token";

const $ = (id) => document.getElementById(id);
const chart = new Chart($("chart"), $("readout"));
const planned = new PlanChart($("plan"), $("plan-readout"));
const view = { site: null, steps: [], at: 0, planAt: -Infinity, linked: false, lostAt: performance.now(), subject: null, decisions: [] };
let token = takeToken();

// A token in the address (#token=…) is moved out of it, so that it is not bookmarked or copied on.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(TOKEN_KEY, given);
    history.replaceState(null, "", location.pathname);
  }
  return given ?? sessionStorage.getItem(TOKEN_KEY);
}

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.map((part) => part ?? "–"));
  return element;
}

function big(id, value, unit) {
  $(id).replaceChildren(value, ...(unit ? [make("span", "unit", unit)] : []));
}

function bigWatts(id, w) {
  if (w === null || w === undefined) return big(id, "unknown");
  const [value, unit] = watts(w).split(" ");
  big(id, value, unit);
}

const clock = (at) => new Date(at).toLocaleTimeString([], { hour12: false });
const seconds = (s) => (s === null ? "unknown" : s < 10 ? `${s.toFixed(1)} s` : `${Math.round(s)} s`);

function hashrate(h) {
  if (h === null) return "unknown";
  const [size, unit] = [[1e12, "TH/s"], [1e9, "GH/s"], [1e6, "MH/s"], [1e3, "kH/s"], [1, "H/s"]].find(([n]) => h >= n) ?? [1, "H/s"];
  return `${(h / size).toPrecision(3)} ${unit}`;
}

function take(site) {
  view.site = site;
  view.at = performance.now();
  soon(showSite);
}

function showSite() {
  const { site } = view;
  $("name").textContent = site.name;
  bigWatts("power", site.power_w);
  $("power-note").textContent = site.power_w === null ? "no meter reading" : site.power_quality;
  bigWatts("cap", site.cap_w);
  $("cap-note").textContent = [site.cap_origin, `margin ${watts(site.margin_w)}`].filter(Boolean).join(", ");
  bigWatts("headroom", site.headroom_w);
  $("headroom-note").textContent = `committed ${watts(site.committed_w)}`;
  big("price", site.price_usd_per_mwh === null ? "unknown" : site.price_usd_per_mwh.toFixed(1));
  const carbon = site.carbon_g_per_kwh;
  $("price-note").textContent = carbon === null ? "USD/MWh" : `USD/MWh, ${Math.round(carbon)} g/kWh`;
  const { accepted, rejected, lost } = site.shares;
  big("shares", accepted.toLocaleString("en"));
  $("shares-note").textContent = `${rejected} rejected, ${lost} lost`;
  const over = site.power_w !== null && site.cap_w !== null && site.power_w > site.cap_w;
  $("power").closest(".tile").classList.toggle("bad", over);
  document.title = `${watts(site.power_w)} of ${watts(site.cap_w)} · wattshift`;
  showFeeders(site.feeders);
  showGrid();
}

function showGrid() {
  $("grid").replaceChildren(
    ...facts(view.site, view.steps).map(({ name, value, notes, bad }) =>
      make("div", bad ? "bad" : "", make("dt", "", name), make("dd", "", value, ...notes.map((note) => make("small", "", note)))),
    ),
  );
}

function showPlan(plan) {
  const told = words(plan);
  $("plan-panel").hidden = told === null;
  if (told === null) return;
  $("plan-title").textContent = plan.horizon_s ? `Plan, next ${Math.round(plan.horizon_s / 3600)} hours` : "Plan";
  $("plan-words").textContent = told.text;
  $("plan-words").classList.toggle("bad", told.bad);
  $("plan").hidden = $("plan-readout").hidden = !plan.rows.length;
  planned.show(plan);
}

function showFeeders(feeders) {
  $("feeders").replaceChildren(
    ...feeders.map((feeder) => {
      const share = feeder.limit_w > 0 ? feeder.committed_w / feeder.limit_w : 1;
      const fill = make("i");
      fill.style.width = `${Math.min(share, 1) * 100}%`;
      const short = shortWords(feeder);
      const bar = make("div", share > 1.001 || short ? "bar full" : "bar", fill);
      const both = feeder.second_parent ? `, fed by ${feeder.parent} or ${feeder.second_parent}` : "";
      const text = make("div", "row", make("span", "", feeder.id, make("small", "", both)), make("span", "soft", `${watts(feeder.committed_w)} of ${watts(feeder.limit_w)}`));
      return make("div", "feeder", text, bar, ...(short ? [make("small", "bad", `short ${short}`)] : []));
    }),
  );
}

function rows(body, list, columns, empty) {
  if (list.length) {
    $(body).replaceChildren(...list.map((one) => make("tr", "", ...columns(one))));
    return;
  }
  const cell = make("td", "why", empty);
  cell.colSpan = 9;
  $(body).replaceChildren(make("tr", "", cell));
}

function showDevices(devices) {
  rows("devices", devices, (d) => {
    const open = make("button", "plain", d.id);
    open.type = "button";
    open.addEventListener("click", () => filter(d.id));
    const quality = d.quality === "measured" ? "" : d.quality;
    return [
      make("td", "", open, make("small", "", `${d.kind}, ${d.model}`)),
      make("td", "", make("span", `state ${d.state}`, d.state)),
      make("td", "", d.mode),
      make("td", "num", d.watts_w === null ? "unknown" : watts(d.watts_w), make("small", "", quality)),
      make("td", "num", d.leased_w === null ? "none" : watts(d.leased_w)),
      make("td", "num", watts(d.ceiling_w)),
      make("td", "num", hashrate(d.hashrate_h_per_s)),
      make("td", "num", seconds(d.age_s)),
      make("td", "why", d.reason),
    ];
  }, "no device has joined yet");
}

function showJobs(jobs) {
  const final = ["completed", "failed", "cancelled"];
  const order = jobs.toSorted((a, b) => final.includes(a.state) - final.includes(b.state));
  rows("jobs", order.slice(0, 50), (job) => {
    const done = job.progress ? `${job.progress.done} of ${job.progress.total ?? "?"}` : job.kind;
    return [
      make("td", "", job.name, make("small", "", done)),
      make("td", "", make("span", `state ${job.state}`, job.state)),
      make("td", "num", job.watts_w === null ? "–" : watts(job.watts_w)),
      make("td", "why", job.reason),
    ];
  }, "no job has been submitted");
}

function decisionRow(decision) {
  const time = make("time", "", clock(decision.at));
  time.dateTime = decision.at;
  return make("li", "", time, make("span", "subject", decision.subject), make("span", "action", decision.action), make("span", "why", decision.reason));
}

const same = (a, b) => a.at === b.at && a.subject === b.subject && a.reason === b.reason;

function showLog() {
  const shown = view.decisions.filter((d) => !view.subject || d.subject === view.subject).sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
  $("log").replaceChildren(...shown.slice(0, LOG_ROWS).map(decisionRow));
  $("unfilter").hidden = !view.subject;
  $("unfilter").textContent = `only ${view.subject}: show all`;
}

async function filter(subject) {
  view.subject = subject;
  const query = subject ? `&subject=${encodeURIComponent(subject)}` : "";
  view.decisions = (await ask(`/v1/decisions?limit=${LOG_ROWS}${query}`, token)).decisions;
  showLog();
  if (subject) $("log-title").scrollIntoView({ behavior: "smooth", block: "nearest" });
}

function showAge() {
  const quiet = (performance.now() - view.at) / 1000;
  const site = view.site;
  const age = site && site.power_age_s !== null ? site.power_age_s + quiet : null;
  big("age", ...(age === null ? ["unknown"] : seconds(age).split(" ")));
  $("age-note").textContent = site ? `tick ${site.tick}, epoch ${site.epoch}` : "";
  const troubles = [];
  if (site?.mode === "shadow") troubles.push("Shadow: nothing is commanded. Leases and decisions below were not carried out.");
  const lost = !view.linked && performance.now() - view.lostAt > LOST_AFTER_MS;
  if (lost) troubles.push("The controller does not answer: everything below is old.");
  else if (site && quiet > 5) troubles.push(`No news from the controller for ${Math.round(quiet)} s.`);
  if (site?.meter_stale) troubles.push("The meter is stale: site power is unknown, and the margin is widened.");
  const [grave, others] = byGravity(site?.alarms ?? []);
  lines("banner", [...troubles, ...grave]);
  lines("warnings", others);
  $("age").closest(".tile").classList.toggle("bad", Boolean(lost || site?.meter_stale));
}

function lines(id, texts) {
  const text = texts.join("\n");
  if ($(id).textContent !== text) $(id).textContent = text; // written anew, it would be read aloud anew
  $(id).hidden = !texts.length;
}

const handlers = {
  site(site) {
    take(site);
    chart.add(site);
  },
  decision(decision) {
    if (view.decisions.some((d) => same(d, decision))) return; // a replay may overlap the first list
    if (decision.action === "plan") view.planAt = -Infinity;
    view.decisions.unshift(decision);
    view.decisions.length = Math.min(view.decisions.length, 400);
    if (!view.subject || view.subject === decision.subject) soon(showLog);
  },
  signal() {
    if (view.site) chart.mark(Date.parse(view.site.at) / 1000);
  },
  reset() {
    chart.clear();
  },
};

const pending = new Set();
function soon(work) {
  if (pending.has(work)) return;
  pending.add(work);
  requestAnimationFrame(() => {
    pending.delete(work);
    work();
  });
}

function onLink(linked) {
  if (view.linked && !linked) view.lostAt = performance.now();
  view.linked = linked;
  $("link").textContent = linked ? "live" : "reconnecting";
  $("link").className = linked ? "link live" : "link lost";
}

async function poll() {
  for (;;) {
    if (!document.hidden && view.linked) {
      try {
        const asked = ["/v1/devices", "/v1/jobs", "/v1/flexibility"].map((path) => ask(path, token));
        const [devices, jobs, flexibility] = await Promise.all(asked);
        view.steps = flexibility.steps;
        showDevices(devices.devices);
        showJobs(jobs.jobs);
        soon(showGrid);
        if (performance.now() - view.planAt > PLAN_MS) {
          view.planAt = performance.now();
          showPlan(await ask("/v1/plan", token));
        }
      } catch (error) {
        if (error instanceof Refusal) throw error;
      }
    }
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

function knock(why) {
  $("main").hidden = true;
  $("door").hidden = false;
  $("refusal").textContent = why;
  $("link").textContent = "no token";
  $("link").className = "link";
  $("secret").focus();
}

async function open() {
  try {
    take(await ask("/v1/site", token));
  } catch (error) {
    if (error instanceof Refusal) return knock(error.message);
  }
  $("door").hidden = true;
  $("main").hidden = false;
  const ticking = setInterval(showAge, 500);
  try {
    await Promise.all([
      follow(token, { onEvent: (name, data) => handlers[name]?.(data), onLink }),
      filter(null).catch(() => {}),
      poll(),
    ]);
  } catch (error) {
    clearInterval(ticking);
    if (!(error instanceof Refusal)) throw error;
    sessionStorage.removeItem(TOKEN_KEY);
    location.reload();
  }
}

$("unfilter").addEventListener("click", () => filter(null));
$("door").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("secret").value.trim();
  sessionStorage.setItem(TOKEN_KEY, token);
  open();
});
if (token) open();
else knock("");
