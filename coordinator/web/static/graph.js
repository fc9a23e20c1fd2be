// The deployment's filters, one dot each, grouped by student and coloured by the device that holds the student.
import { colourOf, h } from "./dom.js";

const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));
const WIDEST = 640;
let drawn = "";

export function showGraph(svg, legend, text, deployment, devices) {
  const holders = deployment.students.map((student) => devices
    .filter((device) => device.online && device.deployment === deployment.id && device.students.some((s) => s.student === student.index))
    .map((device) => device.name));
  const width = Math.min(WIDEST, Math.max(280, svg.clientWidth));
  const state = JSON.stringify([deployment.id, holders, width, document.documentElement.dataset.theme]);
  if (state === drawn) return;
  drawn = state;
  const places = layout(deployment, width);
  svg.setAttribute("viewBox", `0 0 ${width} ${places.height}`);
  const joined = deployment.edges.length ? " Lines join those that fire together most." : "";
  text.textContent = `${deployment.filters} filters of the teacher's last layer, in ${deployment.students.length} partitions, coloured by the device that answers for them.${joined}`;
  const colours = new Map(deployment.students.flatMap((student, index) => student.filters.map((filter) => [filter, holders[index][0]])));
  svg.replaceChildren(...edges(deployment, places, colours), ...deployment.students.flatMap((student, index) => cluster(student, holders[index], places)));
  legend.replaceChildren(...deployment.students.map((student, index) => entry(student, holders[index])));
}

const short = (number) => Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(number);

function layout({ students }, width) {
  const radii = students.map((student) => Math.sqrt(student.filters.length));
  const columns = students.length <= 3 ? students.length : Math.ceil(Math.sqrt(students.length));
  const rows = Math.ceil(students.length / columns);
  const cell = width / columns;
  const scale = Math.min((cell / 2 - 10) / Math.max(...radii), 16);
  const cellHeight = Math.max(...radii) * scale * 2 + 44;
  const at = new Map();
  students.forEach((student, index) => {
    const row = Math.floor(index / columns);
    const inRow = row === rows - 1 ? students.length - row * columns : columns;
    const x = width / 2 + ((index % columns) - (inRow - 1) / 2) * cell;
    const y = row * cellHeight + cellHeight / 2 - 10;
    student.filters.forEach((filter, n) => {
      const radius = scale * Math.sqrt(n + 0.5) * 0.96;
      at.set(filter, [x + radius * Math.cos(n * GOLDEN_ANGLE), y + radius * Math.sin(n * GOLDEN_ANGLE)]);
    });
    at.set(`label ${index}`, [x, (row + 1) * cellHeight - 8]);
  });
  return { at, dot: Math.max(1.6, Math.min(7, scale * 0.55)), height: rows * cellHeight };
}

// Within a partition in its colour, straight; between two a bow of grey, the fainter the weaker.
function edges({ edges: list }, { at }, colours) {
  return list.map(([a, b, weight]) => {
    const [[x1, y1], [x2, y2]] = [at.get(a), at.get(b)];
    const own = colours.get(a) && colours.get(a) === colours.get(b);
    const bow = own ? 0 : 0.12;
    const middle = `${((x1 + x2) / 2 + (y1 - y2) * bow).toFixed(1)},${((y1 + y2) / 2 + (x2 - x1) * bow).toFixed(1)}`;
    const line = h("path", { class: "edge", d: `M${x1.toFixed(1)},${y1.toFixed(1)}Q${middle} ${x2.toFixed(1)},${y2.toFixed(1)}`, "stroke-opacity": ((own ? 0.25 : 0.08) + 0.5 * weight).toFixed(2) });
    if (own) line.style.stroke = colourOf(colours.get(a));
    return line;
  });
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
  return h("li", {}, swatch, h("b", {}, `Student ${student.index} on ${who}`), h("span", { class: "muted" }, `${student.network} · ${size}`));
}
