// The look-ahead plan: planned watts by work under the cap, and the price beneath, hour by hour.
// What is foreseen and not published is drawn lighter; what is not known draws nothing.

import { hatch, ruler, watts } from "./chart.js";
import { Picture } from "./picture.js";

const LAYERS = [["other", "other_w"], ["inference", "services_w"], ["batch", "batch_w"], ["mining", "mining_w"]];
const EDGE = { left: 60, right: 8, top: 12, bottom: 22 };
const PRICE_SHARE = 0.28; // of the height, for the price
const GAP = 26; // between the two pictures
const SHADOW_SHOWN = 2; // times the highest price: what a cap is worth that cannot be kept has no end

export class PlanChart extends Picture {
  view = null;

  show(view) {
    this.view = view;
    if (view.rows.length) this.redraw(); // else the last picture stays
  }

  draw({ pen, ink, width, height }) {
    const { view } = this;
    if (!view?.rows.length) return;
    const rows = view.rows.map((row) => ({ ...row, t: Date.parse(row.starts_at) / 1000 }));
    const [begin, end] = [rows[0].t, rows.at(-1).t + view.step_s];
    const x = (t) => EDGE.left + ((t - begin) / (end - begin)) * (width - EDGE.left - EDGE.right);
    const split = height - EDGE.bottom - PRICE_SHARE * height;
    const frame = { pen, ink, rows, x, step: view.step_s, width, height };
    drawWatts({ ...frame, top: EDGE.top, foot: split - GAP });
    drawPrices({ ...frame, top: split, foot: height - EDGE.bottom });
    hours(frame, begin, end);
    this.tell(frame, begin, end);
  }

  tell({ pen, ink, rows, x, width, height, step }, begin, end) {
    const t = this.hover === null ? null : begin + ((this.hover - EDGE.left) / (width - EDGE.left - EDGE.right)) * (end - begin);
    const row = t === null ? null : rows.find((one) => one.t <= t && t < one.t + step);
    if (!row) {
      this.readout.textContent = "\u00a0";
      return;
    }
    pen.strokeStyle = ink("ink");
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x(row.t), EDGE.top);
    pen.lineTo(x(row.t), height - EDGE.bottom);
    pen.stroke();
    const price = row.price_usd_per_mwh === null ? "unknown" : `${row.price_usd_per_mwh.toFixed(1)} USD/MWh`;
    const parts = LAYERS.toReversed().map(([name, key]) => `${name} ${watts(row[key])}`);
    parts.push(`cap ${watts(row.cap_w)}`, `${row.price_published ? "price" : "price foreseen"} ${price}`);
    if (row.reserve_w > 0) parts.push(`reserve ${watts(row.reserve_w)}`);
    this.readout.textContent = `${new Date(row.t * 1000).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit", hour12: false })}: ${[...parts, ...row.begins].join(", ")}`;
  }
}

// What is to be said of a plan beside its picture, and whether it is bad news.
export function words(view) {
  if (view.state === "off") return null;
  const told = [view.reason, ...view.unmet.map((one) => `not met: ${one}`)].filter(Boolean);
  if (!view.rows.length) return { text: told.join("; ") || view.state, bad: view.state === "failed" };
  const made = `${view.status}, made ${new Date(view.made_at).toLocaleTimeString([], { hour12: false })}`;
  const usd = view.usd === null ? "" : `, ${view.usd.toLocaleString("en", { maximumFractionDigits: 2 })} USD expected`;
  return { text: [`${made}${usd}`, ...told].join("; "), bad: view.state === "late" || view.unmet.length > 0 };
}

function drawWatts({ pen, ink, rows, x, step, top, foot, width }) {
  const drawn = rows.map((row) => LAYERS.reduce((sum, [, key]) => sum + (row[key] ?? 0), 0));
  const highest = Math.max(1, ...drawn);
  const caps = rows.map((row) => row.cap_w).filter((w) => w !== null);
  const { top: most, step: each } = ruler(1.04 * Math.max(highest, ...caps.map((w) => Math.min(w, 1.6 * highest))));
  const y = (w) => foot - (Math.min(w, most) / most) * (foot - top);
  const [size, unit] = most >= 1e6 ? [1e6, "MW"] : most >= 2000 ? [1e3, "kW"] : [1, "W"];
  for (let w = 0; w <= most * 1.001; w += each) level(pen, ink, y(w), `${+(w / size).toPrecision(3)} ${unit}`, width);
  const base = rows.map(() => 0);
  for (const [name, key] of LAYERS) {
    const up = rows.map((row, i) => base[i] + (row[key] ?? 0));
    pen.beginPath();
    rows.forEach((row, i) => stepped(pen, x, row.t, step, y(up[i])));
    rows.toReversed().forEach((row, i) => stepped(pen, x, row.t + step, -step, y(base[rows.length - 1 - i])));
    pen.closePath();
    pen.fillStyle = ink(name);
    pen.globalAlpha = 0.85;
    pen.fill();
    if (name === "mining") hatch(pen, ink("panel"));
    pen.globalAlpha = 1;
    base.splice(0, base.length, ...up);
  }
  pen.setLineDash([7, 4]);
  line(pen, ink("ink"), 1.8, rows, (row) => row.cap_w !== null, (row) => stepped(pen, x, row.t, step, y(row.cap_w)));
  pen.setLineDash([1, 3]);
  for (const row of rows) if (row.begins.length) line(pen, ink("ink"), 1, [row], () => true, () => [pen.moveTo(x(row.t), top), pen.lineTo(x(row.t), foot)]);
  pen.setLineDash([]);
}

