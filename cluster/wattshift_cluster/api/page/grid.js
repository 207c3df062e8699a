// What the grid asks of the site, now and next, and what the site could give, in words and figures.

import { watts } from "./chart.js";
import { shortWords } from "./short.js";

const SHOWN_DEADLINES = [[1, "1 s"], [10, "10 s"], [600, "10 min"]];
const PHASES = ["latched", "shed", "blind", "waiting", "returning", "ready"]; // the gravest first

const known = (w) => (w === null || w === undefined ? "unknown" : watts(w));
const named = (...words) => words.filter(Boolean).join(" ");

// A time as people here read it, and how far off it is.
function moment(at) {
  const then = new Date(at);
  const left = Math.round((then - Date.now()) / 1000);
  const today = then.toDateString() === new Date().toDateString();
  const said = today ? then.toLocaleTimeString([], { hour12: false }) : then.toLocaleString([], { hour12: false });
  if (left <= 0) return said;
  const off = left < 120 ? `${left} s` : left < 7200 ? `${Math.round(left / 60)} min` : `${Math.round(left / 3600)} h`;
  return `${said}, in ${off}`;
}

function cap(site) {
  const notes = [named(site.cap_origin, site.cap_name ?? site.cap_id) || "connection"];
  if (site.cap_waits) notes.push(`${known(site.cap_stated_w)} stated; waits: ${site.cap_waits}`);
  if (site.cap_advice) {
    const { limit_w: limit, source, confidence } = site.cap_advice;
    notes.push(`foreseen: ${known(limit)} (${source}, ${Math.round(100 * confidence)} % sure)`);
  }
  const short = shortWords(site);
  if (short) notes.push(`short ${short}`);
  return { name: "Cap now", value: known(site.cap_w), notes, bad: short !== "" };
}

function next(site) {
  if (site.next_cap_at) {
    const notes = [named(site.next_cap_origin, site.next_cap_name), moment(site.next_cap_at)];
    return { name: "Next cap", value: known(site.next_cap_w), notes };
  }
  const change = site.next_change_at;
  return { name: "Next cap", value: "no other is known", notes: change ? [`next change ${moment(change)}`] : [] };
}

function target(site) {
  const notes = [];
  if (site.target_w !== null) {
    const off = site.power_w === null || !site.target_w ? null : 100 * (site.power_w / site.target_w - 1);
    const held = off === null ? "" : `, ${off < 0 ? "−" : "+"}${Math.abs(off).toFixed(1)} %`;
    notes.push(site.target_name ?? site.target_id ?? "on its way", `draws ${known(site.power_w)}${held}`);
  }
  if (site.mining_target_w !== null) {
    const event = site.notice_name ?? site.notice;
    notes.push(event ? `notice of ${event}` : "for mining alone");
    notes.push(`mining at most ${known(site.mining_target_w)}, draws ${known(site.mining_w)}`);
  }
  if (!notes.length) return null;
  return { name: "Target", value: known(site.target_w ?? site.mining_target_w), notes };
}

function sheds(steps) {
  const told = SHOWN_DEADLINES.map(([deadline, words]) => {
    const step = steps.find((one) => one.deadline_s === deadline);
    return `${known(step?.deliverable_w)} in ${words}`;
  });
  const promised = Math.max(0, ...steps.map((one) => one.promised_w));
  const notes = [told.slice(0, -1).join(", ")];
  if (promised) notes.push(`${watts(promised)} more is promised`);
  return { name: "Can be shed", value: told.at(-1), notes };
}

function frequency(agents) {
  if (!agents?.length) return null;
  const read = agents.filter((one) => one.hz !== null);
  const lowest_hz = Math.min(...read.map((one) => one.hz));
  const of = (phase) => agents.filter((one) => one.phase === phase).length;
  const counts = PHASES.filter(of).map((phase) => `${of(phase)} ${phase}`);
  const unknown = agents.filter((one) => !PHASES.includes(one.phase)).length;
  if (unknown) counts.push(`${unknown} unknown`);
  const shed = agents.reduce((sum, one) => sum + (one.cut_w ?? 0), 0);
  const faults = agents.filter((one) => one.fault).map((one) => `${one.agent}: ${one.fault}`);
  return {
    name: "Frequency, lowest",
    value: read.length ? `${lowest_hz.toFixed(3)} Hz` : "unknown",
    notes: [`${counts.join(", ")}${shed ? `; ${watts(shed)} shed` : ""}`, ...faults.slice(0, 2)],
    bad: !read.length || faults.length > 0,
  };
}

// Rows of {name, value, notes, bad}: what is not there is left out, what is not known is said.
export function facts(site, steps) {
  return [cap(site), next(site), target(site), sheds(steps), frequency(site.frequency)].filter(Boolean);
}
