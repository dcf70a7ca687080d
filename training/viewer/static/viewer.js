// The page works without this, which adds previews and progress.
"use strict";

const form = document.querySelector("form[data-busy]");
const file = document.getElementById("file");

// A preview, so that one sees that the right file was dropped.
if (file) {
  const preview = document.querySelector(".preview");
  file.addEventListener("change", () => {
    URL.revokeObjectURL(preview.src);
    preview.hidden = !file.files.length;
    if (!file.files.length) return;
    for (const example of form.querySelectorAll("[name=example]")) example.checked = false;
    preview.onerror = () => { preview.hidden = true; };
    preview.src = URL.createObjectURL(file.files[0]);
  });
  // The last choice counts: an example after a file takes its place.
  form.addEventListener("change", (event) => {
    if (event.target.name !== "example") return;
    file.value = "";
    preview.hidden = true;
  });
}

if (form) {
  const button = form.querySelector("button");
  const busy = form.querySelector(".busy");
  form.addEventListener("submit", () => {
    busy.textContent = form.dataset.busy;
    button.disabled = true;
  });
  // Also when the browser's back button brings the old page up again.
  window.addEventListener("pageshow", () => {
    busy.textContent = "";
    button.disabled = false;
  });
}

const progress = document.querySelector("[data-progress]");
if (progress) {
  const text = progress.querySelector("[role=status]");
  const bar = progress.querySelector("progress");
  const ask = async () => {
    try {
      const answer = await (await fetch(progress.dataset.progress)).json();
      if (!answer.running) return location.reload();
      text.textContent = answer.text;
      if (answer.total) {
        bar.max = answer.total;
        bar.value = answer.done;
      }
    } catch {
      text.textContent = "The viewer does not answer. Was it stopped?";
    }
    setTimeout(ask, 700);
  };
  setTimeout(ask, 300);
}
