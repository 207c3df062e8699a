// What every picture has: a canvas that is drawn anew when its size or the colours change, sharp on
// any screen, and a line of text for what the pointer is at.

export class Picture {
  constructor(canvas, readout) {
    this.canvas = canvas;
    this.readout = readout;
    this.hover = null;
    this.waiting = false;
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.point(null));
  }

  point(x) {
    this.hover = x;
    this.redraw();
  }

  // Draw with the next frame: once, however much has changed until then.
  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      const sheet = this.sheet();
      if (sheet) this.draw(sheet);
    });
  }

  // An empty sheet: a pen that draws in pixels of the page, its colours by name, and its size; null
  // while the canvas is not shown.
  sheet() {
    const { canvas } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return null;
    const scale = devicePixelRatio || 1;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    return { pen, ink: (name) => style.getPropertyValue(`--${name}`).trim(), width, height };
  }
}
