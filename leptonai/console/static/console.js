// Live charts: the last five minutes of a signal, read from the API with the visitor's own session.
"use strict";
(() => {
  const SPAN = 300, PERIOD = 2000;
  const ink = getComputedStyle(document.documentElement);
  const colour = (name) => ink.getPropertyValue(name).trim();
  const plots = new Map();

  function chart(figure, series) {
    const box = figure.querySelector(".plot");
    const scale = figure.dataset.unit === "%" ? 100 : 1;
    const data = [series.at, series.value.map((v) => (v === null ? null : v * scale))];
    const known = plots.get(figure);
    if (known) return known.setData(data);
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const unit = figure.dataset.unit;
    const options = {
      width: box.clientWidth, height: 140, legend: { show: false }, cursor: { y: false },
      scales: { y: { range: (_u, _low, high) => [0, Math.max(high * 1.15, unit === "%" ? 1 : 0.01)] } },
      axes: [axis, { ...axis, size: 54, values: (_u, ticks) => ticks.map((t) => +t.toPrecision(3) + unit) }],
      series: [{}, { stroke: colour("--accent"), width: 1.5, fill: colour("--accent") + "22", spanGaps: false }],
    };
    plots.set(figure, new uPlot(options, data, box));
  }

  async function refresh() {
    const now = Date.now() / 1000;
    for (const section of document.querySelectorAll(".charts[data-service]")) {
      for (const figure of section.querySelectorAll("figure[data-signal]")) {
        const query = new URLSearchParams({ name: figure.dataset.signal, service: section.dataset.service, start: now - SPAN, end: now, step: 1 });
        try {
          const answer = await fetch("/api/v1/signals?" + query, { credentials: "same-origin" });
          if (!answer.ok) continue;
          const found = await answer.json();
          const list = Array.isArray(found) ? found : found.items;
          if (list.length) chart(figure, list[0]);
        } catch { /* the platform is restarting: the next round tries again */ }
      }
    }
  }

  addEventListener("resize", () => plots.forEach((plot, figure) => plot.setSize({ width: figure.querySelector(".plot").clientWidth, height: 140 })));
  document.addEventListener("DOMContentLoaded", () => { refresh(); setInterval(refresh, PERIOD); });
})();