// From where to where prices are drawn, and whether something lies above.
export function priceScale(rows) {
  const given = (keys) => rows.flatMap((row) => keys.map((key) => row[key])).filter((p) => p !== null);
  const prices = given(["price_low_usd_per_mwh", "price_high_usd_per_mwh"]);
  const shadows = given(["shadow_usd_per_mwh"]);
  const most = SHADOW_SHOWN * Math.max(1, ...prices);
  const high = Math.max(1, ...prices, ...shadows.map((p) => Math.min(p, most)));
  return { low: Math.min(0, ...prices, ...shadows), high, cut: shadows.some((p) => p > high) };
}

function drawPrices({ pen, ink, rows, x, step, top, foot, width }) {
  const { low, high, cut } = priceScale(rows);
  const y = (p) => foot - ((Math.min(p, high) - low) / (high - low)) * (foot - top);
  const label = (p) => (cut && p === high ? `≥ ${p.toFixed(0)}` : p.toFixed(0));
  for (const p of low < 0 ? [low, 0, high] : [low, high]) level(pen, ink, y(p), label(p), width);
  pen.fillStyle = ink("soft");
  pen.textAlign = "left";
  pen.fillText("USD/MWh", EDGE.left, top - 10);
  pen.fillStyle = ink("ink");
  pen.globalAlpha = 0.14;
  for (const row of rows) {
    const [a, b] = [row.price_low_usd_per_mwh, row.price_high_usd_per_mwh];
    if (a !== null && b !== null && b > a) pen.fillRect(x(row.t), y(b), x(row.t + step) - x(row.t), y(a) - y(b));
  }
  pen.globalAlpha = 1;
  const price = (row) => stepped(pen, x, row.t, step, y(row.price_usd_per_mwh));
  line(pen, ink("ink"), 1.8, rows, (row) => row.price_usd_per_mwh !== null, price);
  pen.setLineDash([2, 3]);
  const shadow = (row) => stepped(pen, x, row.t, step, y(row.shadow_usd_per_mwh));
  line(pen, ink("trouble-ink"), 1.6, rows, (row) => row.shadow_usd_per_mwh !== null, shadow);
  pen.setLineDash([]);
}

function stepped(pen, x, t, step, y) {
  pen.lineTo(x(t), y);
  pen.lineTo(x(t + step), y);
}

// A line through the rows that are known; what is not is a gap.
function line(pen, colour, thick, rows, known, place) {
  pen.strokeStyle = colour;
  pen.lineWidth = thick;
  pen.beginPath();
  let joined = false;
  for (const row of rows) {
    if (known(row)) place(row);
    else if (joined) [pen.stroke(), pen.beginPath()];
    joined = known(row);
  }
  pen.stroke();
}

function level(pen, ink, y, label, width) {
  pen.font = "11.5px system-ui, sans-serif";
  pen.strokeStyle = ink("line");
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(EDGE.left, Math.round(y) + 0.5);
  pen.lineTo(width - EDGE.right, Math.round(y) + 0.5);
  pen.stroke();
  pen.fillStyle = ink("soft");
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  pen.fillText(label, EDGE.left - 6, y);
}

function hours({ pen, ink, x, width, height }, begin, end) {
  pen.fillStyle = ink("soft");
  pen.textAlign = "center";
  pen.textBaseline = "top";
  const each = [1, 2, 3, 6, 12].find((n) => (end - begin) / (n * 3600) <= width / 80) ?? 24;
  const first = new Date(begin * 1000);
  first.setMinutes(60, 0, 0);
  for (let t = first.getTime() / 1000; t < end; t += 3600) {
    const at = new Date(t * 1000);
    if (at.getHours() % each) continue;
    const day = at.getHours() === 0 ? at.toLocaleDateString([], { weekday: "short" }) : `${String(at.getHours()).padStart(2, "0")}:00`;
    pen.fillText(day, x(t), height - EDGE.bottom + 6);
  }
}
