// Headings of sortable tables become buttons: a press sorts by the column, the next one
// the other way round.
function compare(first, second) {
  if ("number" in first.dataset && "number" in second.dataset) {
    return first.dataset.number - second.dataset.number;
  }
  return first.textContent.localeCompare(second.textContent);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort(
        (a, b) => compare(a.cells[column], b.cells[column]) * (rising ? 1 : -1)
      );
      body.append(...rows);
    });
  });
}
