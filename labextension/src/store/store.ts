import { Signal } from '@lumino/signaling';

import { AnswerError, Api, IListings, Kind } from '../api/client';
import type { IPlatformEvent, IPlatformStatus, ModelVersion, Run } from '../api/types';
import { Backoff } from './backoff';
import { Follower } from './follower';
import { ListingLoader } from './listing';
import { LiveRuns } from './live';

export type Phase = 'loading' | 'ready' | 'stopped' | 'starting' | 'offline' | 'error';

/** Where the panel is with the platform. */
export interface IConnection {
  phase: Phase;
  status: IPlatformStatus | null;
  message: string;
  /** When the next attempt is due, in ms since 1970; null where none is. */
  retryAt: number | null;
}

/** The versions of one model; null while they are loaded. */
export type Versions = { items: ModelVersion[] | null; more: boolean; error: string };

/** How often a platform that is stopped is looked for: a kernel may start it. */
const LOOK_MS = 5000;
/** From answer to answer; the events in between are answered together, and the first at once. */
const GATHER_MS = 120;
/** From so many touched things on, one listing costs less than each by itself. */
const FEW = 3;

const KINDS: Kind[] = ['runs', 'models', 'deployments', 'federations'];

/** All that the panel shows. It works only while somebody looks (`watch`). */
export class PanelStore {
  connection: IConnection = { phase: 'loading', status: null, message: '', retryAt: null };
  search = '';
  /** When the platform was last seen, ISO 8601. */
  seenAt: string | null = null;
  /** What a screen reader should hear next. */
  announcement = '';
  readonly changed = new Signal<this, void>(this);
  readonly versions = new Map<string, Versions>();
  readonly runs: ListingLoader<'runs'>;
  readonly models: ListingLoader<'models'>;
  readonly deployments: ListingLoader<'deployments'>;
  readonly federations: ListingLoader<'federations'>;

  constructor(readonly api: Api = new Api()) {
    const changed = (): void => this._emit();
    this.runs = new ListingLoader(api, 'runs', () => this._runsChanged());
    this.models = new ListingLoader(api, 'models', changed);
    this.deployments = new ListingLoader(api, 'deployments', changed);
    this.federations = new ListingLoader(api, 'federations', changed);
    this._live = new LiveRuns(
      api,
      name => this.runs.find(name),
      run => this.putRun(run)
    );
    this._events = this._organisation();
  }

  /** Connects, or lets go of every connection: called as the panel is shown and hidden. */
  watch(on: boolean): void {
    if (on === this._watching) {
      return;
    }
    this._watching = on;
    window.clearTimeout(this._timer);
    if (on) {
      void this.connect();
    } else {
      this._letGo();
    }
  }

  /** Looks for the platform now, and loads what there is. */
  async connect(): Promise<void> {
    window.clearTimeout(this._timer);
    const ticket = ++this._ticket;
    try {
      const status = await this.api.status();
      if (ticket === this._ticket) {
        await this._take(status);
      }
    } catch (error) {
      if (ticket === this._ticket) {
        this._fail(error as Error);
      }
    }
  }

  /** Starts the sandbox. */
  async start(): Promise<void> {
    window.clearTimeout(this._timer);
    const ticket = ++this._ticket;
    this._connection({ phase: 'starting', message: '', retryAt: null });
    try {
      const status = await this.api.start();
      if (ticket === this._ticket) {
        await this._take(status);
      }
    } catch (error) {
      this._fail(error as Error);
    }
  }

  /** Shows only names that contain `search`; the platform looks through all of them. */
  async find(search: string): Promise<void> {
    this.search = search;
    await this._reload(KINDS);
  }

  /** The next page of a kind. */
  more(kind: Kind): void {
    void this[kind].more();
  }

  /** Asks the platform to stop a run; throws its sentence. */
  async stopRun(name: string): Promise<void> {
    this.putRun(await this.api.stop(name));
  }

  putRun(run: Run): void {
    const before = this.runs.find(run.name);
    if (before && before.status !== run.status) {
      this.say(`Run ${run.name} is ${run.status}.`);
    }
    this.runs.put(run);
  }

  /** Loads a model's versions; what is loaded stays in view until the new ones are there. */
  async loadVersions(model: string): Promise<void> {
    const former = this.versions.get(model);
    this.versions.set(model, { items: former?.items ?? null, more: false, error: '' });
    this._emit();
    try {
      const page = await this.api.versions(model);
      const more = page.next_cursor !== null;
      this.versions.set(model, { items: page.items, more, error: '' });
    } catch (error) {
      this.versions.set(model, { items: null, more: false, error: (error as Error).message });
    }
    this._emit();
  }

  say(sentence: string): void {
    this.announcement = sentence;
    this._emit();
  }

  dispose(): void {
    this.watch(false);
    Signal.clearData(this);
  }

  private async _take(status: IPlatformStatus): Promise<void> {
    if (!this._watching) {
      return;
    }
    if (status.state === 'unreachable') {
      this._fail(new AnswerError(status.message ?? 'The platform does not answer.', 0), status);
      return;
    }
    if (status.state === 'stopped') {
      this._letGo();
      this._backoff.reset();
      this._connection({ phase: 'stopped', status, message: status.message ?? '', retryAt: null });
      this._timer = window.setTimeout(() => void this.connect(), LOOK_MS);
      return;
    }
    const returned = this.connection.phase !== 'ready' && this.connection.phase !== 'loading';
    const organisation = status.identity?.organisation_id ?? '';
    if (organisation !== this._organisationId) {
      // Another platform, or one that began anew: its numbers of events mean something else.
      this._letGo();
      this._organisationId = organisation;
      this._events = this._organisation();
      this.versions.clear();
    }
    // First where the events begin, then what there is: nothing falls in between.
    await this._events.start();
    await this._reload(KINDS, false);
    this._backoff.reset();
    this._connection({ phase: 'ready', status, message: '', retryAt: null });
    if (returned) {
      this.say('Connected.');
    }
    this._live.follow(this.runs.listing.items);
    this.versions.forEach((_, model) => void this.loadVersions(model));
  }

