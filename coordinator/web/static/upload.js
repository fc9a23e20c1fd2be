// An image from this page to the fleet, and its answer.
import { $, h, milliseconds, percent } from "./dom.js";
import { bestClasses } from "./sources.js";

const MAX_BYTES = 12_000_000;

export function listenForImages(classes) {
  const drop = $("drop");
  $("file").addEventListener("change", (event) => {
    if (event.target.files[0]) ask(event.target.files[0], classes);
    event.target.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) ask(event.dataTransfer.files[0], classes);
  });
  // A file that misses the box must not replace the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
}

async function ask(file, classes) {
  const answer = $("answer");
  if (file.size > MAX_BYTES) return fail(answer, `${file.name} is larger than 12 MB.`);
  answer.replaceChildren(h("p", { class: "muted" }, `Asking the fleet about ${file.name} …`));
  try {
    const response = await fetch("/api/classify", { method: "POST", body: file });
    const body = await response.json();
    if (!response.ok) return fail(answer, `${file.name}: ${body.error}`);
    show(answer, body, classes());
  } catch {
    fail(answer, "The coordinator does not answer.");
  }
}

function fail(answer, text) {
  answer.replaceChildren(h("p", { class: "failed" }, text));
}

function show(answer, { picture, answer: prediction, class_name: name }, classes) {
  if (name === null) return fail(answer, "No student answered in time.");
  const best = prediction.probabilities.map((share, index) => [classes[index] ?? String(index), share]).sort((a, b) => b[1] - a[1]).slice(0, 5);
  const image = h("img", { class: `picture${picture.startsWith("data:image/jpeg") ? " smooth" : ""}`, src: picture, alt: "What the students saw" });
  const missing = prediction.missing.length ? `, without student ${prediction.missing.join(", ")}` : "";
  answer.replaceChildren(h("div", { class: "seen" }, image, h("div", {},
    h("div", { class: "class" }, h("strong", {}, name), h("span", {}, percent(best[0][1], 1))), bestClasses(best))),
  h("p", { class: "muted small" }, `Answered in ${milliseconds(prediction.latency_ms.total)}${missing}.`));
}
