import type { ModelVersion } from './api/types';

/** The cell that makes the commands of the others known to the kernel. */
export function signIn(kind: 'sandbox' | 'platform'): string {
  return `%load_ext truststram_lab\n%ts_login${kind === 'sandbox' ? ' --sandbox' : ''}`;
}

/** Whether a cell's source loads the commands. */
export function loadsCommands(source: string): boolean {
  return /^\s*%load_ext\s+truststram_lab\b/m.test(source);
}

/**
 * A prediction with the version's own columns, filled with what is typical in the federation:
 * its mean or its most frequent category, aggregates that a federation's version carries anyway.
 */
export function predict(ref: string, version: ModelVersion): string {
  const row: Record<string, unknown> = {};
  const columns = version.statistics?.columns ?? [];
  const known = new Map(columns.map(column => [column.name, column]));
  for (const column of version.signature.columns) {
    const aggregate = known.get(column.name);
    const mean = aggregate?.mean ?? null;
    if (column.kind === 'numeric') {
      row[column.name] = mean === null ? 0 : Number(mean.toPrecision(4));
    } else if (column.kind === 'boolean') {
      row[column.name] = mean !== null && mean >= 0.5;
    } else {
      const counts = aggregate?.category_counts ?? [];
      const most = counts.indexOf(Math.max(...counts));
      row[column.name] = column.categories?.[Math.max(most, 0)] ?? null;
    }
  }
  // An explanation starts from these aggregates; without them there is none.
  const explain = version.statistics ? ' --explain' : '';
  return `%%ts_predict ${ref}${explain}\n${JSON.stringify(row, null, 2)}`;
}

export function showModel(name: string): string {
  return `%ts_models ${name}`;
}

export function showRun(name: string, active: boolean): string {
  return `%ts_runs ${name}${active ? ' watch' : ''}`;
}

/** A federation is simulated on data, so the cell starts a run in it and follows its model. */
export function showFederation(run: string | null): string {
  return run === null ? '%ts_runs' : `%ts_runs ${run}`;
}

export const FIRST_RUN = '%ts_federate breast-cancer';
