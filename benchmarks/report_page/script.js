// Makes the headings of tables sort their columns. Without it the tables are as they were written.
"use strict";
addEventListener("DOMContentLoaded", () => {
  const value = (row, column) => row.cells[column].dataset.value;
  const compare = (a, b, column, sign) => {
    const [x, y] = [value(a, column), value(b, column)];
    if (x !== undefined && y !== undefined) return sign * (x - y);
    if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1; // What has no value comes last, both ways.
    return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    headings.forEach((heading, column) => {
      if (!heading.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        body.append(...[...body.rows].sort((a, b) => compare(a, b, column, sign)));
      });
    });
  }
});
