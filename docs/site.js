// What a page opened from disk, by keyboard or on a phone needs beside smalldocs' own script.
(() => {
  "use strict";
  const up = (document.querySelector('meta[name="smalldocs:offset"]') || { content: "./" }).content;

  // ---- the index of the search is a script, because a page on disk may not fetch a file
  const load = () => new Promise((done, fail) => {
    if (window.searchIndex) { done(window.searchIndex); return; }
    const s = document.createElement("script");
    s.src = up + "search.js";
    s.onload = () => done(window.searchIndex);
    s.onerror = fail;
    document.head.append(s);
  });
  const fetched = window.fetch;
  window.fetch = (what, ...rest) => String(what).endsWith("search.json") ? load().then((found) => ({ json: () => found })) : fetched(what, ...rest);

  // ---- every word must be there; a name that is meant exactly comes first, then headings, then text
  window.Fuse = class {
    constructor(list) {
      this.list = list.map((item) => ({ item, name: (item.section || item.title).toLowerCase(), head: `${item.title} ${item.section}`.toLowerCase(), text: item.text.toLowerCase() }));
    }
    search(asked, { limit }) {
      const q = asked.toLowerCase().replace(/[`()]/g, "").trim(), words = q.split(/\s+/);
      const worth = (e) => {
        if (!words.every((w) => e.head.includes(w) || e.text.includes(w))) return 0;
        const exact = e.name === q ? 100 : e.name.startsWith(q) ? 40 : e.name.includes(q) ? 20 : 0;
        return 1 + exact + words.reduce((sum, w) => sum + (e.head.includes(w) ? 8 : 0) + Math.min(4, e.text.split(w).length - 1), 0);
      };
      return this.list.map((e) => ({ item: e.item, worth: worth(e) })).filter((e) => e.worth).sort((a, b) => b.worth - a.worth).slice(0, limit);
    }
  };
  document.querySelectorAll(".smalldocs-search input").forEach((input) => { input.placeholder = "Search  ( / )"; });

  // ---- a box that scrolls sideways can be reached by keyboard; one that doesn't is no stop
  const boxes = [...document.querySelectorAll("main pre, main .sd-table, main .cell-output-display, main math[display=block]")];
  const reach = () => boxes.map((box) => [box, box.scrollWidth > box.clientWidth + 1])       // measure all, then change: one layout
    .forEach(([box, wide]) => { if (wide) box.tabIndex = 0; else if (box.tabIndex === 0) box.removeAttribute("tabindex"); });
  window.addEventListener("load", reach);
  window.addEventListener("resize", reach);

  // ---- sidebar: the page's own line in sight; on a phone Escape shuts it
  const bar = document.querySelector("#quarto-sidebar"), button = document.querySelector(".quarto-btn-toggle");
  const here = bar && bar.querySelector("a.active");
  if (here) bar.scrollTop = Math.max(0, here.getBoundingClientRect().top - bar.getBoundingClientRect().top - bar.clientHeight / 2);
  if (bar && button) {
    const glass = document.querySelector("#quarto-sidebar-glass");
    const told = () => button.setAttribute("aria-expanded", bar.classList.contains("show"));
    new MutationObserver(told).observe(bar, { attributes: true, attributeFilter: ["class"] });
    told();
    button.addEventListener("click", () => { if (bar.classList.contains("show")) (here || bar.querySelector("a")).focus({ preventScroll: true }); });
    document.addEventListener("keydown", (e) => { if (e.key === "Escape" && glass && bar.classList.contains("show")) { glass.click(); button.focus(); } });
  }
})();
