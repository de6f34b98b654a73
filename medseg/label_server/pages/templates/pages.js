"use strict";
// The progress of a training run stays up to date; without this script, reloading does the same.
const progress = document.querySelector("[data-refresh][data-running]");
const refresh = async () => {
  try {
    const answer = await fetch(progress.dataset.refresh);
    if (!answer.ok) return;
    progress.innerHTML = await answer.text();
    if (answer.headers.get("x-training") !== "running") {
      location.reload(); // there may be a new version
      return;
    }
  } catch {
    // The server may be away for a moment.
  }
  setTimeout(refresh, 4000);
};
if (progress) setTimeout(refresh, 4000);
