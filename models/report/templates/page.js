"use strict";

function sortTable(table, column, down) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const numeric = table.tHead.rows[0].cells[column].dataset.kind === "number";
  const rows = [...body.rows];
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");  // nothing known: last both ways
    const order = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
    return down ? -order : order;
  });
  body.append(...rows);
  for (const [i, head] of [...table.tHead.rows[0].cells].entries()) {
    if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

function startTable(table) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!event.target.closest("button")) return;
    sortTable(table, head.cellIndex, head.getAttribute("aria-sort") === "ascending");
  });
  const search = document.getElementById("search");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase();
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.dataset.name.toLowerCase().includes(words);
    }
  });
}

function startTimeline(svg) {
  const data = JSON.parse(document.getElementById("frames").textContent);
  const video = document.querySelector("video");
  const readout = document.getElementById("readout");
  const now = svg.querySelector(".now");
  const last = data.time.length - 1;
  let shown = 0;

  const nearest = (time) => {
    let low = 0, high = last;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.time[middle] <= time + 1e-6) low = middle; else high = middle - 1;
    }
    return low;
  };
  const number = (value) => (value === null ? "-" : value.toFixed(2));
  const show = (index) => {
    shown = index;
    const x = data.left + (data.width * (data.time[index] + data.step / 2)) / data.duration;
    now.setAttribute("x1", x);
    now.setAttribute("x2", x);
    const parts = Object.keys(data.p).map((part) => `${part} ${number(data.p[part][index])}`);
    readout.textContent = `frame ${data.frame[index]}, ${data.time[index].toFixed(2)} s: score ` +
      `${number(data.score[index])}, people ${data.people[index]}, highest p: ${parts.join(", ")}`;
    svg.setAttribute("aria-valuenow", index);
    svg.setAttribute("aria-valuetext", readout.textContent);
  };
  const jump = (index) => {
    show(Math.min(Math.max(index, 0), last));
    // A little into the frame: a player rounds times down to the frame before.
    if (video) { video.pause(); video.currentTime = data.time[shown] + 0.4 * data.step; }
  };
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) * svg.viewBox.baseVal.width) / box.width;
    return nearest(((x - data.left) / data.width) * data.duration);
  };
  svg.addEventListener("click", (event) => jump(at(event)));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    jump(shown + step);
  });
  for (const button of document.querySelectorAll("button[data-time]")) {
    button.addEventListener("click", () => {
      jump(nearest(Number(button.dataset.time)));
      svg.scrollIntoView({ block: "nearest" });
    });
  }
  if (video) video.addEventListener("timeupdate", () => show(nearest(video.currentTime)));
  show(0);
}

const table = document.querySelector("table.videos");
if (table) startTable(table);
const timeline = document.querySelector("svg.timeline");
if (timeline) startTimeline(timeline);
