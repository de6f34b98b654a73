"use strict";
const table = document.querySelector("table");
const value = (row, column) => row.cells[column].dataset.sort;
const compare = (a, b) =>
  a !== "" && b !== "" && isFinite(a) && isFinite(b) ? a - b : a.localeCompare(b);
table.querySelectorAll("th button").forEach((button) => {
  const heading = button.closest("th");
  button.addEventListener("click", () => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const [a, b] = [value(one, heading.cellIndex), value(other, heading.cellIndex)];
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1;
      return ascending ? compare(a, b) : compare(b, a);
    });
    table.tBodies[0].append(...rows);
  });
});
document.querySelector("input[type=search]").addEventListener("input", (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const row of table.tBodies[0].rows) {
    row.hidden = !row.textContent.toLowerCase().includes(wanted);
  }
});
