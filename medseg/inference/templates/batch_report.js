"use strict";
const table = document.querySelector("table");
const body = table.tBodies[0];
const first = [...body.rows];
const value = (row, column) => row.cells[column].dataset.sort ?? "";
const compare = (a, b) =>
  a !== "" && b !== "" && isFinite(a) && isFinite(b) ? a - b : a.localeCompare(b);
const choice = document.querySelector("select");

const mark = (heading, direction) => {
  table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
  if (heading) heading.setAttribute("aria-sort", direction);
};
const sort = (heading, ascending) => {
  mark(heading, ascending ? "ascending" : "descending");
  const column = heading.cellIndex;
  const rows = [...body.rows];
  rows.sort((one, other) => {
    const [a, b] = [value(one, column), value(other, column)];
    if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
    return ascending ? compare(a, b) : compare(b, a);
  });
  body.append(...rows);
};

table.querySelectorAll("thead button").forEach((button) => {
  const heading = button.closest("th");
  button.addEventListener("click", () =>
    sort(heading, heading.getAttribute("aria-sort") !== "ascending"));
  const option = new Option(button.textContent, heading.cellIndex);
  choice.append(option);
});
choice.addEventListener("change", () => {
  if (choice.value !== "") {
    sort(table.tHead.rows[0].cells[choice.value], true);
    return;
  }
  mark(null);
  body.append(...first);
});

document.querySelector("input[type=search]").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const row of body.rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
});

const dialog = document.querySelector("dialog");
const large = new Image();
dialog.append(large);
body.addEventListener("click", (event) => {
  const small = event.target.closest(".open")?.querySelector("img");
  if (!small) return;
  large.src = small.src;
  large.alt = small.alt;
  dialog.querySelector("span").textContent = small.closest("tr").cells[0].dataset.sort;
  dialog.showModal();
});
// Escape closes it, too: the browser sees to that.
dialog.addEventListener("click", () => dialog.close());
