import type { Api } from '../api/client';
import type { IPlatformEvent, Run } from '../api/types';
import { Follower } from './follower';

/**
 * Streams of runs at a time: browsers share six connections between all tabs of one server, and
 * what is followed here is open only while somebody looks.
 */
const MOST_STREAMS = 2;
/** Runs are read whole at most so often; everything else comes with the events. */
const READ_MS = 1000;

export function isActive(run: Run): boolean {
  return run.status === 'training' || run.status === 'statistics';
}

/** Follows the newest active runs, event by event. */
export class LiveRuns {
  constructor(
    private _api: Api,
    private _find: (name: string) => Run | undefined,
    private _put: (run: Run) => void
  ) {}

  /** Opens and closes streams so that the first active ones of `runs` are followed. */
  follow(runs: readonly Run[]): void {
    const wanted = new Map(
      runs
        .filter(isActive)
        .slice(0, MOST_STREAMS)
        .map(run => [run.id, run])
    );
    for (const [id, follower] of this._followers) {
      if (!wanted.has(id)) {
        follower.stop();
        this._followers.delete(id);
      }
    }
    for (const [id, run] of wanted) {
      if (!this._followers.has(id)) {
        const onEvent = (event: IPlatformEvent): void => this._take(run.name, event);
        const follower = new Follower(this._api, `run:${id}`, onEvent, run.last_event);
        this._followers.set(id, follower);
        void follower.start();
      }
    }
  }

  stop(): void {
    this.follow([]);
  }

  /** Reads a run whole, soon, and once for many reasons. */
  read(name: string): void {
    if (this._reading.has(name)) {
      return;
    }
    const since = Date.now() - (this._readAt.get(name) ?? 0);
    const wait = Math.max(0, READ_MS - since);
    const timer = window.setTimeout(() => {
      this._reading.delete(name);
      this._readAt.set(name, Date.now());
      // A failure is no news of its own: the stream of the organisation reports a lost platform.
      this._api.get('runs', name).then(this._put, error => console.warn(String(error)));
    }, wait);
    this._reading.set(name, timer);
  }

  private _take(name: string, event: IPlatformEvent): void {
    const run = this._find(name);
    if (run === undefined || event.sequence <= run.last_event) {
      return;
    }
    const next = applied(run, event);
    if (next === null) {
      this.read(name);
    } else {
      this._put({ ...next, last_event: event.sequence });
    }
  }

  private _followers = new Map<string, Follower>();
  private _reading = new Map<string, number>();
  private _readAt = new Map<string, number>();
}

/** The run after an event; null where the event tells too little and it must be read. */
export function applied(run: Run, event: IPlatformEvent): Run | null {
  const { data } = event;
  switch (event.type) {
    case 'update.received':
      return { ...run, pushed: [...new Set([...(run.pushed ?? []), String(data['site'])])] };
    case 'round.opened':
      return { ...run, pushed: [] };
    case 'round.closed':
      return { ...run, pushed: [], round: Number(data['number']) };
    case 'run.status':
      return { ...run, status: data['status'] as Run['status'] };
    case 'run.created':
      return run;
    default:
      return null;
  }
}
