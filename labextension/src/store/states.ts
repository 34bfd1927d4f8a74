import { AnswerError, Api } from '../api/client';
import type { Run } from '../api/types';
import { isActive } from './live';

/** What is known of a run: `unknown` to the platform, or nobody to ask (`away`). */
export type RunState =
  | { kind: 'asking' | 'unknown' | 'away' }
  | { kind: 'known'; run: Run };

/** How often a run that goes on is asked for, while somebody looks; nobody waits for it. */
const LOOK_MS = 5000;
/** Looks without news after which nobody asks until the page is looked at again. */
const QUIET_LOOKS = 24;

interface IFollowed {
  state: RunState;
  listeners: Set<() => void>;
  timer: number;
  quiet: number;
}

/**
 * Single runs, for who shows them in cells.
 *
 * It asks now and then and opens no stream: browsers share six connections between all tabs, and
 * a notebook may show many runs. Names are used again on other platforms, ids are not: all here
 * goes by the id.
 */
export class RunStates {
  constructor(private _api: Api) {
    document.addEventListener('visibilitychange', this._look);
  }

  /** What is known of a run that is followed. */
  get(id: string): RunState {
    return this._followed.get(id)?.state ?? { kind: 'asking' };
  }

  /** Calls `changed` at every news of the run, until the returned function is called. */
  follow(id: string, changed: () => void): () => void {
    let followed = this._followed.get(id);
    if (followed === undefined) {
      followed = { state: { kind: 'asking' }, listeners: new Set(), timer: 0, quiet: 0 };
      this._followed.set(id, followed);
      void this.ask(id);
    }
    const { listeners, timer } = followed;
    listeners.add(changed);
    return () => {
      listeners.delete(changed);
      if (listeners.size === 0 && this._followed.get(id)?.listeners === listeners) {
        window.clearTimeout(this._followed.get(id)?.timer ?? timer);
        this._followed.delete(id);
      }
    };
  }

  /** Asks for the run now. */
  async ask(id: string): Promise<void> {
    let state: RunState;
    try {
      state = { kind: 'known', run: await this._api.get('runs', id) };
    } catch (error) {
      // What is said of it names the way out; the panel has the platform's own sentence.
      const gone = error instanceof AnswerError && !error.passing;
      state = { kind: gone ? 'unknown' : 'away' };
    }
    this._put(id, state);
  }

  /** Asks the platform to stop the run; throws its sentence. */
  async stop(id: string): Promise<void> {
    this._put(id, { kind: 'known', run: await this._api.stop(id) });
  }

  private _put(id: string, state: RunState): void {
    const followed = this._followed.get(id);
    if (followed === undefined) {
      return;
    }
    followed.quiet = newsOf(state) === newsOf(followed.state) ? followed.quiet + 1 : 0;
    followed.state = state;
    window.clearTimeout(followed.timer);
    const over = state.kind === 'unknown' || (state.kind === 'known' && isSettled(state.run));
    // A run whose kernel is gone would keep the platform awake.
    if (!over && followed.quiet < QUIET_LOOKS) {
      followed.timer = window.setTimeout(() => {
        // A page that nobody sees is told when it is seen again.
        if (document.visibilityState === 'visible') {
          void this.ask(id);
        }
      }, LOOK_MS);
    }
    [...followed.listeners].forEach(changed => changed());
  }

  private _look = (): void => {
    if (document.visibilityState === 'visible') {
      this._followed.forEach((followed, id) => {
        followed.quiet = 0;
        void this.ask(id);
      });
    }
  };

  private _followed = new Map<string, IFollowed>();
}

function newsOf(state: RunState): string {
  return state.kind === 'known' ? `${state.run.status} ${state.run.updated_at}` : state.kind;
}

/** Whether nothing more will happen: stopped, failed, or completed and compared. */
export function isSettled(run: Run): boolean {
  if (isActive(run)) {
    return false;
  }
  const { report, plan } = run;
  if (plan.hosted) {
    // Virtual clients are compared all at once; of named arrays nobody but their kernel knows more.
    const done = !plan.signature || Boolean(report?.pooled && report.clients);
    return run.status !== 'completed' || done;
  }
  const compared = Boolean(report?.pooled) && (report?.sites ?? []).every(site => site.alone);
  return run.status !== 'completed' || compared;
}
