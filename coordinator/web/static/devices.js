// One card for each device: what it runs, how it fares, how its update goes.
import { colourOf, duration, h, keep, milliseconds, percent, setAttribute, setText } from "./dom.js";

export function showDevices(parent, devices, deployment) {
  keep(parent, devices, (device) => device.name, makeCard, (card, device) => updateCard(card, device, deployment));
}

function makeCard(device) {
  return h("li", { class: "card device", "data-device": device.name },
    h("div", { class: "device-head" }, h("h3", {}, device.name), h("span", { class: "pill" }), h("span", { class: "muted small about" })),
    h("div", { class: "chips" }),
    h("ul", { class: "problems failed small", hidden: "" }),
    h("dl", { class: "facts" }),
    h("div", { class: "update", hidden: "" }, h("span"), h("progress", { max: "1", "aria-label": `Update of ${device.name}` })));
}

function updateCard(card, device, deployment) {
  const seen = device.online ? device.telemetry : null;
  const throttled = Boolean(seen?.throttled);
  card.classList.toggle("offline", !device.online);
  card.classList.toggle("warned", device.online && throttled);
  card.style.setProperty("--swatch", colourOf(device.name));
  const pill = card.querySelector(".pill");
  setAttribute(pill, "class", `pill ${device.online ? (throttled ? "warn" : "good") : "bad"}`);
  setText(pill, device.online ? (throttled ? "Throttled" : "Online") : "Offline");
  setText(card.querySelector(".about"), [device.machine, seen ? `up ${duration(seen.uptime_s)}` : null].filter(Boolean).join(" · "));
  showChips(card.querySelector(".chips"), device, deployment);
  showProblems(card.querySelector(".problems"), device.problems);
  const facts = card.querySelector(".facts");
  facts.hidden = !seen;
  if (seen) showFacts(facts, seen);
  showUpdate(card.querySelector(".update"), device.update);
}

function showChips(parent, device, deployment) {
  const chips = device.students.map((student) => ({ text: `Student ${student.student} · ${student.network} · ${student.precision}` }));
  const engines = [...new Set(device.students.map((student) => student.engine))];
  chips.push(...engines.map((engine) => ({ text: engine })));
  if (device.deployment && deployment && device.deployment !== deployment) {
    chips.push({ text: `other deployment ${device.deployment.slice(0, 8)}`, alarm: true });
  }
  keep(parent, chips, (chip) => chip.text, (chip) => h("span", { class: `chip${chip.alarm ? " alarm" : ""}` }, chip.text), () => {});
}

// What a person has to mend on the device itself: mistakes on its card, a full disk.
function showProblems(parent, problems) {
  parent.hidden = !problems.length;
  keep(parent, problems, (problem) => problem, (problem) => h("li", {}, problem), () => {});
}

function showFacts(parent, seen) {
  const facts = [
    ["Inference p50", milliseconds(seen.student_ms_p50)],
    ["p95", milliseconds(seen.student_ms_p95)],
    ["Answered", String(seen.frames_answered)],
    ["Dropped", String(seen.frames_dropped), false],
    ["CPU", percent(seen.cpu_percent / 100)],
    ["Memory", `${Math.round(seen.memory_rss_bytes / 2 ** 20)} MiB`],
  ];
  if (seen.temperature_c !== undefined) facts.push(["Temperature", `${Math.round(seen.temperature_c)} °C`, seen.temperature_c >= 80]);
  if (seen.power_w !== undefined) facts.push([seen.power_source === "estimated" ? "Power (est.)" : "Power", `${seen.power_w.toFixed(1)} W`]);
  keep(parent, facts, (fact) => fact[0], (fact) => h("div", {}, h("dt", {}, fact[0]), h("dd")), (cell, fact) => {
    setText(cell.children[1], fact[1]);
    cell.children[1].classList.toggle("alarm", Boolean(fact[2]));
  });
}

function showUpdate(parent, update) {
  // What answers already is no news.
  parent.hidden = !update || (["idle", "active"].includes(update.state) && !update.error);
  if (parent.hidden) return;
  const target = update.target ? ` ${update.target.slice(0, 8)}` : "";
  setText(parent.children[0], `Update: ${update.state}${target}${update.error ? ` – ${update.error}` : ""}`);
  parent.children[0].classList.toggle("failed", Boolean(update.error));
  const bar = parent.querySelector("progress");
  bar.hidden = update.progress === null || !["downloading", "verifying"].includes(update.state);
  if (!bar.hidden) bar.value = update.progress;
}
