// Silences and acknowledgements, made by the API with the visitor's own session; what it refuses is said on the page.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("silence"), said = document.getElementById("alerts-said");

  async function call(method, path, body, done) {
    try {
      const answer = await fetch("/api/v1" + path, {
        method, credentials: "same-origin",
        headers: { "content-type": "application/json" }, body: body && JSON.stringify(body),
      });
      const told = await answer.json();
      said.textContent = answer.ok ? done : told.hint ? `${told.error}; ${told.hint}` : told.error;
      said.className = answer.ok ? "muted" : "bad";
      if (answer.ok) form.comment.value = "";
    } catch {
      said.textContent = "the platform did not answer: try again";
      said.className = "bad";
    }
    htmx.trigger("#alerts", "changed");
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("alerts").addEventListener("click", (event) => {
    const asked = event.target.dataset, comment = form.comment.value.trim();
    if (asked.silence) {
      const wish = { matchers: JSON.parse(asked.silence), seconds: Number(form.seconds.value), comment };
      call("POST", "/silences", wish, "Silenced: nobody is told of it, within seconds.");
    } else if (asked.ack) {
      call("POST", `/incidents/${asked.ack}/ack`, { comment }, `Incident ${asked.ack} is yours: nobody else is called.`);
    } else if (asked.end) {
      call("DELETE", `/silences/${asked.end}`, null, `Silence ${asked.end} is over.`);
    }
  });
});
