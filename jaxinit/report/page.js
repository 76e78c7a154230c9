// Tables sort by a click on a header, or Enter or Space on it; a third time restores the order.
const number = /^[×<>~]?\s*([-−]?)(inf|\d+(?:\.\d+)?)(?:e([+-]?\d+))?/i;

// A number that keeps the order of figures no float holds, such as 3.2e-3010; null for words.
function size(text) {
  const found = number.exec(text);
  if (!found) return null;
  if (Number(found[2]) === 0) return 0;
  const log = found[2] === "inf" ? 1e8 : Math.log10(Number(found[2])) + Number(found[3] || 0);
  return (found[1] ? -1 : 1) * (1e9 + log);
}

function sort(table, column, direction) {
  const rows = [...table.tBodies[0].rows];
  const keys = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
  const sizes = new Map(rows.map((row) => [row, size(keys.get(row))]));
  const numeric = rows.filter((row) => sizes.get(row) !== null).length * 2 > rows.length;
  rows.sort((a, b) => {
    if (!direction) return a.dataset.place - b.dataset.place;
    if (!numeric) return direction * keys.get(a).localeCompare(keys.get(b), "en", { numeric: true });
    const [p, q] = [sizes.get(a), sizes.get(b)];
    if (p === null || q === null) return (p === null) - (q === null);
    return direction * (p - q);
  });
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length < 2) continue;
  rows.forEach((row, place) => { row.dataset.place = place; });
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "sort by this column";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const direction = { ascending: -1, descending: 0 }[head.getAttribute("aria-sort")] ?? 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (direction) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      sort(table, column, direction);
    });
  });
}
