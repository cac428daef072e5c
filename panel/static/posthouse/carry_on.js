// Carries a bulk act on: sends its form again and again and shows what came back, until there is none.
// Without this script the form's button does each step.
(() => {
  const HOLD_OFF_MS = 3000, MOST_FAILURES = 5;
  let failures = 0;

  async function carryOn() {
    const form = document.querySelector("form[data-carry-on]");
    if (!form) return;
    try {
      const answer = await fetch(form.action, {
        method: "POST", body: new FormData(form), credentials: "same-origin",
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("progress");
      if (!answer.ok || !fresh) throw new Error(`answered ${answer.status}`);
      document.getElementById("progress").replaceWith(document.adoptNode(fresh));
      failures = 0;
      setTimeout(carryOn, 0);
    } catch {
      // The button stays: whoever is signed out meanwhile, or offline, goes on by hand.
      failures += 1;
      if (failures < MOST_FAILURES) setTimeout(carryOn, HOLD_OFF_MS);
      else document.querySelectorAll("[data-stopped]").forEach((each) => { each.hidden = !each.hidden; });
    }
  }

  carryOn();
})();
