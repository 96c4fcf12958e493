"use strict";

function sortTable(table, column, down) {
  const body = table.tBodies[0];
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const numeric = table.tHead.rows[0].cells[column].dataset.kind === "number";
  const rows = [...body.rows];
  rows.sort((a, b) => {
    const x = value(a), y = value(b);
    if (x === "" || y === "") return (x === "") - (y === "");  // unknown values come last in both orders
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
    if (!head?.dataset.kind) return;
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

function startGallery(chips, gallery) {
  const most = 24;
  chips.addEventListener("click", (event) => {
    const { group } = event.target.dataset;
    if (group === undefined) return;
    for (const chip of chips.children) {
      chip.setAttribute("aria-pressed", String(chip === event.target));
    }
    let shown = 0;
    for (const crop of gallery.children) {
      const wanted = group === "" || crop.dataset.group === group;
      crop.hidden = !wanted || shown >= most;
      shown += wanted;
    }
  });
}

const table = document.querySelector("table.videos");
if (table) startTable(table);
const chips = document.querySelector(".chips");
if (chips) startGallery(chips, document.querySelector(".gallery"));
