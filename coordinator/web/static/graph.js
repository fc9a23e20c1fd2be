// The deployment's filters, one dot each, grouped by student and coloured by the device that holds the student.
import { colourOf, h } from "./dom.js";

const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));
const WIDTH = 400;
let drawn = "";

export function showGraph(svg, legend, text, deployment, devices) {
  const holders = deployment.students.map((student) => devices
    .filter((device) => device.online && device.deployment === deployment.id && device.students.some((s) => s.student === student.index))
    .map((device) => device.name));
  const state = JSON.stringify([deployment.id, holders, document.documentElement.dataset.theme]);
  if (state === drawn) return;
  drawn = state;
  const places = layout(deployment);
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${places.height}`);
  text.textContent = `${deployment.filters} filters of the teacher's last layer, in ${deployment.students.length} partitions.`;
  svg.replaceChildren(...edges(deployment, places), ...deployment.students.flatMap((student, index) => cluster(student, holders[index], places)));
  legend.replaceChildren(...deployment.students.map((student, index) => entry(student, holders[index])));
}

const short = (number) => Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number);

function layout({ students }) {
  const radii = students.map((student) => Math.sqrt(student.filters.length));
  const columns = students.length <= 3 ? students.length : Math.ceil(Math.sqrt(students.length));
  const rows = Math.ceil(students.length / columns);
  const cell = WIDTH / columns;
  const scale = Math.min((cell / 2 - 10) / Math.max(...radii), 17);
  const cellHeight = Math.max(...radii) * scale * 2 + 44;
  const at = new Map();
  students.forEach((student, index) => {
    const row = Math.floor(index / columns);
    const inRow = row === rows - 1 ? students.length - row * columns : columns;
    const x = WIDTH / 2 + ((index % columns) - (inRow - 1) / 2) * cell;
    const y = row * cellHeight + cellHeight / 2 - 10;
    student.filters.forEach((filter, n) => {
      const radius = scale * Math.sqrt(n + 0.5) * 0.96;
      at.set(filter, [x + radius * Math.cos(n * GOLDEN_ANGLE), y + radius * Math.sin(n * GOLDEN_ANGLE)]);
    });
    at.set(`label ${index}`, [x, (row + 1) * cellHeight - 8]);
  });
  return { at, dot: Math.max(1.6, scale * 0.62), height: rows * cellHeight };
}

function edges({ edges: list }, { at }) {
  const strongest = Math.max(...list.map((edge) => edge[2]), 0);
  return list.map(([a, b, weight]) => h("line", {
    class: "edge", x1: at.get(a)[0], y1: at.get(a)[1], x2: at.get(b)[0], y2: at.get(b)[1], "stroke-opacity": 0.06 + 0.3 * (weight / strongest),
  }));
}

function cluster(student, holders, { at, dot }) {
  const who = holders.length ? holders.join(", ") : "no device";
  const dots = student.filters.map((filter) => {
    const [x, y] = at.get(filter);
    const circle = h("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: dot, class: holders.length ? null : "hollow" }, h("title", {}, `Filter ${filter}, student ${student.index}, ${who}`));
    if (holders.length) circle.style.fill = colourOf(holders[0]);
    return circle;
  });
  const [x, y] = at.get(`label ${student.index}`);
  return [...dots, h("text", { x, y }, `Student ${student.index}`)];
}

function entry(student, holders) {
  const swatch = h("span", { class: "swatch" });
  swatch.style.background = holders.length ? colourOf(holders[0]) : "var(--bad)";
  const who = holders.length ? holders.join(", ") : "no device online";
  const size = `${student.filters.length} filters · ${short(student.parameters)} parameters · ${short(student.macs)} MACs`;
  return h("li", {}, swatch, `Student ${student.index} on ${who} `, h("span", { class: "muted" }, `· ${student.network} · ${size}`));
}
