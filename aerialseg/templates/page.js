"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
const show = v => v === null ? "–" : v && Math.abs(v) < 0.001 ? v.toExponential(1) : v.toFixed(3);
document.documentElement.classList.add("js");

// a stage: pictures on top of each other, two neighbours at a time, the line between them moved by a slider
for (const frame of all(".frame")) {
  const stage = frame.querySelector(".stage"), slider = frame.querySelector("input[type=range]"), layers = all("figure", stage);
  if (!slider) continue;
  const names = layers.map(f => f.querySelector("figcaption").textContent), stops = all(".stops button", frame);
  const [line, left, right] = ["i", "span", "span"].map(tag => stage.appendChild(document.createElement(tag)));
  [line.className, left.className, right.className] = ["wipe", "tag l", "tag r"];
  const move = (v = +slider.value) => {
    const from = Math.min(Math.floor(v), layers.length - 2), part = 100 * (v - from);
    layers.forEach((f, k) => {
      const cut = k === 0 ? "none" : k === from ? `inset(0 0 0 ${part}%)` : k === from + 1 ? `inset(0 ${100 - part}% 0 0)` : "inset(50%)";
      f.style.clipPath = cut;
    });
    line.style.left = `${part}%`;
    line.hidden = part === 0 || part === 100;
    [left.textContent, right.textContent] = [names[from + 1], names[from]];
    [left.hidden, right.hidden] = [part < 3, part > 97];
    slider.setAttribute("aria-valuetext", part === 0 ? names[from] : part === 100 ? names[from + 1] : `${Math.round(part)} % ${names[from + 1]}, the rest ${names[from]}`);
    stops.forEach((b, k) => b.setAttribute("aria-pressed", String(k === v)));
  };
  slider.addEventListener("input", () => move());
  stops.forEach((b, k) => b.addEventListener("click", () => { slider.value = k; move(); }));
  let first = -1;                                      // the two pictures between which this drag moves; -1: none
  const drag = e => {
    const box = stage.getBoundingClientRect(), v = first + Math.min(Math.max((e.clientX - box.left) / box.width, 0), 1);
    slider.value = v;
    move(v);
  };
  stage.addEventListener("pointerdown", e => {
    first = Math.max(Math.ceil(+slider.value), 1) - 1;
    stage.setPointerCapture(e.pointerId);
    drag(e);
  });
  stage.addEventListener("pointermove", e => { if (first >= 0) drag(e); });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { first = -1; });
  move();
}

// a chart: a slider over epochs moves a line and says the values there; checkboxes switch curves
for (const chart of all(".chart")) {
  const slider = chart.querySelector("input[type=range]"), plot = chart.querySelector(".plot"), svg = chart.querySelector("svg");
  if (slider) {
    const xs = JSON.parse(slider.dataset.xs), places = JSON.parse(slider.dataset.places), cursor = plot.appendChild(document.createElement("i"));
    const move = () => {
      const k = +slider.value;
      cursor.style.left = `${places[k]}%`;
      slider.nextElementSibling.textContent = xs[k];
      slider.setAttribute("aria-valuetext", `${slider.dataset.what} ${xs[k]}`);
      for (const b of all("[data-values]", chart)) b.textContent = show(JSON.parse(b.dataset.values)[k]);
    };
    cursor.className = "cursor";
    slider.addEventListener("input", move);
    plot.addEventListener("pointermove", e => {
      const box = plot.getBoundingClientRect(), at = 100 * (e.clientX - box.left) / box.width;
      slider.value = places.reduce((best, p, k) => Math.abs(p - at) < Math.abs(places[best] - at) ? k : best, 0);
      move();
    });
    move();
  }
  for (const box of all("input[type=checkbox]", chart)) {
    const curve = svg.querySelector(`[data-curve="${box.value}"]`), label = box.closest("label");
    const light = on => { svg.classList.toggle("lit", on && box.checked); curve.classList.toggle("on", on); };
    const set = () => curve.classList.toggle("off", !box.checked);
    box.addEventListener("change", set);
    label.addEventListener("pointerenter", () => light(true));
    label.addEventListener("pointerleave", () => light(false));
    box.addEventListener("focus", () => box.matches(":focus-visible") && light(true));
    box.addEventListener("blur", () => light(false));
    set();
  }
  for (const button of all("button[data-all]", chart)) button.addEventListener("click", () => {
    for (const box of all("input[type=checkbox]", chart)) { box.checked = button.dataset.all === "1"; box.dispatchEvent(new Event("change")); }
  });
}

// a matrix: hovering or moving with the arrow keys tells a cell's numbers
for (const table of all(".matrix")) {
  const rows = all("tbody tr", table).map(tr => all("td", tr)), tell = document.getElementById(table.dataset.tell);
  const home = tell.textContent;
  const go = (r, c) => {
    for (const cell of rows.flat()) cell.tabIndex = -1;
    rows[r][c].tabIndex = 0;
    rows[r][c].focus();
  };
  rows.forEach((row, r) => row.forEach((cell, c) => {
    cell.tabIndex = r + c ? -1 : 0;
    cell.removeAttribute("title");
    cell.addEventListener("pointerenter", () => { tell.textContent = cell.getAttribute("aria-label"); });
    cell.addEventListener("pointerleave", () => { tell.textContent = table.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : home; });
    cell.addEventListener("focus", () => { tell.textContent = cell.getAttribute("aria-label"); });
    cell.addEventListener("keydown", e => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -c], End: [0, row.length - 1 - c] }[e.key];
      if (!step) return;
      e.preventDefault();
      go(Math.min(Math.max(r + step[0], 0), rows.length - 1), Math.min(Math.max(c + step[1], 0), row.length - 1));
    });
  }));
}

addEventListener("beforeprint", () => all("details").forEach(d => { d.open = true; }));
