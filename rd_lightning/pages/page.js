"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // Light or dark: the system's, until the button is pressed.
  const root = document.documentElement, theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const tell = () => {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
  };
  theme.hidden = false;
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; tell(); });
  system.addEventListener("change", tell);
  tell();

  // Tables: a column sorts up, then down. Numbers by what a cell starts with; "-" is last.
  const collator = new Intl.Collator("en", { numeric: true });
  const number = (text) => {
    const found = /^[+-]?[\d,]*\.?\d+(e[+-]?\d+)?/i.exec(text.replace("\u2212", "-"));
    return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
  };
  const isNone = (text) => text === "" || text === "-";
  for (const table of all("table")) {
    const heads = all("thead th", table), body = table.tBodies[0];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
        const there = rows.filter((r) => !isNone(r.text));
        const numeric = there.every((r) => !Number.isNaN(number(r.text)));
        const compare = numeric
          ? (a, b) => number(a.text) - number(b.text)
          : (a, b) => collator.compare(a.text, b.text);
        there.sort((a, b) => (up ? compare(a, b) : compare(b, a)));
        body.append(...[...there, ...rows.filter((r) => isNone(r.text))].map((r) => r.row));
      });
    });
  }

  // Parts of which one is seen at a time.
  for (const choice of all(".choice")) {
    const select = choice.querySelector(":scope > label select");
    const parts = all(":scope > .chosen", choice);
    choice.classList.add("on");
    const show = () => parts.forEach((part, i) => { part.hidden = i !== select.selectedIndex; });
    select.addEventListener("change", show);
    show();
  }

  // Charts.
  const rowsOf = (columns) => {
    const keys = Object.keys(columns);
    const read = keys.map((key) => {
      const column = columns[key];
      return Array.isArray(column) ? (i) => column[i] : (i) => column.names[column.codes[i]];
    });
    const first = columns[keys[0]];
    const length = first ? (Array.isArray(first) ? first : first.codes).length : 0;
    return Array.from({ length }, (_, i) => Object.fromEntries(keys.map((key, k) => [key, read[k](i)])));
  };
  const font = 'system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
  const config = {
    background: null, font,
    view: { stroke: "var(--line)" },
    axis: {
      labelColor: "var(--muted)", titleColor: "var(--text)", gridColor: "var(--line)", gridOpacity: 0.6,
      domainColor: "var(--line)", tickColor: "var(--line)", labelFontSize: 11, titleFontSize: 12,
      titleFontWeight: 500, labelOverlap: true,
    },
    legend: { labelColor: "var(--text)", titleColor: "var(--text)", labelFontSize: 11, titleFontSize: 12 },
    text: { color: "var(--text)", fill: "var(--text)" },
    rule: { color: "var(--muted)" },
  };
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const MOVE = 400; // milliseconds

  const move = (view, param, target, output) => {
    const start = view.signal(param), begun = performance.now();
    const turn = (view.turns = (view.turns || 0) + 1);
    if (calm.matches || document.hidden) { view.signal(param, target).runAsync(); return; }
    const step = (now) => {
      if (view.turns !== turn) return;
      const t = Math.min(1, Math.max(0, (now - begun) / MOVE)), eased = t * t * (3 - 2 * t);
      view.signal(param, t === 1 ? target : start + (target - start) * eased).run();
      if (t < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  };

  const connect = (figure, view) => {
    const lines = all(".legend button", figure);
    const showLines = () => lines.filter((line) => line.dataset.only).forEach((line) => {
      const [param, value] = JSON.parse(line.dataset.only);
      line.hidden = view.signal(param) !== value;
    });
    showLines();
    for (const select of all("select[data-param]", figure)) {
      const set = () => {
        view.signal(select.dataset.param, JSON.parse(select.value)).runAsync();
        showLines();
      };
      select.addEventListener("change", set);
      if (select.selectedIndex !== 0) set(); // browsers keep choices over a reload
    }
    for (const slider of all("input[type=range]", figure)) {
      const names = JSON.parse(slider.dataset.names);
      const set = () => {
        slider.nextElementSibling.textContent = names[slider.value];
        slider.setAttribute("aria-valuetext", names[slider.value]);
        move(view, slider.dataset.param, Number(slider.value));
      };
      slider.setAttribute("aria-valuetext", names[slider.value]);
      slider.addEventListener("input", set);
      if (slider.value !== "0") set();
    }
    for (const line of lines) {
      line.addEventListener("click", () => {
        line.setAttribute("aria-pressed", String(line.getAttribute("aria-pressed") !== "true"));
        const hidden = lines.filter((l) => l.getAttribute("aria-pressed") !== "true");
        view.signal("hidden", hidden.map((l) => l.dataset.series)).runAsync();
      });
    }
  };

  const draw = async (figure) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    if (spec.data && spec.data.columns) spec.data = { values: rowsOf(spec.data.columns) };
    const options = { actions: false, renderer: "svg", mode: "vega-lite", config, tooltip: { disableDefaultStyle: false } };
    const { view } = await vegaEmbed(figure.querySelector(".plot"), spec, options);
    connect(figure, view);
    return view;
  };
  window.rdCharts = {};
  window.rdReady = Promise.all(all(".chart").map(async (figure) => {
    try {
      window.rdCharts[figure.id] = await draw(figure);
    } catch (error) {
      figure.querySelector(".plot").textContent = `This chart could not be drawn: ${error.message}`;
      throw error;
    }
  }));
})();
