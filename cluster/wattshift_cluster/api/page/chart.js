// Site power against the cap: stacked areas by kind of work, the meter as a line, the cap stepped
// and dashed. A sample that is not known draws nothing: a gap, never a zero.

import { Picture } from "./picture.js";

export const WINDOW_S = 300;
const KEPT_S = 360;
const LAYERS = ["other", "inference", "batch", "mining"];
const GAP_S = 5; // samples further apart than this are not joined
const EDGE = { left: 60, right: 8, top: 10, bottom: 22 };

export class Chart extends Picture {
  samples = [];
  marks = [];

  add(site) {
    const t = Date.parse(site.at) / 1000;
    const last = this.samples.at(-1);
    if (!Number.isFinite(t) || (last && t <= last.t)) return;
    const { power_w: power, cap_w: cap, inference_w: inference, mining_w: mining } = site;
    this.samples.push({ t, power, cap, inference, mining, batch: site.batch_w, other: site.other_w });
    while (this.samples[0].t < t - KEPT_S) this.samples.shift();
    this.redraw();
  }

  mark(at) {
    this.marks = this.marks.filter((t) => t > at - KEPT_S).concat(at);
  }

  clear() {
    this.samples = [];
    this.marks = [];
    this.redraw();
  }

  draw({ pen, ink, width, height }) {
    const end = this.samples.at(-1)?.t ?? Date.now() / 1000;
    const seen = this.samples.filter((s) => s.t >= end - WINDOW_S);
    const highest = Math.max(1, ...seen.map((s) => Math.max(s.power ?? 0, s.cap ?? 0, stack(s) ?? 0)));
    const { top, step } = ruler(highest * 1.04);
    const x = (t) => EDGE.left + (1 - (end - t) / WINDOW_S) * (width - EDGE.left - EDGE.right);
    const y = (w) => height - EDGE.bottom - (w / top) * (height - EDGE.top - EDGE.bottom);
    axes(pen, { x, y, top, step, end, width, height, ink });
    for (const run of runs(seen, (s) => stack(s) !== null)) areas(pen, run, x, y, ink);
    pen.strokeStyle = ink("ink");
    pen.lineWidth = 1.8;
    for (const run of runs(seen, (s) => s.power !== null)) line(pen, run, (s) => [x(s.t), y(s.power)]);
    pen.setLineDash([7, 4]);
    for (const run of runs(seen, (s) => s.cap !== null)) steps(pen, run, x, (s) => y(s.cap));
    pen.setLineDash([1, 3]);
    pen.lineWidth = 1;
    for (const t of this.marks) if (t >= end - WINDOW_S) upright(pen, x(t), height);
    pen.setLineDash([]);
    this.tell(pen, seen, x, height);
  }

  tell(pen, seen, x, height) {
    const near = this.hover === null ? null : nearest(seen, (s) => Math.abs(x(s.t) - this.hover));
    if (!near) {
      this.readout.textContent = "\u00a0";
      return;
    }
    pen.lineWidth = 1;
    upright(pen, x(near.t), height);
    const parts = ["power", "cap", "mining", "batch", "inference", "other"].map((k) => `${k} ${watts(near[k])}`);
    this.readout.textContent = `${new Date(near.t * 1000).toLocaleTimeString()}: ${parts.join(", ")}`;
  }
}

export function watts(w) {
  if (w === null || w === undefined) return "unknown";
  const [size, unit] = Math.abs(w) >= 1e6 ? [1e6, "MW"] : Math.abs(w) >= 1e3 ? [1e3, "kW"] : [1, "W"];
  return `${(w / size).toFixed(size === 1 ? 0 : 2)} ${unit}`;
}

function stack(sample, upTo = LAYERS.length) {
  let sum = 0;
  for (const name of LAYERS.slice(0, upTo)) {
    if (sample[name] === null || sample[name] === undefined) return null;
    sum += sample[name];
  }
  return sum;
}

// At most five steps of 1, 2 or 5 times a power of ten, and the first multiple above the value.
export function ruler(value) {
  const size = 10 ** Math.floor(Math.log10(value / 5));
  const step = [1, 2, 5, 10].find((n) => n * size * 5 >= value) * size;
  return { step, top: Math.ceil(value / step) * step };
}

function* runs(samples, known) {
  let run = [];
  for (const sample of samples) {
    const joined = known(sample) && (!run.length || sample.t - run.at(-1).t <= GAP_S);
    if (!joined && run.length) {
      yield run;
      run = [];
    }
    if (known(sample)) run.push(sample);
  }
  if (run.length) yield run;
}

function nearest(samples, distance) {
  return samples.reduce((best, s) => (!best || distance(s) < distance(best) ? s : best), null);
}

function line(pen, run, place) {
  pen.beginPath();
  for (const sample of run) pen.lineTo(...place(sample));
  pen.stroke();
}

function steps(pen, run, x, y) {
  pen.beginPath();
  pen.moveTo(x(run[0].t), y(run[0]));
  for (let i = 1; i < run.length; i++) {
    pen.lineTo(x(run[i].t), y(run[i - 1]));
    pen.lineTo(x(run[i].t), y(run[i]));
  }
  pen.stroke();
}

function upright(pen, x, height) {
  pen.beginPath();
  pen.moveTo(x, EDGE.top);
  pen.lineTo(x, height - EDGE.bottom);
  pen.stroke();
}

function areas(pen, run, x, y, ink) {
  LAYERS.forEach((name, depth) => {
    pen.beginPath();
    for (const s of run) pen.lineTo(x(s.t), y(stack(s, depth + 1)));
    for (const s of [...run].reverse()) pen.lineTo(x(s.t), y(stack(s, depth)));
    pen.closePath();
    pen.fillStyle = ink(name);
    pen.globalAlpha = 0.85;
    pen.fill();
    if (name === "mining") hatch(pen, ink("panel"));
    pen.globalAlpha = 1;
  });
}

// Mining is hatched as well as coloured, so that it reads without colour and in print.
export function hatch(pen, colour) {
  const tile = new OffscreenCanvas(8, 8);
  const brush = tile.getContext("2d");
  brush.strokeStyle = colour;
  brush.lineWidth = 1.2;
  brush.globalAlpha = 0.55;
  for (const shift of [-8, 0, 8]) {
    brush.moveTo(shift, 8);
    brush.lineTo(shift + 8, 0);
  }
  brush.stroke();
  pen.fillStyle = pen.createPattern(tile, "repeat");
  pen.fill();
}

function axes(pen, { x, y, top, step, end, width, height, ink }) {
  pen.font = "11.5px system-ui, sans-serif";
  pen.fillStyle = ink("soft");
  pen.strokeStyle = ink("line");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const unit = top >= 1e6 ? [1e6, "MW"] : top >= 2000 ? [1e3, "kW"] : [1, "W"];
  for (let w = 0; w <= top * 1.001; w += step) {
    const at = Math.round(y(w)) + 0.5;
    pen.beginPath();
    pen.moveTo(EDGE.left, at);
    pen.lineTo(width - EDGE.right, at);
    pen.stroke();
    pen.fillText(`${+(w / unit[0]).toPrecision(3)} ${unit[1]}`, EDGE.left - 6, at);
  }
  pen.textBaseline = "top";
  const every = width < 480 ? 2 : 1;
  for (let minute = 0; minute < WINDOW_S / 60; minute += every) {
    pen.textAlign = minute === 0 ? "right" : "center";
    pen.fillText(minute ? `−${minute} min` : "now", x(end - minute * 60), height - EDGE.bottom + 6);
  }
}
