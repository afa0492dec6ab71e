// Shared by both pages: send the form as JSON, and say in words what came of it.

const form = document.getElementById("form");
const outcome = document.getElementById("outcome");
const button = form.querySelector("button");

function show(code) {
  const known = [...document.querySelectorAll("template[data-code]")];
  const words =
    known.find((template) => template.dataset.code === code) ??
    known.find((template) => template.dataset.code === "failed");
  outcome.replaceChildren(words.content.cloneNode(true));
  document.title = outcome.querySelector("h1").textContent;
  form.hidden = "final" in words.dataset;
  outcome.focus();
}

// Returns the code of the outcome; `success` stands for an answer without a problem.
async function send(body, success) {
  button.disabled = true;
  try {
    const answer = await fetch(form.getAttribute("action"), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return answer.ok ? success : (await answer.json()).code;
  } catch {
    return "failed";
  } finally {
    button.disabled = false;
  }
}
