
// Nothing here confirms by itself: link scanners run scripts too, so it takes a press of the button.

const token = form.elements.namedItem("token");

function takeToken() {
  const url = new URL(location.href);
  const mailed = new URLSearchParams(url.hash.slice(1)).get("token");
  if (mailed) token.value = mailed;
  // Out of the address bar, so that it stays out of the history, bookmarks and screenshots.
  url.hash = "";
  url.searchParams.delete("token");
  history.replaceState(null, "", url);
  if (token.value) {
    outcome.replaceChildren();
    form.hidden = false;
  } else {
    show("incomplete");
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  show(await send({ token: token.value }, "verified"));
});

// Another link opened in this tab changes the fragment only, and loads nothing.
addEventListener("hashchange", () => {
  if (location.hash) takeToken();
});
takeToken();
