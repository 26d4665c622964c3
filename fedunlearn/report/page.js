"use strict";
// Search and filter over rows that are all there already; without scripts the page is complete, only not searchable.
const tools = document.querySelector(".tools");
const text = document.querySelector("#text");
const level = document.querySelector("#level");
const said = document.querySelector("#said");
const groups = [...document.querySelectorAll(".group")];
const before = new Map(groups.map((group) => [group, group.open]));
const most = 500; // rows that are unfolded at once
let waiting = 0;

function apply() {
  const asked = text.value.trim().toLowerCase();
  const chosen = level.value;
  let shown = 0;
  for (const group of groups) {
    let here = 0;
    for (const row of group.querySelectorAll("tbody > tr")) {
      const fits = !chosen || row.dataset.level === chosen;
      row.hidden = !fits || (asked !== "" && !row.textContent.toLowerCase().includes(asked));
      here += row.hidden ? 0 : 1;
    }
    group.hidden = here === 0;
    group.open = asked || chosen ? here <= most : before.get(group);
    if (group.classList.contains("numbered")) shown += here;
  }
  said.textContent = asked || chosen ? `${shown} affected ${shown === 1 ? "model fits" : "models fit"}` : "";
}

function later() {
  clearTimeout(waiting);
  waiting = setTimeout(apply, 150);
}

function reveal() {
  const row = document.getElementById(location.hash.slice(1));
  const group = row && row.closest("details.group");
  if (group) {
    group.open = true;
    row.scrollIntoView({ block: "center" });
  }
}

if (tools) {
  tools.hidden = false;
  text.addEventListener("input", later);
  level.addEventListener("change", apply);
  tools.addEventListener("submit", (event) => event.preventDefault());
}
addEventListener("hashchange", reveal);
reveal();
