"use strict";
const $ = (id) => document.getElementById(id);
const token = $("token");
let request = null;

if (token) {
  token.value = sessionStorage.getItem("token") || "";
  token.addEventListener("input", () => sessionStorage.setItem("token", token.value));
}

function fail(reason) {
  request = null;
  $("work").hidden = true;
  $("drop").hidden = false;
  $("error").textContent = reason;
  $("error").hidden = false;
  if (token && /token/.test(reason)) token.focus();
}

function show(state, share) {
  $("state").textContent = state;
  if (share === null) $("bar").removeAttribute("value");
  else $("bar").value = share;
}

function line(text) {
  const row = JSON.parse(text);
  if (row.error) return fail(row.error);
  if (!row.page) {
    if (row.waiting) return show("Waiting for other videos to be scored", null);
    const of = row.expected ? ` of ${row.expected}` : "";
    const share = row.expected ? Math.min(row.frames / row.expected, 1) : null;
    const last = share === 1 ? "Making the report" : `Scoring: frame ${row.frames}${of}`;
    return show(last, share === 1 ? null : share);
  }
  request = null;
  $("work").hidden = true;
  $("drop").hidden = false;
  $("scored").textContent = $("name").textContent;
  $("score").textContent = row.people ? row.video_results.toFixed(3) : "-";
  $("people").textContent = row.tracks;
  $("frames").textContent = row.frames;
  $("page").href = "/reports/" + row.page;
  $("done").hidden = false;
  $("page").focus();
}

function send(file) {
  if (!file || request) return;
  for (const id of ["error", "done", "drop"]) $(id).hidden = true;
  $("work").hidden = false;
  $("name").textContent = file.name;
  const form = new FormData();
  form.append("file", file);
  request = new XMLHttpRequest();
  const mine = request;
  let read = 0;
  mine.open("POST", "/report");
  if (token) mine.setRequestHeader("Authorization", "Bearer " + token.value);
  show("Uploading", 0);
  mine.upload.onprogress = (e) => show("Uploading", e.lengthComputable ? e.loaded / e.total : null);
  mine.upload.onload = () => show("Waiting", null);
  const lines = () => {
    if (mine.status !== 200) return;
    const end = mine.responseText.lastIndexOf("\n") + 1;
    const fresh = mine.responseText.slice(read, end).trim().split("\n");
    read = end;
    if (fresh[0]) line(fresh[fresh.length - 1]);
  };
  mine.onprogress = lines;
  mine.onload = () => {
    if (mine.status === 200) {
      lines();
      if (request === mine) fail("The service ended before the video was scored; try again.");
      return;
    }
    let reason = `The service answered ${mine.status}.`;
    try { reason = JSON.parse(mine.responseText).detail; } catch { /* not from our service */ }
    fail(mine.status === 401 ? "The token is wrong or missing: enter it above." : reason);
  };
  mine.onerror = () => fail("The service cannot be reached, or the connection broke off.");
  mine.onabort = () => fail("Cancelled.");
  mine.send(form);
}

$("file").addEventListener("change", (e) => { send(e.target.files[0]); e.target.value = ""; });
$("cancel").addEventListener("click", () => request && request.abort());
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (e) => { e.preventDefault(); $("drop").classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (e) => { e.preventDefault(); $("drop").classList.remove("over"); });
}
document.addEventListener("drop", (e) => send(e.dataTransfer.files[0]));
