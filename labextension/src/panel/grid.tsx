import React from 'react';

import { RowView, IRowActions } from './row';
import type { IRow } from './rows';

/** Rows drawn beyond both edges, so that scrolling shows no gaps. */
const BEYOND_PX = 200;

export interface IGridProps extends IRowActions {
  rows: IRow[];
  toggle(row: IRow): void;
}

/** Where each row begins; one more entry for the end. */
export function offsetsOf(rows: readonly IRow[]): number[] {
  const offsets = [0];
  for (const row of rows) {
    offsets.push((offsets[offsets.length - 1] as number) + row.height);
  }
  return offsets;
}

/** The index of the last row that begins at or above `top`. */
export function rowAt(offsets: readonly number[], top: number): number {
  let low = 0;
  let high = offsets.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((offsets[middle] as number) <= top) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return Math.max(low, 0);
}

/**
 * A tree grid that draws what is in view (ARIA Authoring Practices, treegrid pattern).
 *
 * One row is in the page's Tab order, and after it its buttons. The row that has the focus is
 * drawn wherever it is, so that neither scrolling nor an update takes the focus away.
 */
export function Grid(props: IGridProps): JSX.Element {
  const { rows, toggle } = props;
  const view = React.useRef<HTMLDivElement>(null);
  const [top, setTop] = React.useState(0);
  const [height, setHeight] = React.useState(600);
  const [current, setCurrent] = React.useState<string>(rows[0]?.id ?? '');
  const offsets = React.useMemo(() => offsetsOf(rows), [rows]);
  const found = rows.findIndex(row => row.id === current);
  const former = React.useRef(0);
  const focused = React.useRef(false);
  const active = found >= 0 ? found : Math.min(former.current, rows.length - 1);
  former.current = active;

  React.useLayoutEffect(() => {
    const node = view.current;
    if (!node) {
      return;
    }
    const observer = new ResizeObserver(() => setHeight(node.clientHeight || 600));
    observer.observe(node);
    return () => observer.disconnect();
  }, []);

  // What had the focus and is gone hands it on: a button to its row, a row to the one in its place.
  React.useLayoutEffect(() => {
    const nowhere = document.activeElement === null || document.activeElement === document.body;
    if (focused.current && nowhere && rows[active]) {
      setCurrent((rows[active] as IRow).id);
      rowElement(view.current, active)?.focus();
    }
  });

  const go = (index: number): void => {
    const target = Math.max(0, Math.min(index, rows.length - 1));
    const row = rows[target];
    const node = view.current;
    if (!row || !node) {
      return;
    }
    const begin = offsets[target] as number;
    const end = offsets[target + 1] as number;
    if (begin < node.scrollTop) {
      node.scrollTop = begin;
    } else if (end > node.scrollTop + node.clientHeight) {
      node.scrollTop = end - node.clientHeight;
    }
    setTop(node.scrollTop);
    setCurrent(row.id);
    requestAnimationFrame(() => rowElement(view.current, target)?.focus({ preventScroll: true }));
  };

  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    if (handleKey(event.key, event.target as HTMLElement, rows, active, height, go, toggle)) {
      event.preventDefault();
      event.stopPropagation();
    }
  };

  const first = rowAt(offsets, Math.max(0, top - BEYOND_PX));
  const last = rowAt(offsets, top + height + BEYOND_PX);
  // Whoever scrolls to the end of what is loaded gets the next page.
  const due = rows.slice(first, last + 1).flatMap(({ content }) =>
    content.kind === 'more' && !content.failed ? [content.of] : []
  );
  React.useEffect(() => due.forEach(props.more));
  const drawn = new Set<number>();
  for (let index = first; index <= last && index < rows.length; index++) {
    drawn.add(index);
  }
  if (rows.length) {
    drawn.add(active);
  }
  return (
    <div
      className="ts-grid"
      role="treegrid"
      aria-label="What the platform has"
      aria-rowcount={rows.length}
      aria-colcount={2}
      ref={view}
      onScroll={event => setTop(event.currentTarget.scrollTop)}
      onKeyDown={onKeyDown}
      onFocus={() => (focused.current = true)}
      onBlur={() => (focused.current = false)}
    >
      <div className="ts-rows" role="rowgroup" style={{ height: offsets[rows.length] }}>
        {[...drawn].sort((a, b) => a - b).map(index => {
          const row = rows[index] as IRow;
          return (
            <RowView
              key={row.id}
              row={row}
              index={index}
              top={offsets[index] as number}
              current={index === active}
              choose={() => setCurrent(row.id)}
              toggle={() => toggle(row)}
              actions={props}
            />
          );
        })}
      </div>
    </div>
  );
}

function rowElement(view: HTMLElement | null, index: number): HTMLElement | null {
  return view?.querySelector<HTMLElement>(`[aria-rowindex="${index + 1}"]`) ?? null;
}

/** Acts on a key; says whether it was one of ours. */
function handleKey(
  key: string,
  target: HTMLElement,
  rows: IRow[],
  active: number,
  height: number,
  go: (index: number) => void,
  toggle: (row: IRow) => void
): boolean {
  const row = rows[active];
  const element = target.closest<HTMLElement>('[role=row]');
  if (!row || !element) {
    return false;
  }
  const buttons = [...element.querySelectorAll<HTMLElement>('button')];
  const place = buttons.indexOf(target);
  const step = Math.max(1, Math.floor(height / 40) - 1);
  const jumps: Record<string, number> = {
    ArrowDown: active + 1,
    ArrowUp: active - 1,
    PageDown: active + step,
    PageUp: active - step,
    Home: 0,
    End: rows.length - 1
  };
  const jump = jumps[key];
  if (jump !== undefined) {
    go(jump);
  } else if (key === 'ArrowRight') {
    if (place < 0 && row.open === false) {
      toggle(row);
    } else {
      buttons[place + 1]?.focus();
    }
  } else if (key === 'ArrowLeft') {
    if (place >= 0) {
      (buttons[place - 1] ?? element).focus();
    } else if (row.open) {
      toggle(row);
    } else {
      go(parentOf(rows, active));
    }
  } else if ((key === 'Enter' || key === ' ') && place < 0) {
    if (row.open !== null) {
      toggle(row);
    } else {
      buttons[0]?.click();
    }
  } else {
    return false;
  }
  return true;
}

function parentOf(rows: IRow[], index: number): number {
  const level = rows[index]?.level ?? 1;
  for (let above = index - 1; above >= 0; above--) {
    if ((rows[above] as IRow).level < level) {
      return above;
    }
  }
  return index;
}
