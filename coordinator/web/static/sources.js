// What each source sees: picture, class, where the time went, what each student did for the answer.
import { colourOf, h, keep, milliseconds, percent, setAttribute, setText } from "./dom.js";

const PARTS = [
  ["capture", "Capture"], ["transport", "Transport"], ["queue", "Queue"], ["student", "Student"], ["merge", "Merge"],
];
const RESULTS = { complete: ["good", "Complete"], degraded: ["warn", "Degraded"], abandoned: ["bad", "No answer"] };

export function bestClasses(best) {
  const list = h("div", { class: "bars" });
  showClasses(list, best);
  return list;
}

function showClasses(list, best) {
  keep(list, best.map((row, place) => ({ row, place })), (item) => item.place, () =>
    h("div", { class: "bar" }, h("span"), h("span", { class: "track" }, h("div", { class: "fill" })), h("span")),
  (bar, { row: [name, share] }) => {
    setText(bar.children[0], name);
    setAttribute(bar.children[0], "title", name);
    bar.querySelector(".fill").style.transform = `scaleX(${share})`;
    setText(bar.children[2], percent(share, share < 0.1 ? 1 : 0));
  });
}

export function showSources(parent, sources) {
  keep(parent, sources.filter((source) => source.last), (source) => source.name, makeCard, updateCard);
}

function makeCard(source) {
  return h("article", { class: "card source", "aria-label": `Source ${source.name}` },
    h("div", { class: "source-head" }, h("h3", {}, source.name), h("span", { class: "pill" }), h("span", { class: "muted small rate" })),
    h("div", { class: "seen" },
      h("img", { class: "picture", alt: "" }),
      h("div", {},
        h("div", { class: "class" }, h("strong"), h("span")),
        h("div", { class: "bars" }))),
    h("div", { class: "label" }, h("span", {}, "Where the time went"), h("span", { class: "total" })),
    h("div", { class: "split", role: "img" }, ...PARTS.map(([name]) => h("span", { class: `part-${name}` }))),
    h("div", { class: "split-legend" }, ...PARTS.map(([name, title]) =>
      h("span", { class: `legend-${name}` }, h("span", { class: `swatch part-${name}` }), title, h("b")))),
    h("table", {},
      h("caption", {}, "What each student did for this answer"),
      h("thead", {}, h("tr", {}, ...[["Student", ""], ["Device", ""], ["Arrived", "number"], ["Inference", "number optional"],
        ["Without it", ""]].map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
      h("tbody")));
}

function updateCard(card, source) {
  const { last } = source;
  const [kind, title] = RESULTS[last.result];
  const pill = card.querySelector(".pill");
  setAttribute(pill, "class", `pill ${kind}`);
  setText(pill, last.missing.length ? `${title}, without student ${last.missing.join(", ")}` : title);
  setText(card.querySelector(".rate"), rateText(source));
  const picture = card.querySelector(".picture");
  if (picture.src !== last.picture) picture.src = last.picture;
  picture.classList.toggle("smooth", last.picture.startsWith("data:image/jpeg"));
  setAttribute(picture, "alt", last.class_name ? `Latest frame, seen as ${last.class_name}` : "Latest frame");
  setText(card.querySelector(".class strong"), last.class_name ?? "no answer");
  setText(card.querySelector(".class span"), last.best.length ? percent(last.best[0][1], 1) : "");
  showClasses(card.querySelector(".bars"), last.best);
  showSplit(card, last.latency_ms);
  showContributions(card.querySelector("tbody"), last);
}

function rateText(source) {
  if (source.age_s > 3) return `silent for ${Math.round(source.age_s)} s`;
  const accuracy = source.labelled ? ` · ${percent(source.correct / source.labelled, 1)} right` : "";
  return `${source.rates.answers_per_s.toFixed(1)} answers/s${accuracy}`;
}

function showSplit(card, latency) {
  setText(card.querySelector(".total"), `${milliseconds(latency.total)} from frame to answer`);
  const bar = card.querySelector(".split");
  const words = [];
  PARTS.forEach(([name, title], index) => {
    const ms = latency[name];
    const known = ms !== null && ms !== undefined;
    bar.children[index].style.flexGrow = known ? Math.max(ms, 0.001) : 0;
    bar.children[index].hidden = !known;
    const entry = card.querySelector(`.legend-${name}`);
    entry.hidden = !known;
    if (known) {
      setText(entry.querySelector("b"), milliseconds(ms));
      words.push(`${title} ${milliseconds(ms)}`);
    }
  });
  setAttribute(bar, "aria-label", words.join(", "));
}

function showContributions(body, last) {
  const rows = [...last.contributions, ...last.missing.map((student) => ({ student, missing: true }))];
  rows.sort((a, b) => a.student - b.student);
  keep(body, rows, (row) => row.student, () => h("tr", {},
    h("td"), h("td", {}, h("div", { class: "who" }, h("span", { class: "swatch" }), h("span"))), h("td", { class: "number" }),
    h("td", { class: "number optional" }), h("td")),
  (line, row) => {
    const [student, device, after, inference, without] = line.children;
    line.classList.toggle("missing", Boolean(row.missing));
    setText(student, String(row.student));
    const [swatch, name] = device.firstChild.children;
    setText(name, row.missing ? "no answer in time" : row.device);
    setAttribute(name, "title", row.missing ? "" : row.device);
    swatch.style.background = row.missing ? "transparent" : colourOf(row.device);
    setText(after, row.missing ? "–" : milliseconds(row.after_ms));
    setText(inference, row.missing ? "–" : milliseconds(row.student_ms));
    const changes = row.without && row.without[0] !== last.class_name;
    without.classList.toggle("changes", Boolean(changes));
    setText(without, withoutText(row, last, changes));
  });
}

function withoutText(row, last, changes) {
  if (row.missing || !last.class_name) return "–";
  if (!row.without) return "none";
  const [name, share] = row.without;
  return `${changes ? "→\u00a0" : ""}${name} ·\u00a0${percent(share).replace(" ", "\u00a0")}`;
}
