import type { Kind } from '../api/client';
import type { Deployment, Federation, Model, ModelVersion, Run } from '../api/types';
import { clip, count, duration, moment, plural, share } from '../format';
import type { IListing } from '../store/listing';
import { isActive } from '../store/live';
import type { PanelStore } from '../store/store';

/** A version with the aliases that name it. */
export type NamedVersion = ModelVersion & { aliases: readonly string[] };

/** What a row's content is drawn from. */
export type Content =
  | { kind: 'section'; title: string; total: string }
  | { kind: 'run'; run: Run }
  | { kind: 'model'; model: Model }
  | { kind: 'version'; version: NamedVersion; deployed: boolean }
  | { kind: 'deployment'; deployment: Deployment }
  | { kind: 'federation'; federation: Federation; run: string | null }
  | { kind: 'fact'; name: string; value: string; curve?: number[] }
  | { kind: 'note'; text: string; error: boolean; example?: string }
  | { kind: 'more'; of: Kind; text: string; failed: boolean };

/** One row of the grid: where it is, how high, and whether it opens. */
export interface IRow {
  id: string;
  level: number;
  height: number;
  place: number;
  siblings: number;
  open: boolean | null;
  label: string;
  content: Content;
}

type Draft = Omit<IRow, 'place' | 'siblings'>;

const SECTION = 32;
const TALL = 46;
const LOW = 30;
const FACT = 24;
const NOTE = 48;
/** Aliases that one line names. */
const ALIASES = 3;

const STATUS: Record<Run['status'], string> = {
  statistics: 'collecting means',
  training: 'training',
  stopped: 'stopped',
  completed: 'done',
  failed: 'failed'
};

/** All rows as they follow each other; only those in view are drawn. */
export function buildRows(store: PanelStore, open: ReadonlySet<string>): IRow[] {
  const rows: Draft[] = [];
  section(rows, open, 'runs', 'Runs', store.runs.listing, store.search, run => runRows(run, open));
  section(rows, open, 'models', 'Models', store.models.listing, store.search, model =>
    modelRows(model, store, open)
  );
  const deployments = store.deployments.listing;
  section(rows, open, 'deployments', 'Deployments', deployments, store.search, deploymentRows);
  const federations = store.federations.listing;
  const runs = store.runs.listing.items;
  section(rows, open, 'federations', 'Federations', federations, store.search, federation =>
    federationRows(federation, runs)
  );
  return placed(rows);
}

function section<T>(
  rows: Draft[],
  open: ReadonlySet<string>,
  kind: Kind,
  title: string,
  listing: IListing<T>,
  search: string,
  rowsOf: (item: T) => Draft[]
): void {
  const id = `section:${kind}`;
  const shown = open.has(id);
  const known = listing.items.length;
  const total = listing.cursor === null ? count(known) : `${count(known)}+`;
  const content: Content = { kind: 'section', title, total };
  rows.push({ id, level: 1, height: SECTION, open: shown, label: `${title}, ${total}`, content });
  if (!shown) {
    return;
  }
  for (const item of listing.items) {
    rows.push(...rowsOf(item));
  }
  if (listing.state === 'error') {
    rows.push(note(`${id}:error`, 2, listing.error, true));
  } else if (listing.state === 'loading') {
    rows.push(note(`${id}:loading`, 2, 'Loading…', false));
  } else if (known === 0) {
    const [text, example] = empty(kind, search);
    rows.push({ ...note(`${id}:empty`, 2, text, false, example) });
  }
  if (listing.cursor !== null) {
    const text = `More ${title.toLowerCase()}`;
    const more: Content = { kind: 'more', of: kind, text, failed: listing.state === 'error' };
    rows.push({ id: `${id}:more`, level: 2, height: LOW, open: null, label: text, content: more });
  }
}

function empty(kind: Kind, search: string): [string, string?] {
  if (search) {
    return [`No name here contains “${clip(search, 40)}”.`];
  }
  switch (kind) {
    case 'runs':
      return ['No runs yet. The first one takes a minute.', '%ts_federate breast-cancer'];
    case 'models':
      return ['No models yet. A run that is done leaves one.'];
    case 'deployments':
      return ['Nothing is deployed. A run here deploys its model.'];
    case 'federations':
      return ['No federations yet. A run makes one.'];
  }
}

function note(id: string, level: number, text: string, error: boolean, example?: string): Draft {
  const content: Content = { kind: 'note', text, error, example };
  return { id, level, height: NOTE, open: null, label: text, content };
}

