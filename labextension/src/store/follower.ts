import type { Api } from '../api/client';
import type { IPlatformEvent } from '../api/types';
import { Backoff } from './backoff';

/** Keeps one stream open and resumes it after the last event that it saw. */
export class Follower {
  constructor(
    private _api: Api,
    private _stream: string,
    private _onEvent: (event: IPlatformEvent) => void,
    private _after = 0,
    private _onLost: (error: Error) => void = () => undefined
  ) {}

  /** The number of the last event that was seen. */
  get after(): number {
    return this._after;
  }

  /** Opens the stream; a stream that is open stays as it is. */
  start(): void {
    if (this._control === null) {
      this._control = new AbortController();
      void this._run(this._control.signal);
    }
  }

  /** Closes the stream; `start` resumes it. */
  stop(): void {
    this._control?.abort();
    this._control = null;
  }

  private async _run(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff();
    while (!signal.aborted) {
      let failure = new Error('The platform closed the stream.');
      try {
        await this._api.follow(this._stream, this._after, signal, event => {
          backoff.reset();
          this._after = Math.max(this._after, event.sequence);
          if (!signal.aborted) {
            this._onEvent(event);
          }
        });
      } catch (error) {
        failure = error as Error;
      }
      if (signal.aborted) {
        return;
      }
      this._onLost(failure);
      await pause(backoff.next(), signal);
    }
  }

  private _control: AbortController | null = null;
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = window.setTimeout(resolve, milliseconds);
    signal.addEventListener('abort', () => {
      window.clearTimeout(timer);
      resolve();
    });
  });
}
