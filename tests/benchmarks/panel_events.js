// When the page received each event of the platform, and when the panel showed what it says.
// Noted in the page: neither the test's own delays nor the network before the page count.
(() => {
  const received = [];
  const shown = [];
  const original = window.fetch;

  function note(text, at) {
    for (const block of text.split(/\n\n/)) {
      const data = /^data: ?(.*)$/m.exec(block);
      const type = /^event: ?(.*)$/m.exec(block);
      if (data && type) received.push({ type: type[1], event: JSON.parse(data[1]), at });
    }
  }

  function watched(body) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    return new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        const at = performance.now();
        rest += decoder.decode(value, { stream: true });
        const end = rest.lastIndexOf("\n\n");
        if (end >= 0) {
          note(rest.slice(0, end), at);
          rest = rest.slice(end + 2);
        }
        controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    }, { highWaterMark: 0 });
  }

  window.fetch = async (...request) => {
    const answer = await original(...request);
    const kind = answer.headers.get("content-type") ?? "";
    if (!kind.startsWith("text/event-stream") || !answer.body) return answer;
    const { status, statusText, headers } = answer;
    return new Response(watched(answer.body), { status, statusText, headers });
  };

  // Every change of what a row says, by the words a screen reader gets.
  window.panelEvents = {
    received: () => received,
    shown: () => shown,
    watch: (selector) => {
      const panel = document.querySelector(selector);
      let most = 0;
      new MutationObserver((changes) => {
        const at = performance.now();
        most = Math.max(most, panel.querySelectorAll("[role=row]").length);
        for (const { target, type, addedNodes } of changes) {
          const rows = type === "attributes" ? [target]
            : [...addedNodes].filter((node) => node.nodeType === 1);
          for (const row of rows) {
            const words = row.getAttribute("aria-label");
            if (row.getAttribute("role") === "row") shown.push({ words, at });
          }
        }
      }).observe(panel, { subtree: true, childList: true, attributes: true,
        attributeFilter: ["aria-label"] });
      window.panelEvents.mostRows = () => most;
    },
  };
})();
