// What unfold leaves out for keyboards and screen readers: where a page's content is, what the fields with
// completion are called, and the button for the side bar on a narrow screen.
window.addEventListener("load", () => {
  document.getElementById("main")?.setAttribute("role", "main");

  for (const select of document.querySelectorAll("select.select2-hidden-accessible")) {
    const label = select.labels[0], box = select.parentElement.querySelector(".select2-selection");
    if (!label || !box) continue;
    label.id ||= `${select.id}-label`;
    for (const part of [box, box.querySelector("[role=textbox]")]) {
      part?.setAttribute("aria-labelledby", `${label.id} ${part.getAttribute("aria-labelledby") ?? ""}`.trim());
    }
  }

  for (const drawn of document.querySelectorAll("span[x-on\\:click*=sidebarMobileOpen]")) {
    drawn.role = "button";
    drawn.tabIndex = 0;
    drawn.ariaLabel = document.documentElement.lang === "ja" ? "メニュー" : "Menu";
    drawn.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); drawn.click(); }
    });
  }
});
