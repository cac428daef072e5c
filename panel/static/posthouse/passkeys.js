// Passkeys: what only a browser's script can do. Every sentence comes with the page.
// <div data-passkey="get or create" data-ask="where the challenge is"> with a button, a hidden
// field and a place for what went wrong, inside the form that is sent with the answer.
(() => {
  const decoded = (text) => Uint8Array.from(
    atob(text.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0)
  );
  const encoded = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  const named = (some = []) => some.map((one) => ({ ...one, id: decoded(one.id) }));

  async function made(options) {
    const asked = {
      ...options, challenge: decoded(options.challenge), user: { ...options.user, id: decoded(options.user.id) },
      excludeCredentials: named(options.excludeCredentials),
    };
    const { id, rawId, type, response } = await navigator.credentials.create({ publicKey: asked });
    return {
      id, type, rawId: encoded(rawId),
      response: {
        clientDataJSON: encoded(response.clientDataJSON), attestationObject: encoded(response.attestationObject),
        transports: response.getTransports ? response.getTransports() : [],
      },
    };
  }

  async function used(options) {
    const asked = {
      ...options, challenge: decoded(options.challenge), allowCredentials: named(options.allowCredentials),
    };
    const { id, rawId, type, response } = await navigator.credentials.get({ publicKey: asked });
    return {
      id, type, rawId: encoded(rawId),
      response: {
        clientDataJSON: encoded(response.clientDataJSON), authenticatorData: encoded(response.authenticatorData),
        signature: encoded(response.signature), userHandle: response.userHandle ? encoded(response.userHandle) : null,
      },
    };
  }

  function setUp(part) {
    const form = part.closest("form");
    const button = part.querySelector("button");
    const field = part.querySelector("[name=passkey]");
    const fault = part.querySelector("[role=alert]");
    const refusals = { NotAllowedError: "stopped", AbortError: "stopped", SecurityError: "elsewhere",
      InvalidStateError: "known", TypeError: "unreachable" };

    const say = (sentence) => {
      fault.hidden = !sentence;
      fault.querySelector("span").textContent = sentence;
    };
    part.querySelector("[data-none]").hidden = true;
    button.hidden = false;
    button.addEventListener("click", async () => {
      say("");
      button.disabled = true;
      try {
        const answer = await fetch(part.dataset.ask, { method: "POST", body: new FormData(form) });
        const said = await answer.json().catch(() => ({ sentence: part.dataset.unreachable }));
        if (!answer.ok || said.sentence) return say(said.sentence || part.dataset.unreachable);
        field.value = JSON.stringify(await (part.dataset.passkey === "create" ? made : used)(said));
        form.submit();
      } catch (error) {
        say(part.dataset[refusals[error.name] || "failed"]);
      } finally {
        button.disabled = false;
      }
    });
  }

  if (!window.PublicKeyCredential || !navigator.credentials) return;
  for (const part of document.querySelectorAll("[data-passkey]")) setUp(part);
})();
