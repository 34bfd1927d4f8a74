// What a notebook's outputs say, and when: noted in the page, so that no test's own delays count.
window.live = (() => {
  const notebook = () => window.jupyterapp?.shell?.currentWidget;
  const cell = (index) => notebook().content.widgets[index];
  let notes = null;
  let observer = null;
  let lastInput = null;

  for (const kind of ["keydown", "pointerdown", "pointerup"]) {
    window.addEventListener(kind, () => { lastInput = performance.now(); }, true);
  }

  function start(code) {
    const { content, sessionContext } = notebook();
    const index = content.widgets.length;
    content.model.sharedModel.insertCell(index, { cell_type: "code", source: code });
    content.activeCellIndex = index;
    content.mode = "command";
    void window.jupyterapp.commands.execute("notebook:run-cell");
    content.widgets[index].node.scrollIntoView({ block: "start" });
    return index;
  }

  function text(index) {
    const outputs = cell(index).node.querySelectorAll(".jp-OutputArea-output");
    return [...outputs].map((output) => output.innerText).join("\n");
  }

  function look(index) {
    const said = text(index);
    const found = /round (\d+)\/\d+/.exec(said);
    if (found && notes.rounds.at(-1) !== Number(found[1])) notes.rounds.push(Number(found[1]));
    if (notes.saidStopped === null && /was stopped/.test(said)) {
      notes.saidStopped = performance.now();
    }
    if (notes.done === null && done(index)) notes.done = performance.now();
  }

  function record(index) {
    observer?.disconnect();
    notes = { rounds: [], saidStopped: null, idle: null, done: null, changes: 0 };
    const kept = notes;
    observer = new MutationObserver(() => { kept.changes += 1; look(index); });
    observer.observe(cell(index).node, { subtree: true, childList: true, characterData: true });
    notebook().sessionContext.statusChanged.connect((_, status) => {
      if (status === "idle") kept.idle = performance.now();
    });
    look(index);
  }

  const prompt = (index) => cell(index).inputArea.node.querySelector(".jp-InputPrompt").innerText;
  const done = (index) => /\[\d+\]/.test(prompt(index));
  const running = (index) => /\[\*\]/.test(prompt(index));

  return {
    notebook,
    start,
    record,
    // An interrupt's own "idle" may come while the next cell runs; then its end is no change.
    recorded: () => ({ ...notes, idle: notes.idle ?? notes.done, lastInput }),
    running,
    busy: () => notebook().content.widgets.some((_, index) =>
      cell(index).model.type === "code" && running(index)),
    done,
    brightness: (selector) => {
      const colour = getComputedStyle(document.querySelector(selector)).backgroundColor;
      return Math.max(...colour.match(/\d+/g).slice(0, 3).map(Number));
    },
    save: async () => {
      await notebook().context.save();
      return notebook().content.widgets.length;
    },
    saved: (index) => cell(index).model.toJSON().outputs,
    trusted: () => notebook().content.widgets
      .filter((each) => each.model.type === "code").every((each) => each.model.trusted),
  };
})();