  private _fail(error: Error, status = this.connection.status): void {
    this._letGo();
    const passing = !(error instanceof AnswerError) || error.passing;
    const message =
      error instanceof AnswerError && error.status === 404
        ? 'The Jupyter server does not know TrustStram Lab; restart it after the installation.'
        : error.message;
    if (!passing) {
      this._connection({ phase: 'error', status, message, retryAt: null });
      return;
    }
    if (this.connection.phase === 'ready') {
      this.seenAt = new Date().toISOString();
    }
    const wait = this._backoff.next();
    if (this.connection.phase !== 'offline') {
      this.announcement = `Offline: ${message} Trying again.`;
    }
    this._connection({ phase: 'offline', status, message, retryAt: Date.now() + wait });
    if (this._watching) {
      this._timer = window.setTimeout(() => void this.connect(), wait);
    }
  }

  private _letGo(): void {
    this._events.stop();
    this._live.stop();
  }

  /** Loads kinds anew; a failure of one is shown at that one, unless all are needed. */
  private async _reload(kinds: Kind[], lenient = true): Promise<void> {
    const loads = kinds.map(kind => this[kind].reload(this.search));
    const results = await Promise.allSettled(loads);
    const failed = results.find(result => result.status === 'rejected');
    if (failed && (!lenient || isPassing(failed.reason))) {
      if (lenient) {
        this._fail(failed.reason as Error);
      } else {
        throw failed.reason;
      }
    }
  }

  private _organisation(): Follower {
    return new Follower(
      this.api,
      'org',
      event => this._gather(event),
      'latest',
      error => void this._lost(error)
    );
  }

  private async _lost(error: Error): Promise<void> {
    if (error instanceof AnswerError && !error.passing) {
      this._fail(error);
    } else {
      await this.connect();
    }
  }

  private _gather(event: IPlatformEvent): void {
    const { run, model, deployment } = event.data;
    const touched: [Kind, unknown][] = [];
    if (event.type.startsWith('run.')) {
      touched.push(['runs', run]);
    } else if (event.type.startsWith('model.')) {
      touched.push(['models', model]);
    } else if (event.type.startsWith('deployment.')) {
      touched.push(['deployments', deployment], ['models', model]);
    }
    if (event.type === 'run.created' || event.type.startsWith('federation.')) {
      this._touched.federations.add('');
    }
    if (event.type.endsWith('.deleted')) {
      // There is nothing left to read by itself.
      touched.forEach(([kind]) => this._shrunk.add(kind));
    } else {
      touched.forEach(([kind, name]) => this._touched[kind].add(String(name)));
    }
    this._gathering ||= window.setTimeout(() => {
      this._gathering = 0;
      this._answeredAt = Date.now();
      void this._answer();
    }, Math.max(0, this._answeredAt + GATHER_MS - Date.now()));
  }

  /** Reads what the gathered events touched: each by itself, or the listing if it is much. */
  private async _answer(): Promise<void> {
    const touched = this._touched;
    const shrunk = this._shrunk;
    this._touched = nothing();
    this._shrunk = new Set();
    const whole = KINDS.filter(
      kind =>
        shrunk.has(kind) ||
        touched[kind].size > FEW ||
        (kind === 'federations' && touched[kind].size)
    );
    const single = (['runs', 'models', 'deployments'] as const).filter(
      kind => !whole.includes(kind)
    );
    touched.models.forEach(model => this.versions.has(model) && void this.loadVersions(model));
    const reads = single.flatMap(kind =>
      [...touched[kind]].map(async name => this._put(kind, await this.api.get(kind, name)))
    );
    const results = await Promise.allSettled([this._reload(whole), ...reads]);
    const lost = results.find(
      result => result.status === 'rejected' && isPassing(result.reason)
    ) as PromiseRejectedResult | undefined;
    if (lost && this._watching) {
      this._fail(lost.reason as Error);
    }
  }

  private _put<K extends Kind>(kind: K, item: IListings[K]): void {
    if (kind === 'runs') {
      this.putRun(item as Run);
    } else {
      (this[kind] as unknown as ListingLoader<K>).put(item);
    }
  }

  private _runsChanged(): void {
    if (this.connection.phase === 'ready') {
      this._live.follow(this.runs.listing.items);
    }
    this._emit();
  }

  private _connection(change: Partial<IConnection>): void {
    this.connection = { ...this.connection, ...change };
    this._emit();
  }

  private _emit(): void {
    this.changed.emit();
  }

  private _watching = false;
  private _organisationId = '';
  private _ticket = 0;
  private _timer = 0;
  private _gathering = 0;
  private _answeredAt = 0;
  private _touched = nothing();
  private _shrunk = new Set<Kind>();
  private _backoff = new Backoff();
  private _live: LiveRuns;
  private _events: Follower;
}

function isPassing(error: unknown): boolean {
  return !(error instanceof AnswerError) || error.passing;
}

function nothing(): Record<Kind, Set<string>> {
  return { runs: new Set(), models: new Set(), deployments: new Set(), federations: new Set() };
}
