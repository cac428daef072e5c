// Posthouse console: the few things HTML can't do alone. Everything else works without it.
(() => {
  const said = document.getElementById("said");
  const tell = (words) => { if (said) said.textContent = words; };

  // Over plain http there is no navigator.clipboard: the old way, from a field beside the button (outside an
  // open dialog nothing can be selected). Where that fails too, the text shown is selected, for Ctrl+C.
  const copySelected = (button) => {
    const field = document.createElement("textarea");
    field.value = button.dataset.copy;
    field.readOnly = true;
    field.style.position = "fixed";
    field.style.opacity = "0";
    button.after(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    button.focus();
    const shown = button.parentElement.querySelector("code");
    if (!copied && shown) getSelection().selectAllChildren(shown);
    return copied;
  };
  const copy = async (button) => {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      return true;
    } catch {
      return copySelected(button);
    }
  };

  // Copy: <button class="copy" data-copy="text">
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button || !await copy(button)) return;
    button.classList.add("done");
    tell(button.dataset.done || "Copied");
    setTimeout(() => { button.classList.remove("done"); tell(""); }, 1500);
  });

  // Light, dark or as the system: kept in a cookie, so that the next page comes with
  // data-bs-theme already set and nothing flashes.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-theme-set]");
    if (!button) return;
    const theme = button.dataset.themeSet;
    if (theme) document.documentElement.dataset.bsTheme = theme;
    else delete document.documentElement.dataset.bsTheme;
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `theme=${theme}; path=/; max-age=${theme ? 31536000 : 0}; samesite=lax${secure}`;
  });

  // A part that came anew is read out where it says something else than before: data-told.
  const told = (which) => [...document.querySelectorAll(which)].map((part) => part.textContent.trim()).join(" ");
  let before = told("[data-told]");
  // What a page says of the act before it stands there from the start, and readers tell only what comes later.
  const news = told("[role=status][data-told]");
  if (news) setTimeout(() => tell(news), 300);

  // And it leaves the focus where it was, and open what was opened. (What has an id htmx finds itself.)
  let focused = "", opened = [];
  const wayTo = (at) => {
    if (at.id) return "";
    if (at.matches("summary")) return at.parentElement.id && `#${CSS.escape(at.parentElement.id)} > summary`;
    return at.matches("a[href]") ? `a[href="${CSS.escape(at.getAttribute("href"))}"]` : "";
  };
  document.addEventListener("htmx:beforeSwap", (event) => {
    const part = event.detail.target, at = document.activeElement;
    focused = part.contains(at) ? wayTo(at) : "";
    opened = [...part.querySelectorAll("details[id][open]")].map((each) => each.id);
  });
  document.addEventListener("htmx:afterSettle", () => {
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
    if (focused && document.activeElement === document.body) {
      document.querySelector(focused)?.focus({ preventScroll: true });
    }
    const now = told("[data-told]");
    if (now !== before) tell(before = now);
  });

  // Ctrl+K, on a Mac Command+K, goes to the search box: a key alone would fire under speech input.
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "k" || event.ctrlKey === event.metaKey || event.altKey || event.shiftKey) return;
    const box = document.querySelector(".find input");
    if (box) { event.preventDefault(); box.focus(); }
  });

  // An address: "@" offers what is typed at each of the domains.
  document.addEventListener("input", (event) => {
    const box = event.target.closest("input[data-domains]");
    if (!box) return;
    const name = box.value.split("@")[0];
    for (const option of box.list.options) option.value = `${name}@${option.value.split("@").pop()}`;
  });
})();
