// A button beside each address and reply that copies it. Without this script, or without a secure
// connection, they are text as before.
document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) return;
  const SAID_MS = 1500;

  for (const text of document.querySelectorAll("[data-copy]")) {
    const button = document.createElement("button"), icon = document.createElement("span");
    const copied = text.textContent.trim(), words = `Copy ${copied.slice(0, 60)}`;
    button.type = "button";
    button.className = "ph-copy";
    button.title = button.ariaLabel = words;
    icon.className = "material-symbols-outlined";
    icon.textContent = "content_copy";
    button.append(icon);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(copied);
      icon.textContent = "check";
      button.title = button.ariaLabel = "Copied";
      setTimeout(() => {
        icon.textContent = "content_copy";
        button.title = button.ariaLabel = words;
      }, SAID_MS);
    });
    if (text.matches(".ph-reply")) text.append(" ", button);
    else text.after(button);
  }
});
