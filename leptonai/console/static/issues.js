// Who sees to an issue, how it stands, which revision repairs it: sent to the API with the visitor's own session.
"use strict";
document.addEventListener("submit", async (event) => {
  const form = event.target, said = document.getElementById("said");
  if (!form.dataset.issue) return;
  event.preventDefault();
  const given = Object.fromEntries(new FormData(form)), wish = { owner: given.owner.trim(), state: given.state };
  // A revision that is given anew says that the issue is fixed by it, as on the command line.
  const fresh = given.revision !== form.elements.revision.defaultValue;
  if (given.revision && fresh && given.state === form.dataset.state) wish.state = "fixed";
  if (given.revision && wish.state === "fixed") wish.revision = Number(given.revision);
  try {
    const answer = await fetch(`/api/v1/issues/${form.dataset.issue}`, {
      method: "POST", credentials: "same-origin", headers: { "content-type": "application/json" }, body: JSON.stringify(wish),
    });
    if (answer.ok) return location.reload();
    const error = await answer.json();
    said.textContent = error.hint ? `${error.error}; ${error.hint}` : error.error;
  } catch {
    said.textContent = "the platform did not answer: try again";
  }
  said.className = "bad";
});
