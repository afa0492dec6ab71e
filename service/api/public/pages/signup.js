
const email = form.elements.namedItem("email");
const name = form.elements.namedItem("name");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { email: email.value };
  if (name.value.trim()) body.name = name.value;
  if (/^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$/.test(navigator.language)) {
    body.locale = navigator.language;
  }
  const code = await send(body, "accepted");
  email.setAttribute("aria-invalid", String(code === "invalid_email"));
  show(code);
  if (code === "invalid_email") email.focus();
});
