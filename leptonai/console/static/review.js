// The review form of an incident: collected, sent to the API with the visitor's own session, and shown again.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("review");
  if (!form) return;
  const said = document.getElementById("review-said");

  function collected() {
    const review = { hypotheses: {}, remedies: {}, analysis: form.dataset.analysis };
    for (const [name, value] of new FormData(form)) {
      const [kind, about] = [name.split(":", 1)[0], name.slice(name.indexOf(":") + 1)];
      if (kind === "hypothesis") review.hypotheses[about] = value === "right";
      else if (kind === "remedy") review.remedies[about] = value;
      else if (value.trim()) review[name] = value.trim();
    }
    return review;
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const answer = await fetch(`/api/v1/incidents/${form.dataset.incident}/review`, {
        method: "POST", credentials: "same-origin",
        headers: { "content-type": "application/json" }, body: JSON.stringify(collected()),
      });
      if (answer.ok) return location.reload();
      const error = await answer.json();
      said.textContent = error.hint ? `${error.error}; ${error.hint}` : error.error;
    } catch {
      said.textContent = "the platform did not answer: try again";
    }
    said.className = "bad";
  });
});
