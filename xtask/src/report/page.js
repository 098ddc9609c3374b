// Opens what a link leads to, filters the cases, and says in the document whether all is well.
"use strict";

const root = document.documentElement;
root.dataset.errors = "0";
addEventListener("error", (event) => {
  root.dataset.errors = String(Number(root.dataset.errors) + 1);
  root.dataset.error = event.message;
});

// A case is hidden in its group until that is opened.
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) {
    if (node.tagName === "DETAILS") node.open = true;
    node.hidden = false;
  }
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);

function tools() {
  const bar = document.createElement("div");
  bar.className = "tools";
  bar.setAttribute("role", "search");
  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Find a case";
  search.setAttribute("aria-label", "Find a case by its name or what it asserts");
  const label = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = true;
  label.append(box, "also those left out");
  const found = document.createElement("span");
  found.setAttribute("role", "status");
  bar.append(search, label, found);
  document.getElementById("cases").after(bar);
  const cases = [...document.querySelectorAll(".case")].map((node) => ({
    node,
    group: node.closest(".group"),
    ignored: node.classList.contains("ignored"),
    text: (node.id + " " + node.querySelector("summary").textContent + " " + node.querySelector("p").textContent).toLowerCase(),
  }));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const groups = new Map();
    let shown = 0;
    for (const one of cases) {
      const fits = words.every((word) => one.text.includes(word)) && (box.checked || !one.ignored);
      one.node.hidden = !fits;
      shown += fits ? 1 : 0;
      groups.set(one.group, groups.get(one.group) || fits);
    }
    for (const [group, any] of groups) {
      group.hidden = !any;
      if (words.length > 0 && any) group.open = true;
    }
    found.textContent = words.length > 0 || !box.checked ? `${shown} of ${cases.length}` : "";
  };
  search.addEventListener("input", filter);
  box.addEventListener("change", filter);
}

// A drawing may be wider than the screen: what went wrong is to be in view.
function turn(node) {
  for (const drawing of node.querySelectorAll("figure .scroll")) {
    const line = drawing.querySelector(".violation line");
    if (!line || drawing.scrollWidth <= drawing.clientWidth) continue;
    const at = line.getBoundingClientRect().left - drawing.getBoundingClientRect().left + drawing.scrollLeft;
    drawing.scrollLeft = at - drawing.clientWidth * 0.6;
  }
}
document.addEventListener("toggle", (event) => { if (event.target.open) turn(event.target); }, true);

tools();
turn(document);
reveal();
root.dataset.ready = "yes";
