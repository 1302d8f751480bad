// What pages do beside htmx. Everything works without it: a text can be copied by
// hand, and a live list is a list.
"use strict";

// Copy the text of the element that the button names.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(document.getElementById(button.dataset.copy));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected, press Ctrl+C";
  }
  setTimeout(() => { button.textContent = label; }, 2000);
});

// A live list keeps as many entries as it says: its page stays open for days.
document.addEventListener("htmx:afterSwap", (event) => {
  const list = event.target.closest("[data-keep]");
  while (list && list.children.length > Number(list.dataset.keep)) list.lastElementChild.remove();
});

// One box ticks all boxes of its form that have the name it says. Where no script
// runs, it and its label stay hidden.
for (const all of document.querySelectorAll("[data-all]")) {
  all.closest("label").hidden = false;
  all.addEventListener("change", () => {
    for (const box of all.form.querySelectorAll(`[name="${all.dataset.all}"]`)) box.checked = all.checked;
  });
}
