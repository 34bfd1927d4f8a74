/** What a Stop needs: the run, and whether an interrupt of the notebook's kernel stops it. */
export interface IStop {
  run: string;
  name: string;
  interrupt: boolean;
}

/** What a live output says of itself in its metadata (`truststram`) until its last update. */
export interface IMarks {
  /** The display id, which is not saved otherwise. */
  view: string;
  /** The id of the cell that shows it. */
  cell: string | null;
  /** The cell's number, if the cell runs for as long as the view is open. */
  count: number | null;
  stop: IStop | null;
}

export const STOP_TYPE = 'application/vnd.truststram.stop+json';

/** Names and ids as the platform gives them: they go into cells, so nothing else does. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;

export function marksOf(metadata: unknown): IMarks | null {
  const { view, cell, count, stop } = fields(fields(metadata)['truststram']);
  if (typeof view !== 'string') {
    return null;
  }
  return {
    view,
    cell: typeof cell === 'string' ? cell : null,
    count: typeof count === 'number' ? count : null,
    stop: stopOf(stop)
  };
}

export function stopOf(value: unknown): IStop | null {
  const { run, name, interrupt } = fields(value);
  return isName(run) && isName(name) ? { run, name, interrupt: interrupt === true } : null;
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && NAME.test(value);
}

function fields(value: unknown): Record<string, unknown> {
  return value !== null && typeof value === 'object' ? (value as Record<string, unknown>) : {};
}