function fact(parent: string, name: string, value: string, curve?: number[]): Draft {
  const content: Content = { kind: 'fact', name, value, curve };
  const label = `${name}: ${value}`;
  return { id: `${parent}:${name}`, level: 3, height: FACT, open: null, label, content };
}

/** The state of a run in a few words. */
export function runWords(run: Run): string {
  const accuracy = latestAccuracy(run);
  const known = accuracy === null ? [] : [`accuracy ${share(accuracy)}`];
  const rounds = `round ${count(run.round)}/${count(run.plan.rounds)}`;
  switch (run.status) {
    case 'completed':
      return [STATUS.completed, ...known].join(', ');
    case 'training':
      return [rounds, ...known].join(', ');
    case 'statistics':
      return STATUS.statistics;
    default:
      return [STATUS[run.status], rounds, ...known].join(', ');
  }
}

export function latestAccuracy(run: Run): number | null {
  const history = run.report?.history ?? [];
  return run.report?.federated?.accuracy ?? history[history.length - 1]?.accuracy ?? null;
}

function runRows(run: Run, open: ReadonlySet<string>): Draft[] {
  const id = `run:${run.name}`;
  const opened = open.has(id);
  const label = `Run ${run.name}, ${runWords(run)}`;
  const row: Draft = { id, level: 2, height: TALL, open: opened, label, content: { kind: 'run', run } };
  return opened ? [row, ...runFacts(id, run)] : [row];
}

function runFacts(id: string, run: Run): Draft[] {
  const { report, plan } = run;
  const facts: Draft[] = [];
  if (run.reason) {
    facts.push(fact(id, 'Reason', clip(run.reason, 200)));
  }
  if (plan.hosted) {
    facts.push(fact(id, 'Clients', `${count(plan.hosted.clients)}, simulated by one host`));
  } else if (isActive(run)) {
    facts.push(
      fact(id, 'Sites in', `${count(run.pushed?.length ?? 0)} of ${count(plan.sites?.length ?? 0)}`)
    );
  } else {
    facts.push(fact(id, 'Sites', count(plan.sites?.length ?? 0)));
  }
  // A round that no site evaluated has no accuracy.
  const curve = (report?.history ?? []).flatMap(entry => entry.accuracy ?? []);
  if (curve.length > 1) {
    const ends = `${share(curve[0] ?? 0)} to ${share(curve[curve.length - 1] ?? 0)}`;
    facts.push(fact(id, 'By round', ends, curve));
  }
  const alone = (report?.sites ?? []).flatMap(site => (site.alone ? [site.alone.accuracy] : []));
  if (alone.length) {
    const mean = alone.reduce((sum, value) => sum + value, 0) / alone.length;
    facts.push(fact(id, 'Alone', `${share(mean)} on average`));
  }
  for (const [name, score] of [
    ['Federated', report?.federated],
    ['Pooled', report?.pooled]
  ] as const) {
    if (score) {
      const interval = `${share(score.low)}–${share(score.high)}`;
      facts.push(fact(id, name, `${share(score.accuracy)} (${interval})`));
    }
  }
  if (report?.elapsed_s) {
    facts.push(fact(id, 'Took', `${duration(report.elapsed_s)}, ${clip(report.device ?? '', 30)}`));
  }
  if (run.model_version !== null && run.model_version !== undefined) {
    const saved = `${count(run.model_version)}${run.deployed ? ', deployed' : ', not deployed'}`;
    facts.push(fact(id, 'Version', saved));
  }
  facts.push(fact(id, 'Started', moment(run.created_at)));
  return facts;
}

function modelRows(model: Model, store: PanelStore, open: ReadonlySet<string>): Draft[] {
  const id = `model:${model.name}`;
  const opened = open.has(id);
  const label = `Model ${model.name}, ${modelWords(model)}`;
  const content: Content = { kind: 'model', model };
  const rows: Draft[] = [{ id, level: 2, height: TALL, open: opened, label, content }];
  if (!opened) {
    return rows;
  }
  const versions = store.versions.get(model.name);
  if (!versions || (versions.items === null && !versions.error)) {
    rows.push(note(`${id}:loading`, 3, 'Loading the versions…', false));
  } else if (versions.error) {
    rows.push(note(`${id}:error`, 3, versions.error, true));
  } else if (!versions.items?.length) {
    rows.push(note(`${id}:empty`, 3, 'No version is registered yet.', false));
  }
  for (const found of versions?.items ?? []) {
    const version = { ...found, aliases: aliasesOf(model, found.sequence) };
    const deployed = version.sequence === model.deployed_version;
    const words = versionWords(version, deployed);
    rows.push({
      id: `${id}:${version.sequence}`,
      level: 3,
      height: LOW,
      open: null,
      label: `Version ${version.sequence}, ${words}`,
      content: { kind: 'version', version, deployed }
    });
  }
  if (versions?.more) {
    rows.push(note(`${id}:more`, 3, `Older versions: %ts_models ${model.name}`, false));
  }
  return rows;
}

