"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, place) => row.cells[place].dataset.value ?? row.cells[place].textContent;
  const compare = (a, b) =>
    a === "" || b === ""
      ? (a === "") - (b === "")
      : a.localeCompare(b, undefined, { numeric: true });
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.ariaSort !== "ascending";
      const numbers = head.classList.contains("number");
      const rows = [...body.rows].map((row) => [key(row, place), row]);
      rows.sort(([a], [b]) => {
        const order = numbers && a !== "" && b !== "" ? a - b : compare(a, b);
        return up || a === "" || b === "" ? order : -order;
      });
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows.map(([, row]) => row));
    });
  });
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Find an image";
  search.setAttribute("aria-label", "Find an image");
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase();
    for (const row of body.rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(words);
    }
  });
  table.parentElement.before(search);
}
