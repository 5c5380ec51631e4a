"use strict";
// Tables are sorted by a click on a heading; the second click turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === "" || b === "") return (a === "") - (b === "");  // what is missing stays last
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows);
  }));
}
// The heat map shows the score at the training length, at the longest one, or the mean over all.
for (const group of document.querySelectorAll(".switch")) {
  group.addEventListener("click", event => {
    const chosen = event.target.dataset.view;
    if (!chosen) return;
    for (const button of group.children) button.setAttribute("aria-pressed", button === event.target);
    for (const cell of document.querySelectorAll("td.heat")) {
      const [text, share, note] = cell.dataset[chosen].split("|");
      cell.style.setProperty("--s", share);
      cell.dataset.v = share;
      cell.classList.toggle("strong", share > 0.55);
      cell.innerHTML = `${text}<small>${note}</small>`;
    }
  });
}
// What is pointed at is lit up in all charts and tables: a layer, or by the legend all of a colour.
let lit = "";
function light(chosen) {
  if (chosen === lit) return;
  lit = chosen;
  document.body.classList.toggle("pointed", chosen !== "");
  document.body.classList.toggle("one", chosen.startsWith("[data-layer"));
  for (const part of document.querySelectorAll("[data-layer]")) part.classList.toggle("lit", chosen !== "" && part.matches(chosen));
}
document.addEventListener("pointerover", event => {
  const part = event.target.closest("[data-layer], [data-hue]");
  if (!part) light("");
  else if (part.dataset.hue) light(`.series.f${part.dataset.hue}, tr:has(.f${part.dataset.hue})`);
  else light(`[data-layer="${CSS.escape(part.dataset.layer)}"]`);
});
