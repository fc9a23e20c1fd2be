// What the site runs, how an update goes, and the two buttons: deploy a bundle, roll back.
import { $, h, keep, percent, setAttribute, setText } from "./dom.js";

const MAX_BYTES = 64_000_000;
const STEPS = [["fetching", "Fetch"], ["canary", "Canary"], ["preparing", "Prepare"], ["switching", "Switch"], ["complete", "Done"]];
const WORDS = {
  fetching: "The coordinator fetches the bundle", canary: "Canaries try it in shadow", preparing: "Devices fetch and test it",
  switching: "The site changes over", complete: "Every student answers with it", reverting: "The site goes back",
  failed: "Not deployed",
};
const DEVICE_WORDS = { downloading: "downloading", verifying: "testing", ready: "ready", active: "answers with it", failed: "failed", rolled_back: "went back" };
let rollout = null;
let devices = [];

export function showUpdates(site, now) {
  rollout = now.rollout;
  devices = now.devices;
  const { taken, signed } = site.updates;
  $("updates").hidden = !taken;
  if (!taken || !rollout) return;
  showVersion($("running"), rollout.active_name, rollout.active_version, rollout.active);
  $("before").hidden = !rollout.previous;
  if (rollout.previous) showVersion($("before"), rollout.previous_name, rollout.previous_version, rollout.previous);
  const busy = !["idle", "complete", "failed"].includes(rollout.phase);
  showSteps(busy);
  showCanary(rollout.canary);
  showDeviceStates(busy);
  $("update-buttons").hidden = site.read_only;
  $("deploy").disabled = busy;
  $("rollback").disabled = busy || !rollout.previous;
  $("order-row").hidden = !signed;
}

function showVersion(row, name, version, id) {
  const [, title, detail] = row.children;
  setText(title, name ?? id);
  setText(detail, `version ${version} · ${id}`);
}

function showSteps(busy) {
  const box = $("rollout");
  box.hidden = !rollout.target || rollout.phase === "idle";
  if (box.hidden) return;
  const failed = ["failed", "reverting"].includes(rollout.phase);
  const steps = STEPS.filter(([phase]) => phase !== "canary" || rollout.canary || rollout.phase === "canary");
  const at = steps.findIndex(([phase]) => phase === rollout.phase);
  keep($("steps"), failed ? [] : steps.map(([phase, title], index) => ({ phase, title, index })), (step) => step.phase,
    (step) => h("li", {}, step.title),
    (item, { index }) => {
      const done = index < at || rollout.phase === "complete";
      setAttribute(item, "class", done ? "done" : index === at ? "now" : "");
      if (index === at) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
  const share = rollout.phase === "fetching" ? ` · ${percent(rollout.progress)}` : "";
  const waiting = rollout.phase === "preparing" && rollout.waiting_for.length ? ` · waiting for student ${rollout.waiting_for.join(", ")}` : "";
  const note = $("rollout-note");
  setAttribute(note, "class", failed ? "failed" : busy ? "muted small" : "good-note small");
  setText(note, `${WORDS[rollout.phase] ?? rollout.phase}${share}${waiting}${rollout.error ? `: ${rollout.error}` : ""}`);
}

function showCanary(canary) {
  const box = $("canary");
  box.hidden = !canary || canary.frames === 0;
  if (box.hidden) return;
  const rows = [
    ["Frames compared", String(canary.frames)],
    ["Same class", canary.agreement === null ? "–" : percent(canary.agreement, 1)],
    ["p95 now", canary.old_ms_p95 === null ? "–" : `${canary.old_ms_p95.toFixed(2)} ms`],
    ["p95 new", canary.new_ms_p95 === null ? "–" : `${canary.new_ms_p95.toFixed(2)} ms`],
  ];
  keep(box, rows, (row) => row[0], (row) => h("div", {}, h("dt", {}, row[0]), h("dd")), (cell, row) => setText(cell.children[1], row[1]));
}

function showDeviceStates(busy) {
  const list = $("update-devices");
  const taking = busy ? devices.filter((device) => device.update && device.update.target === rollout.target && device.update.state !== "idle") : [];
  keep(list, taking, (device) => device.name, (device) => h("li", {}, h("span", { class: "name" }, device.name), h("span", { class: "muted" }), h("progress", { max: "1", "aria-label": `Download of ${device.name}` })),
    (line, { update }) => {
      setText(line.children[1], update.error || DEVICE_WORDS[update.state] || update.state);
      line.children[1].classList.toggle("failed", Boolean(update.error));
      line.children[2].hidden = update.state !== "downloading";
      line.children[2].value = update.progress ?? 0;
    });
}

export function listenForUpdates() {
  $("deploy").addEventListener("click", () => {
    fail($("deploy-dialog"), "");
    $("deploy-dialog").querySelector("form").reset();
    const online = devices.filter((device) => device.online && device.students.length);
    $("canaries").replaceChildren(...online.map((device) => h("label", {}, h("input", { type: "checkbox", name: "canary", value: device.name }), device.name)));
    $("deploy-dialog").showModal();
  });
  $("rollback").addEventListener("click", () => {
    fail($("rollback-dialog"), "");
    $("rollback-dialog").querySelector("form").reset();
    setText($("rollback-target"), `${rollout.previous_name ?? rollout.previous} version ${rollout.previous_version}`);
    $("rollback-dialog").showModal();
  });
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      send(dialog, event.target);
    });
  }
}

function send(dialog, form) {
  const deploying = dialog.id === "deploy-dialog";
  const file = form.elements.file.files[0];
  const query = new URLSearchParams();
  if (deploying) {
    if (file.size > MAX_BYTES) return fail(dialog, `${file.name} is larger than 64 MB.`);
    new FormData(form).getAll("canary").forEach((name) => query.append("canary", name));
    query.set("frames", form.elements.frames.value);
    query.set("agreement", form.elements.agreement.value / 100);
  } else {
    query.set("to", rollout.previous);
  }
  const bar = dialog.querySelector("progress");
  const button = form.querySelector("button[type=submit]");
  const request = new XMLHttpRequest();
  request.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
  request.onloadend = () => {
    bar.hidden = true;
    button.disabled = false;
    if (request.status === 202) return dialog.close();
    let error = "The coordinator does not answer.";
    try { error = JSON.parse(request.responseText).error; } catch { /* no JSON: nobody of ours answered */ }
    fail(dialog, error);
  };
  request.open("POST", `/api/${deploying ? "deploy" : "rollback"}?${query}`);
  fail(dialog, "");
  bar.value = 0;
  bar.hidden = !deploying;
  button.disabled = true;
  request.send(file ?? null);
}

function fail(dialog, text) {
  const line = dialog.querySelector("[role=alert]");
  setText(line, text);
  line.hidden = !text;
}
