// One signal: each of its series with the band it was expected in, its anomalies, why, and where it goes.
"use strict";
(() => {
  const PERIOD = 3000, LIMIT = 4;
  const ink = getComputedStyle(document.documentElement);
  const colour = (name) => ink.getPropertyValue(name).trim();
  const short = (v) => (v === null || v === undefined ? "–" : String(+v.toPrecision(4)));
  const cards = new Map();

  function element(parent, tag, text, kind) {
    const made = parent.appendChild(document.createElement(tag));
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function card(section, key, one) {
    const figure = element(section, "figure");
    const labels = Object.entries(one.labels).map(([k, v]) => k + "=" + v).join(", ");
    element(figure, "figcaption", labels || one.name);
    const box = element(figure, "div", undefined, "plot");
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const none = { show: false };
    const plot = new uPlot({
      width: figure.clientWidth - 24, height: 220, legend: { show: false }, cursor: { y: false },
      axes: [axis, { ...axis, size: 70, values: (_u, ticks) => ticks.map((t) => String(+t.toPrecision(3))) }],
      series: [{}, { stroke: "transparent", points: none }, { stroke: "transparent", points: none },
        { stroke: colour("--soft"), dash: [4, 4], width: 1, points: none },
        { stroke: colour("--accent"), width: 1.5, spanGaps: true, points: none },
        { stroke: colour("--bad"), paths: () => null, points: { show: true, size: 7, fill: colour("--bad") } },
        { stroke: colour("--warn"), dash: [2, 4], width: 1.5, spanGaps: true, points: none }],
      bands: [{ series: [2, 1], fill: colour("--accent") + "22" }],
    }, [[], [], [], [], [], [], []], box);
    const known = { figure, plot, said: element(figure, "ul", undefined, "why") };
    cards.set(key, known);
    return known;
  }

  function show(section, one) {
    const key = JSON.stringify(one.labels);
    const { plot, said, figure } = cards.get(key) || card(section, key, one);
    const last = one.at.length ? one.at[one.at.length - 1] : 0;
    const next = one.ahead.filter((p) => p[0] <= section.dataset.span / 3);
    const fill = (column, of) => column.concat(next.map(of));
    const odd = one.value.map((v, i) => (one.score[i] !== null && one.score[i] >= LIMIT ? v : null));
    const course = one.value.map((v, i) => (i === one.value.length - 1 ? v : null));
    plot.setData([
      one.at.concat(next.map((p) => last + p[0])),
      fill(one.low, (p) => p[2]), fill(one.high, (p) => p[3]), fill(one.expected, () => null),
      fill(one.value, () => null), fill(odd, () => null), fill(course, (p) => p[1]),
    ]);
    figure.dataset.odd = odd.filter((v) => v !== null).length;
    said.replaceChildren();
    for (const a of one.anomalies) {
      const why = a.reasons.map((r) => r.detector + " " + r.score.toFixed(1) + (r.share === null ? "" : " (" + Math.round(100 * r.share) + " % of it)"));
      element(said, "li", a.signal + ": " + a.detail + (why.length ? ". Said by " + why.join(", ") : ""), "bad");
    }
    const newest = one.at.length - 1;
    if (newest >= 0) element(said, "li", "now " + short(one.value[newest]) + ", expected " + short(one.expected[newest]) + ", score " + short(one.score[newest]), "muted");
    for (const p of one.ahead) element(said, "li", "in " + p[0] / 60 + " min " + short(p[1]) + ", 95 %: " + short(p[2]) + " to " + short(p[3]), "muted");
  }

  async function refresh() {
    const section = document.getElementById("judged");
    if (!section) return;
    const now = Date.now() / 1000;
    try {
      const answer = await fetch("/api/v1/signals/judged?" + section.dataset.query + "&start=" + (now - section.dataset.span) + "&end=" + (now + 1), { credentials: "same-origin" });
      const found = await answer.json();
      const list = Array.isArray(found) ? found : found.items;
      if (!list || !list.length) { if (!cards.size) section.firstElementChild.textContent = (found && found.error) || "nothing was heard of it in this time"; return; }
      if (!cards.size) section.replaceChildren();
      list.forEach((one) => show(section, one));
    } catch { /* the platform is restarting: the next round tries again */ }
  }

  document.addEventListener("DOMContentLoaded", () => { refresh(); setInterval(refresh, PERIOD); });
})();
