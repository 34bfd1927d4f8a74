import { clip } from '../format';

export type Child = Node | string;

/** An element with attributes and children; text is always text, never markup. */
export function h(tag: string, attributes: Record<string, string>, ...children: Child[]): HTMLElement {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** A cell: text, or a bar from 0 to 1. */
export type Cell = string | { bar: number; negative?: boolean };

export interface ITable {
  caption: string;
  /** Titles of the columns; a leading `>` aligns a column of numbers to the right. */
  columns: string[];
  rows: Cell[][];
  /** False where the caption says it all; a screen reader still hears the titles. */
  titled?: boolean;
}

/** A table with caption, column and row headers. */
export function table(options: ITable): HTMLElement {
  const { caption, columns, rows, titled = true } = options;
  const right = columns.map(title => title.startsWith('>'));
  const head = h('tr', {});
  columns.forEach((title, index) => {
    const name = title.replace(/^>/, '');
    head.append(h('th', { scope: 'col', class: right[index] ? 'ts-right' : '' }, name));
  });
  const body = h('tbody', {});
  for (const row of rows) {
    const line = h('tr', {});
    row.forEach((cell, index) => line.append(drawn(cell, index === 0, right[index] ?? false)));
    body.append(line);
  }
  return h(
    'table',
    { class: 'ts-table' },
    h('caption', {}, caption),
    h('thead', { class: titled ? '' : 'ts-heard' }, head),
    body
  );
}

function drawn(cell: Cell, first: boolean, right: boolean): HTMLElement {
  if (typeof cell !== 'string') {
    const width = `${(100 * Math.max(0, Math.min(1, cell.bar))).toFixed(1)}%`;
    const fill = h('span', { class: cell.negative ? 'ts-bar ts-bar-negative' : 'ts-bar' });
    fill.style.width = width;
    return h('td', { class: 'ts-bar-cell', 'aria-hidden': 'true' }, fill);
  }
  const attributes = { class: right ? 'ts-right' : '' };
  return first ? h('th', { scope: 'row', ...attributes }, cell) : h('td', attributes, cell);
}

export function line(...children: Child[]): HTMLElement {
  return h('p', {}, ...children);
}

export function strong(text: string): HTMLElement {
  return h('strong', {}, text);
}

/** What is folded away until somebody asks. */
export function fold(summary: string, ...children: Child[]): HTMLElement {
  return h('details', {}, h('summary', {}, summary), ...children);
}

/** A curve of shares in [0, 1], between its lowest and highest value. */
export function curve(values: number[], label: string): Node {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const step = 240 / Math.max(values.length - 1, 1);
  const points = values.map(
    (value, index) => `${(index * step).toFixed(1)},${(44 - (40 * (value - low)) / span).toFixed(1)}`
  );
  for (const [name, value] of Object.entries({
    class: 'ts-mime-curve',
    viewBox: '-2 0 244 48',
    width: '244',
    height: '48',
    role: 'img',
    'aria-label': label
  })) {
    svg.setAttribute(name, value);
  }
  const path = document.createElementNS(space, 'polyline');
  path.setAttribute('points', points.join(' '));
  svg.append(path);
  return svg;
}

/** What the data leave out to keep the notebook small, in words; empty where nothing is. */
export function omittedWords(omitted: Record<string, number> | undefined): string {
  const parts = Object.entries(omitted ?? {}).map(
    ([place, number]) => `${number} of ${clip(place || 'everything', 40)}`
  );
  return parts.length
    ? `Left out of the data, to keep the notebook small: ${parts.join(', ')}. The card has the rest.`
    : '';
}
