// Follows the coordinator's events and draws each; closes the stream while nobody looks.
import { $, h, keep, learnColours, milliseconds, percent, setAttribute, setText } from "./dom.js";
import { showDevices } from "./devices.js";
import { showGraph } from "./graph.js";
import { showSources } from "./sources.js";
import { listenForUpdates, showUpdates } from "./updates.js";
import { listenForImages } from "./upload.js";

let site = null;
let stream = null;
let retryMs = 500;
let lastEvent = 0;
let known = new Map();
let loading = null;

// Once at a time, however many events ask for it.
function loadSite() {
  loading ??= fetchSite().finally(() => { loading = null; });
  return loading;
}

async function fetchSite() {
  const response = await fetch("/api/site");
  if (response.status === 401) return location.assign("/login");
  site = await response.json();
  setText($("site"), site.site === "home" ? "" : site.site);
  setText($("about"), `NoNN Edge ${site.version} · coordinator ${site.coordinator} · deadline ${site.deadline_ms} ms${site.read_only ? " · read-only" : ""}`);
  $("try").hidden = site.read_only;
  $("logout").hidden = !site.login;
  const { deployment } = site;
  if (deployment) {
    $("deployment").replaceChildren(h("b", {}, deployment.name), ` version ${deployment.version} · ${deployment.id} · from ${deployment.teacher}`);
  }
}

function connect() {
  stream?.close();
  stream = new EventSource("/api/events");
  stream.onmessage = (event) => {
    retryMs = 500;
    lastEvent = Date.now();
    draw(JSON.parse(event.data));
  };
  stream.onerror = () => {
    showLink("bad", "Reconnecting");
    if (stream.readyState !== EventSource.CLOSED) return;
    // The browser gives up after an error status; we ask again, ever more slowly.
    setTimeout(() => { if (!document.hidden) loadSite().then(connect, connect); }, retryMs);
    retryMs = Math.min(10_000, retryMs * 2);
  };
}

function draw(now) {
  if (!site) return;
  if (!site.deployment || site.deployment.id !== now.deployment) loadSite();
  showLink(now.connected ? "good" : "bad", now.connected ? "Live" : "No broker");
  const banner = $("banner");
  banner.hidden = now.connected;
  if (!now.connected) setText(banner, "The coordinator has lost its broker and tries to get it back.");
  $("insecure").hidden = now.insecure.length === 0;
  setText($("insecure"), `Insecure: ${now.insecure.join(", ")} without TLS; whoever is on the network can read and answer.`);
  learnColours(now.devices);
  showTiles(now);
  showSources($("sources"), now.sources);
  $("no-sources").hidden = now.sources.some((source) => source.last);
  showDevices($("devices"), now.devices, now.deployment);
  showUpdates(site, now);
  $("no-devices").hidden = now.devices.length > 0;
  if (site.deployment) showGraph($("graph"), $("legend"), $("graph-text"), site.deployment, now.devices);
  announce(now.devices);
}

function showTiles(now) {
  const { rates, history, devices } = now;
  const answered = rates.complete + rates.degraded + rates.abandoned;
  const online = devices.filter((device) => device.online).length;
  const labelled = now.sources.reduce((sum, source) => sum + source.labelled, 0);
  const correct = now.sources.reduce((sum, source) => sum + source.correct, 0);
  const tiles = [
    { name: "Answers per second", value: rates.answers_per_s.toFixed(1), note: `${answered} in ten seconds`, line: history.map((row) => row[0]) },
    { name: "Latency", value: rates.p50_ms === null ? "–" : milliseconds(rates.p50_ms).replace(" ms", ""), unit: rates.p50_ms === null ? "" : " ms", note: `p95 ${milliseconds(rates.p95_ms)}`, line: history.map((row) => row[1] ?? 0) },
    { name: "Complete answers", value: answered ? percent(rates.complete / answered).replace(" %", "") : "–", unit: answered ? " %" : "", note: `${rates.degraded} degraded, ${rates.abandoned} without answer` },
    { name: "Devices online", value: String(online), unit: ` of ${devices.length}`, note: studentsNote(now) },
    labelled
      ? { name: "Accuracy", value: percent(correct / labelled, 1).replace(" %", ""), unit: " %", note: `${correct} of ${labelled} labelled frames` }
      : { name: "Accuracy", value: "–", note: "no labelled source" },
  ];
  keep($("tiles"), tiles, (tile) => tile.name, (tile) => h("div", { class: "tile" }, h("dt", {}, tile.name),
    h("dd", {}, h("span"), h("small")), h("dd", { class: "note" }),
    tile.line ? h("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" }, h("path", { class: "spark-area" }), h("path", { class: "spark" })) : null),
  (box, tile) => {
    setText(box.children[1].children[0], tile.value);
    setText(box.children[1].children[1], tile.unit ?? "");
    setText(box.children[2], tile.note);
    if (tile.line) drawLine(box.querySelectorAll("path"), tile.line.slice(-60));
  });
}

function studentsNote({ devices, deployment }) {
  if (!site.deployment) return "";
  const held = new Set(devices.filter((device) => device.online && device.deployment === deployment).flatMap((device) => device.students.map((s) => s.student)));
  return `${held.size} of ${site.deployment.students.length} students`;
}

function drawLine([area, line], numbers) {
  if (numbers.length < 2) return;
  const top = Math.max(...numbers, 1e-9) * 1.15;
  const points = numbers.map((number, index) => `${((index / (numbers.length - 1)) * 100).toFixed(1)},${(29 - (number / top) * 27).toFixed(1)}`);
  setAttribute(line, "d", `M${points.join("L")}`);
  setAttribute(area, "d", `M0,30L${points.join("L")}L100,30Z`);
}

function showLink(kind, text) {
  setAttribute($("link"), "class", `pill ${kind}`);
  setText($("link"), text);
}

function announce(devices) {
  const states = new Map(devices.map((device) => [device.name, device.online]));
  for (const [name, online] of states) {
    if (known.has(name) && known.get(name) !== online) $("announce").append(h("p", {}, `${name} is ${online ? "online" : "offline"}`));
  }
  while ($("announce").children.length > 20) $("announce").firstChild.remove();
  known = states;
}

$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});
// A browser allows six connections to one server: pages that nobody sees must not hold one.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.close();
  else connect();
});
setInterval(() => { if (!document.hidden && lastEvent && Date.now() - lastEvent > 4000) showLink("warn", "Waiting"); }, 1000);
listenForUpdates();
listenForImages(() => site?.deployment?.classes ?? []);
loadSite().then(connect, connect);