export function modelWords(model: Model): string {
  const deployed = model.deployed_version;
  const serving = deployed === null ? 'not deployed' : `version ${count(deployed)} deployed`;
  const named = (model.aliases ?? []).map(entry => `@${entry.alias} ${count(entry.version)}`);
  return [plural(model.version_count, 'version'), serving, ...few(named)].join(', ');
}

export function versionWords(version: NamedVersion, deployed: boolean): string {
  const accuracy = version.metrics['accuracy'];
  const parts = [...(deployed ? ['deployed'] : []), ...few(version.aliases)];
  if (accuracy !== undefined) {
    parts.push(`accuracy ${share(accuracy)}`);
  }
  return [...parts, moment(version.created_at).slice(0, 10)].join(', ');
}

/** The aliases that name a version now, as they are written after the model's name. */
function aliasesOf(model: Model, sequence: number): string[] {
  return (model.aliases ?? [])
    .filter(entry => entry.version === sequence)
    .map(entry => `@${entry.alias}`);
}

function few(names: readonly string[]): string[] {
  const shown = names.slice(0, ALIASES).map(name => clip(name, 30));
  return names.length > ALIASES ? [...shown, `${count(names.length - ALIASES)} more`] : shown;
}

const HEALTH: Record<Deployment['status'], string> = {
  ready: 'ready',
  starting: 'starting',
  failed: 'failed',
  drained: 'asleep, wakes with the next call'
};

/** What a deployment serves, the alias that it was named by, and its health. */
export function deploymentWords(deployment: Deployment): string {
  const { model, version, reference } = deployment;
  // The alias may have moved since; the deployment stays on its version.
  const named = reference ? ` (deployed as ${clip(reference, 60)})` : '';
  return `serves ${model}:${version}${named}, ${HEALTH[deployment.status]}`;
}

/** The same for a line as narrow as the panel: the alias first, as that is what would be cut. */
export function deploymentLine(deployment: Deployment): string {
  const alias = deployment.reference?.split('@')[1];
  return alias
    ? `@${clip(alias, 30)}, version ${count(deployment.version)}, ${HEALTH[deployment.status]}`
    : deploymentWords(deployment);
}

function deploymentRows(deployment: Deployment): Draft[] {
  const label = `Deployment ${deployment.name}, ${deploymentWords(deployment)}`;
  const content: Content = { kind: 'deployment', deployment };
  const id = `deployment:${deployment.environment}:${deployment.name}`;
  return [{ id, level: 2, height: TALL, open: null, label, content }];
}

function federationRows(federation: Federation, runs: readonly Run[]): Draft[] {
  const run = runs.find(other => other.plan.federation === federation.name)?.name ?? null;
  const sites = plural(federation.participants.length, 'site');
  const label = `Federation ${federation.name}, ${sites}`;
  const content: Content = { kind: 'federation', federation, run };
  return [{ id: `federation:${federation.name}`, level: 2, height: TALL, open: null, label, content }];
}

/** With the place of each row among its siblings, which a screen reader tells. */
function placed(rows: Draft[]): IRow[] {
  const counts: number[] = [];
  const places = rows.map(row => {
    counts.length = row.level + 1;
    counts[row.level] = (counts[row.level] ?? 0) + 1;
    return counts[row.level] as number;
  });
  const siblings: number[] = new Array<number>(rows.length);
  const last: (number | undefined)[] = [];
  for (let index = rows.length - 1; index >= 0; index--) {
    const level = (rows[index] as Draft).level;
    const place = places[index] as number;
    siblings[index] = last[level] ?? place;
    last[level] = siblings[index];
    last.length = level + 1;
    if (place === 1) {
      last[level] = undefined;
    }
  }
  return rows.map((row, index) => ({
    ...row,
    place: places[index] as number,
    siblings: siblings[index] as number
  }));
}
