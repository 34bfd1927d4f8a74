// What a person can see of the outputs of a page: computed by the browser that draws them.
window.checks = (() => {
  const BLOCKS = /^[\s\u2581-\u258f]+$/;

  const visible = (element) => element.checkVisibility({ visibilityProperty: true });

  function textNodes(root) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const parent = node.parentElement;
      if (node.data.trim() && !parent.closest("script,style") && visible(parent)) found.push(node);
    }
    return found;
  }

  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  function rgba(colour) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }

  const over = (top, below) =>
    [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);

  function background(element) {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundImage !== "none") layers.push(null);
      layers.push(rgba(style.backgroundColor));
    }
    return layers.filter(Boolean).reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  }

  function luminance([r, g, b]) {
    const linear = [r, g, b].map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  }

  // WCAG 2.2, the definition of "contrast ratio".
  function contrast(element) {
    const behind = background(element);
    const front = over(rgba(getComputedStyle(element).color), behind);
    const [low, high] = [luminance(front), luminance(behind)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  }

  function lowContrast(selector) {
    const bad = [];
    for (const root of document.querySelectorAll(selector)) {
      for (const node of textNodes(root)) {
        const least = BLOCKS.test(node.data) ? 3 : 4.5;
        const ratio = contrast(node.parentElement);
        if (ratio < least) bad.push(`${node.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
      }
    }
    return bad;
  }

  // Text that no scrolling brings into view: cut by an ancestor that hides what overflows.
  function outOfReach(selector) {
    const bad = [];
    for (const root of document.querySelectorAll(selector)) {
      for (const node of textNodes(root)) {
        const range = document.createRange();
        range.selectNodeContents(node);
        let { left, right } = range.getBoundingClientRect();
        for (let at = node.parentElement; at; at = at.parentElement) {
          const box = at.getBoundingClientRect();
          const overflow = getComputedStyle(at).overflowX;
          if (overflow === "auto" || overflow === "scroll") {
            [left, right] = [Math.max(left, box.left), Math.min(right, box.right)];
          } else if (overflow !== "visible" && (right > box.right + 1 || left < box.left - 1)) {
            bad.push(node.data.trim().slice(0, 60));
            break;
          }
        }
        if (right > document.documentElement.clientWidth + 1) bad.push(node.data.trim());
      }
    }
    return bad;
  }

  // Outputs that take room and say nothing.
  function blank(selector) {
    return [...document.querySelectorAll(selector)]
      .filter((each) => !each.innerText.trim() && each.getBoundingClientRect().height > 2)
      .map((each) => `${each.getBoundingClientRect().height} px: ${each.outerHTML.slice(0, 300)}`);
  }

  function untitledTables(selector) {
    const tables = [...document.querySelectorAll(`${selector} table`)];
    const bad = tables.filter((table) => {
      const caption = table.querySelector("caption");
      const rows = [...table.querySelectorAll("tbody tr")];
      return !caption?.innerText.trim() || !rows.length
        || rows.some((row) => row.firstElementChild?.matches('th[scope="row"]') !== true);
    });
    return { tables: tables.length, bad: bad.map((table) => table.outerHTML.slice(0, 200)) };
  }

  function unfold(selector) {
    const folds = document.querySelectorAll(`${selector} details`);
    for (const fold of folds) fold.open = true;
    return folds.length;
  }

  function fold(selector) {
    for (const each of document.querySelectorAll(`${selector} details`)) each.open = false;
  }

  const moving = (selector) => document.getAnimations()
    .filter((each) => each.effect?.target?.closest?.(selector)).length;

  return { blank, fold, lowContrast, moving, outOfReach, textNodes, unfold, untitledTables };
})();
