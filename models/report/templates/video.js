"use strict";

const data = JSON.parse(document.getElementById("frames")?.textContent ?? "null");
const video = document.querySelector("video");
const stage = document.getElementById("stage");
const timeline = document.querySelector(".timeline");
const last = data ? data.time.length - 1 : -1;
let shown = 0, chosen = null;

/** The frame that is on screen at `time`. */
const frameAt = (time) => Math.max(data.time.findLastIndex((start) => start <= time + 1e-6), 0);
const isFlagged = ([part, , p]) => p > data.thresholds[part];
const end = (index) => data.time[index + 1] ?? data.duration;
const number = (value) => (value === null ? "-" : value.toFixed(2));

function drawBox(over, box, kind) {
  const [x1, y1, x2, y2] = box;
  const { width, height } = stage.dataset;
  const item = document.createElement("i");
  item.className = kind;
  item.style.left = `${(100 * x1) / width}%`;
  item.style.top = `${(100 * y1) / height}%`;
  item.style.width = `${(100 * (x2 - x1)) / width}%`;
  item.style.height = `${(100 * (y2 - y1)) / height}%`;
  over.append(item);
}

/** Draws the boxes of frame `shown` over the video, and the labels where the data place them. */
function drawBoxes() {
  const over = stage.querySelector(".over");
  over.replaceChildren();
  if (!document.getElementById("boxes").checked) return;
  for (const [id, box, parts] of data.people[shown]) {
    const mark = id === chosen ? " chosen" : "";
    for (const part of parts) {
      if (data.parts[part[0]] !== "human") drawBox(over, part[1], isFlagged(part) ? "flagged" : "");
    }
    const flagged = parts.filter(isFlagged).map(([part]) => data.parts[part]);
    const own = flagged.includes("human") ? "flagged" : flagged.length ? "abnormal" : "";
    drawBox(over, box, own + mark);
  }
  if (!document.getElementById("labels").checked) return;
  for (const [words, left, top, red] of data.labels[shown]) {
    const label = document.createElement("b");
    const mark = words.split(" ")[0] === `#${chosen}` ? " chosen" : "";
    label.className = (red ? "abnormal" : "") + mark;
    label.textContent = words;
    label.style.left = `${left}%`;
    label.style.top = `${top}%`;
    over.append(label);
  }
}

function show(index) {
  shown = Math.min(Math.max(index, 0), last);
  const axis = document.querySelector(".axis");
  const x = (data.time[shown] + end(shown)) / 2 / data.duration;
  document.querySelector(".now").style.left = `${axis.offsetLeft + x * axis.clientWidth}px`;
  const people = data.people[shown];
  const readout = document.getElementById("readout");
  const words = people.flatMap(([id, , parts]) =>
    parts.filter(isFlagged).map(([part, , p]) => `#${id} ${data.parts[part]} ${p.toFixed(2)}`));
  readout.textContent = `frame ${data.frame[shown]}, ${data.time[shown].toFixed(2)} s, score ` +
    `${number(data.score[shown])}${words.length ? `: ${[...new Set(words)].join(", ")}` : ""}`;
  timeline.setAttribute("aria-valuenow", shown);
  timeline.setAttribute("aria-valuetext", readout.textContent);
  if (stage) drawBoxes();
}

function choose(person) {
  chosen = person;
  for (const item of document.querySelectorAll("[data-person]")) {
    item.classList.toggle("chosen", Number(item.dataset.person) === chosen);
  }
}

function jump(index) {
  show(index);
  // A little into the frame: a player rounds times down to the frame before.
  if (video) { video.pause(); video.currentTime = 0.6 * data.time[shown] + 0.4 * end(shown); }
}

/** [frame, person] wherever a person's part is flagged that was not flagged in the frame before. */
function moments() {
  const found = [];
  let before = new Set();
  data.people.forEach((people, frame) => {
    const now = new Set();
    for (const [id, , parts] of people) {
      for (const part of parts.filter(isFlagged)) {
        const key = `${id} ${part[0]}`;
        if (!before.has(key) && !now.has(key)) found.push([frame, id]);
        now.add(key);
      }
    }
    before = now;
  });
  return found;
}

function nextMoment() {
  const all = moments();
  if (!all.length) return;
  const next = all.find(([frame]) => frame > shown) ?? all[0];
  choose(next[1]);
  jump(next[0]);
}

const toggle = () => (video.paused ? video.play() : video.pause());

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && event.target.closest("button, input, summary, a")) return;
  const acts = {
    ArrowLeft: () => jump(shown - 1),
    ArrowRight: () => jump(shown + 1),
    n: nextMoment,
    " ": () => video && toggle(),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
}

function startTimeline() {
  timeline.addEventListener("click", (event) => {
    const box = document.querySelector(".axis").getBoundingClientRect();
    const row = event.target.closest("[data-person]");
    if (row) choose(Number(row.dataset.person));
    if (event.clientX < box.left) show(shown);  // the names choose a person and leave the time
    else jump(frameAt(((event.clientX - box.left) / box.width) * data.duration));
  });
  document.getElementById("more")?.addEventListener("click", (event) => {
    for (const row of document.querySelectorAll("[data-late]")) row.hidden = false;
    event.target.remove();
  });
}

function startVideo() {
  const play = document.getElementById("play");
  play.addEventListener("click", toggle);
  video.addEventListener("click", toggle);
  for (const name of ["play", "pause"]) {
    video.addEventListener(name, () => { play.textContent = video.paused ? "play" : "pause"; });
  }
  document.getElementById("next").addEventListener("click", nextMoment);
  for (const name of ["boxes", "labels"]) {
    document.getElementById(name).addEventListener("change", drawBoxes);
  }
  if (video.requestVideoFrameCallback) {
    const onFrame = (_, { mediaTime }) => {
      if (!video.paused) show(frameAt(mediaTime));
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  } else {
    video.addEventListener("timeupdate", () => {
      if (!video.paused) show(frameAt(video.currentTime));
    });
  }
}

function start() {
  startTimeline();
  if (video) startVideo();
  for (const card of document.querySelectorAll(".card")) {
    card.addEventListener("click", () => {
      choose(Number(card.dataset.person));
      jump(data.frame.indexOf(Number(card.dataset.frame)));
    });
  }
  document.addEventListener("keydown", onKey);
  window.addEventListener("resize", () => show(shown));
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.has("person")) choose(Number(asked.get("person")));
  const frame = data.frame.indexOf(Number(asked.get("frame")));
  if (asked.has("frame") && frame >= 0) jump(frame); else show(0);
}

if (data) start();
